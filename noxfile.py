"""The unit tests on every Python that this machine has: `nox` (or `nox -s tests-3.12 -- -k ledger`)."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv|venv"
nox.options.error_on_missing_interpreters = False

PARTS_ALONE = ("tests/api", "tests/broker", "tests/workers")


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests of the parts, or what stands behind `--`, with the locked versions."""
    session.install("--require-hashes", "-r", "requirements/dev.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    session.run("python", "-m", "pytest", "-q", *(session.posargs or PARTS_ALONE))
