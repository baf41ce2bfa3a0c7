"""Entrypoints: their output, their exit codes, and the end of everything they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rabbitry_workers.jobs.entrypoint import Entrypoint
from rabbitry_workers.jobs.log_files import LogWriter, read_log
from tests.servers import wait_until

ROOT = Path(__file__).resolve().parents[3]


def start(directory: Path, command: str) -> Entrypoint:
    return Entrypoint(command, dict(os.environ), LogWriter(directory))


def printed(directory: Path) -> str:
    return read_log(directory, 0).data.decode()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("command", "code"), [("true", 0), ("exit 7", 7), ("kill -9 $$", -9), ("no-such-command", 127)]
)
def test_its_exit_code_is_the_shells(tmp_path: Path, command: str, code: int) -> None:
    assert start(tmp_path, command).run(nothing) == code


def test_both_outputs_are_in_the_log_in_order(tmp_path: Path) -> None:
    grown: list[int] = []
    code = start(tmp_path, "for i in 1 2 3; do echo out $i; echo err $i >&2; done").run(lambda: grown.append(1))
    assert code == 0
    assert printed(tmp_path) == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
    assert grown


def test_much_output_is_all_there(tmp_path: Path) -> None:
    start(tmp_path, f'{sys.executable} -c \'print("x" * 99 + "\\n" * 1, end="") or None\' && seq 100000').run(nothing)
    assert printed(tmp_path).endswith("99999\n100000\n")


def test_what_it_leaves_in_the_background_does_not_keep_it(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert start(tmp_path, "sleep 30 & echo $!").run(nothing) == 0
    assert time.monotonic() - begun < 10
    os.kill(int(printed(tmp_path)), signal.SIGKILL)


def stopped(directory: Path, command: str, stop: Callable[[Entrypoint], None]) -> tuple[int, float]:
    """Run a command that prints pids in its first line, stop it then; return code and seconds."""
    entrypoint = start(directory, command)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(entrypoint.run(nothing)))
    thread.start()
    wait_until(lambda: "\n" in printed(directory), "it has begun")
    begun = time.monotonic()
    stop(entrypoint)
    thread.join(20)
    assert codes, "it did not end"
    assert entrypoint.asked_to_stop
    return codes[0], time.monotonic() - begun


def test_stopping_ends_the_whole_group_with_a_signal_it_can_handle(tmp_path: Path) -> None:
    command = "trap 'echo bye; exit 5' TERM; sleep 60 & echo $!; wait"
    code, _ = stopped(tmp_path, command, lambda entrypoint: entrypoint.stop())
    assert code == 5
    pid, said = printed(tmp_path).split()
    assert said == "bye"
    assert not lives(int(pid))


def test_what_does_not_heed_the_signal_is_killed_in_time(tmp_path: Path) -> None:
    program = "import signal, os, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=1); time.sleep(60)"
    command = f"{sys.executable} -c '{program}'"
    code, seconds = stopped(tmp_path, command, lambda entrypoint: entrypoint.stop(seconds=0.5))
    assert code in (-9, -15, 137, 143)
    assert 0.4 < seconds < 10
    assert not lives(int(printed(tmp_path)))


def test_a_child_in_a_session_of_its_own_ends_too(tmp_path: Path) -> None:
    code, _ = stopped(tmp_path, "setsid sleep 60 & echo $!; wait", lambda entrypoint: entrypoint.stop(seconds=1.0))
    assert code != 0
    wait_until(lambda: not lives(int(printed(tmp_path))), "it is gone")


def test_it_ends_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from rabbitry_workers.jobs.entrypoint import Entrypoint\n"
        "from rabbitry_workers.jobs.log_files import LogWriter\n"
        "e = Entrypoint('sleep 60 & echo $$ $!; wait', dict(os.environ), LogWriter(Path(sys.argv[1])))\n"
        "e.run(lambda: None)\n"
    )
    path = [str(ROOT / each) for each in ("broker", "api", "workers")]
    supervisor = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *path])
    wait_until(lambda: "\n" in printed(tmp_path), "it has begun")
    pids = [int(each) for each in printed(tmp_path).split()]
    assert all(map(lives, pids))
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not any(map(lives, pids)), "its group is gone")


def test_it_ends_with_a_supervisor_that_is_killed_while_it_starts_it(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from rabbitry_workers.jobs.entrypoint import Entrypoint\n"
        "from rabbitry_workers.jobs.log_files import LogWriter\n"
        "class Popen(subprocess.Popen):\n"
        "    def __init__(self, *args, **options):\n"
        "        super().__init__(*args, **options)\n"
        "        if options.get('shell'):\n"
        "            Path(sys.argv[1], 'pid').write_text(str(self.pid))\n"
        "            os.kill(os.getpid(), 9)\n"
        "subprocess.Popen = Popen\n"
        "Entrypoint('sleep 60', dict(os.environ), LogWriter(Path(sys.argv[1])))\n"
    )
    path = [str(ROOT / each) for each in ("broker", "api", "workers")]
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path), *path], check=False).returncode == -9
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not lives(pid), "it is gone")


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    writer = LogWriter(tmp_path)
    for _ in range(5):
        Entrypoint("true", dict(os.environ), writer).run(nothing)
    writer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_started_leaves_no_guardian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def one_only(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        if started:
            raise BlockingIOError(11, "no more processes")
        started.append(popen(*args, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", one_only)
    fds = len(os.listdir("/proc/self/fd"))
    log = LogWriter(tmp_path)
    with pytest.raises(BlockingIOError):
        Entrypoint("sleep 1000", dict(os.environ), log)
    log.close()
    assert started[0].returncode == 0  # it was the guardian, which is not needed
    assert len(os.listdir("/proc/self/fd")) == fds
