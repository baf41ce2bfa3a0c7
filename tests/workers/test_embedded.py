"""The supervisor of the embedded engine: dead agents are started again, hopeless ones given up with the reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import warren
from tests.chaos.stage import children
from tests.processes import MARKER_VARIABLE, find_processes
from tests.servers import wait_until

# The environment of every process here: agents after the first one cannot start.
SABOTAGE = """
import os, sys
if "embedded" in sys.argv:
    from warren_workers.node import config
    attempts, make = os.environ["SABOTAGED"], config.NodeConfig.__init__
    def sabotaged(self, *args, **kwargs):
        make(self, *args, **kwargs)
        if os.path.exists(attempts):
            with open(attempts, "a") as file:
                file.write("try\\n")
            raise RuntimeError("sabotaged for a test")
        open(attempts, "x").close()
    config.NodeConfig.__init__ = sabotaged
"""

PROGRAM = """
import warren
warren.init(num_cpus=1)
"""


@pytest.fixture
def sabotaged(tmp_path, monkeypatch):
    """From the second agent on, none can start; gives the file in which their attempts are counted."""
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("SABOTAGED", str(tmp_path / "attempts"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "attempts"


def supervisor() -> int:
    mine = find_processes(os.environ[MARKER_VARIABLE])
    (pid,) = [pid for pid, command in mine.items() if " embedded " in command and pid in children(os.getpid())]
    return pid


def agent() -> int:
    """Return the pid of the agent: the supervisor's child that is no server."""
    found = [pid for pid in children(supervisor()) if "redis" not in Path(f"/proc/{pid}/comm").read_text()]
    return found[0] if found else 0


@warren.remote
def one():
    return 1


def test_a_killed_agent_is_started_again_at_once():
    warren.init(num_cpus=1)
    try:
        for _ in range(3):
            before = agent()
            os.kill(before, signal.SIGKILL)
            wait_until(lambda before=before: agent() not in (0, before), "another agent is there", 10)
            assert warren.get(one.remote(), timeout=20) == 1
    finally:
        warren.shutdown()


def test_an_agent_that_cannot_start_again_is_given_up_with_the_reason(sabotaged, capfd):
    warren.init(num_cpus=1)
    try:
        assert warren.get(one.remote(), timeout=20) == 1
        process = supervisor()
        os.kill(agent(), signal.SIGKILL)
        wait_until(lambda: _has_ended(process), "it gives up", 20)
        assert 2 <= len(sabotaged.read_text().splitlines()) <= 6
        assert "could not be started again" in capfd.readouterr().err
    finally:
        warren.shutdown()


def _has_ended(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_init_tells_why_the_first_agent_cannot_start(sabotaged):
    sabotaged.touch()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.returncode != 0
    assert "the node could not be started: RuntimeError: sabotaged for a test" in done.stderr
