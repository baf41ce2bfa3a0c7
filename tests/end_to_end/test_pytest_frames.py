"""Under pytest, the error of a task is shown with the user's frames and none of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.conftest import node_environment

TEST = """
import asyncio
import rabbitry as ray

@ray.remote
def boom():
    raise ValueError("oh")

def helper(ref):
    return ray.get(ref)

def test_get(session):
    helper(boom.remote())

def test_several(session):
    ray.get([boom.remote(), boom.remote()])

def test_await(session):
    async def wait():
        await boom.remote()
    asyncio.run(wait())

import pytest

@pytest.fixture(scope="module")
def session():
    ray.init(num_cpus=1)
    yield
    ray.shutdown()
"""


def test_the_users_frames_are_shown_and_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(TEST)
    environment = {**node_environment(), "PYTHONPATH": ":".join(filter(None, sys.path)), "PYTEST_ADDOPTS": ""}
    environment.pop("PYTEST_CURRENT_TEST", None)
    shown = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_user.py"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    ).stdout  # fmt: skip
    assert "3 failed" in shown
    assert shown.count("return ray.get(ref)") == 1
    assert f"api{os.sep}rabbitry" not in shown
    assert "ValueError: oh" in shown
