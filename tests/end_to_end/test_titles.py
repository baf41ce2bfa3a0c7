"""The title of a process says what it runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import rabbitry
from tests.processes import MARKER_VARIABLE
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


def title(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)
    return True


def begin(path, go):
    import os

    path.write_text(str(os.getpid()))
    return wait_for(go)


def test_of_a_task_while_it_runs_and_of_an_executor_without_work(tmp_path):
    task = rabbitry.remote(begin).remote(tmp_path / "pid", tmp_path / "go")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it runs")
    pid = int((tmp_path / "pid").read_text())
    assert title(pid) == "rabbitry::begin"
    assert MARKER_VARIABLE.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    (tmp_path / "go").touch()
    rabbitry.get(task, timeout=TIMEOUT)
    wait_until(lambda: title(pid) == "rabbitry::IDLE", "it is idle")


def test_of_an_actor_and_its_method(tmp_path):
    @rabbitry.remote(num_cpus=0)
    class Worker:
        def work(self, path, go):
            return begin(path, go)

        def pid(self):
            import os

            return os.getpid()

    worker = Worker.remote()
    pid = rabbitry.get(worker.pid.remote(), timeout=TIMEOUT)
    wait_until(lambda: title(pid) == "rabbitry::Worker", "it waits for calls")
    call = worker.work.remote(tmp_path / "begun", tmp_path / "go")
    wait_until((tmp_path / "begun").exists, "it runs")
    assert title(pid) == "rabbitry::Worker.work"
    (tmp_path / "go").touch()
    rabbitry.get(call, timeout=TIMEOUT)
