"""Lint and the unit tests on every Python that this machine has: `nox` (or `nox -s tests-3.12 -- -k ledger`)."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv|venv"
nox.options.error_on_missing_interpreters = False

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PARTS_ALONE = ("tests/api", "tests/broker", "tests/workers")


def install(session: nox.Session) -> None:
    """Install the locked versions, and rabbitry as it stands."""
    session.install("--require-hashes", "-r", "requirements/dev.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


@nox.session(python=PYTHONS)
def lint(session: nox.Session) -> None:
    """Check what depends on the Python: types, as its standard library declares them, and imports."""
    install(session)
    session.run("mypy", "--no-error-summary", "--python-version", str(session.python))
    session.run("lint-imports", "--no-logo", silent=True)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests of the parts, or what stands behind `--`."""
    install(session)
    session.run("python", "-m", "pytest", "-q", *(session.posargs or PARTS_ALONE))
