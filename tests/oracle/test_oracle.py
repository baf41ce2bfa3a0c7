"""What Ray refuses, rabbitry refuses with the same class; what Ray takes, rabbitry takes. Exceptions: see `cases`."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.cases import CASES, Case, outcome
from tests.oracle.on_rabbitry import OnRabbitry

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded.json").read_text())
ORACLE_VARIABLE = "RABBITRY_ORACLE_PYTHON"
TOP = Path(__file__).parents[2]

# Names of methods that only Ray's inner workings have a use for.
RAYS_OWN_METHODS = {
    "redis_shard_hash",
    "for_actor_creation_task",
    "for_actor_task",
    "for_driver_task",
    "for_fake_task",
    "for_normal_task",
}


def ours(case: Case) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return outcome(case, OnRabbitry())


def test_the_record_has_every_case() -> None:
    assert set(RECORDED) == set(CASES), "run: python -m tests.oracle.record tests/oracle/recorded.json"


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("ids", "exceptions")])
def test_outcomes_are_rays(name: str) -> None:
    case = CASES[name]
    rays = RECORDED[name]
    if not case.ours:
        assert ours(case) == rays
        return
    got = ours(case)
    if isinstance(got, list):
        # Several classes: those that the difference is about must be among them.
        assert set(case.ours.split()) <= set(got)
    else:
        assert got == (None if case.ours == "ok" else {"raised": case.ours})
    assert got != rays, f"{name} is said to differ ({case.why}), but does not"


def test_every_exception_of_ray_can_be_caught_by_all_its_names() -> None:
    here = ours(CASES["exceptions"])
    missing = {
        name: sorted(set(bases) - set(here.get(name, [])))
        for name, bases in RECORDED["exceptions"].items()
        if not set(bases) <= set(here.get(name, []))
    }
    assert missing == {}


def test_ids_have_rays_sizes_and_methods() -> None:
    here = ours(CASES["ids"])
    for name, rays in RECORDED["ids"].items():
        assert here[name]["size"] == rays["size"]
        lacking = set(rays["methods"]) - set(here[name]["methods"]) - RAYS_OWN_METHODS
        assert lacking <= {"of"} if name == "ActorID" else lacking == set()


@pytest.mark.asks_ray
def test_the_record_is_what_ray_does(tmp_path: Path) -> None:
    python = os.environ[ORACLE_VARIABLE]
    fresh = tmp_path / "recorded.json"
    # Ray leaves its session's files behind.
    with tempfile.TemporaryDirectory(prefix="r-") as temporary:
        # Without this environment's own paths: the other Python may be of another version.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run(
            [python, "-m", "tests.oracle.record", str(fresh)],
            cwd=TOP,
            check=True,
            timeout=55,
            env={**environment, "TMPDIR": temporary},
        )
    assert json.loads(fresh.read_text()) == RECORDED
