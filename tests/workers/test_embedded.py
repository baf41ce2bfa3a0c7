"""The supervisor of the embedded engine: dead agents are started again, hopeless ones given up with the reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rabbitry
from tests.chaos.stage import children
from tests.processes import MARKER_VARIABLE, find_processes
from tests.servers import wait_until

# The environment of every process here: agents after the first one cannot start.
SABOTAGE = """
import os, sys
if "embedded" in sys.argv:
    from rabbitry_workers.node.model import config
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
import rabbitry
rabbitry.init(num_cpus=1)
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


@rabbitry.remote
def one():
    return 1


def test_a_killed_agent_is_started_again_at_once():
    rabbitry.init(num_cpus=1)
    try:
        for _ in range(3):
            before = agent()
            os.kill(before, signal.SIGKILL)
            wait_until(lambda before=before: agent() not in (0, before), "another agent is there", 10)
            assert rabbitry.get(one.remote(), timeout=20) == 1
    finally:
        rabbitry.shutdown()


def test_what_tasks_have_started_ends_with_the_agent_and_with_the_template():
    @rabbitry.remote
    def start():
        return os.getpid(), os.getppid(), subprocess.Popen(["sleep", "100"]).pid

    rabbitry.init(num_cpus=1)
    try:
        for victim in (lambda _: agent(), lambda template: template):
            executor, template, child = rabbitry.get(start.remote(), timeout=20)
            os.kill(victim(template), signal.SIGKILL)
            ended = [executor, child]
            wait_until(lambda ended=ended: all(map(_has_ended, ended)), "they have ended", 10)
    finally:
        rabbitry.shutdown()


def test_an_agent_that_cannot_start_again_is_given_up_with_the_reason(sabotaged, capfd):
    rabbitry.init(num_cpus=1)
    try:
        assert rabbitry.get(one.remote(), timeout=20) == 1
        process = supervisor()
        os.kill(agent(), signal.SIGKILL)
        wait_until(lambda: _has_ended(process), "it gives up", 20)
        assert 2 <= len(sabotaged.read_text().splitlines()) <= 6
        assert "could not be started again" in capfd.readouterr().err
    finally:
        rabbitry.shutdown()


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
