"""Decisions that are made in one place: whoever makes one elsewhere finds out here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def users(pattern: str, *roots: str) -> set[str]:
    """Return the modules with a line that matches."""
    return {
        str(path.relative_to(ROOT / root))
        for root in roots
        for path in (ROOT / root).rglob("*.py")
        if re.search(pattern, path.read_text(), re.MULTILINE)
    }


def test_headers_of_tasks_are_made_by_plans() -> None:
    assert users(r"\bTaskHeader\(", "api/rabbitry", "workers/rabbitry_workers") == {"core/submit/plans.py"}


@pytest.mark.parametrize("read", [r"os\.environ\.get\(", r"os\.getenv\(", r"os\.environ\[[^]]+\](?! =)"])
def test_the_environment_is_read_by_its_reader(read: str) -> None:
    # `as_ray` changes PYTHONPATH for child processes, and looks at what it was.
    assert users(read, "api/rabbitry") <= {"environment.py", "as_ray.py"}


def test_no_part_of_the_client_takes_the_client() -> None:
    assert users(r"\bClient\b(?!Records)", "api/rabbitry/core") <= {"__init__.py", "client.py", "lock_order.py"}
