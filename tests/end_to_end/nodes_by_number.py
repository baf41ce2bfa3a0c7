"""Has there be so many nodes: `python nodes_by_number.py DIRECTORY ADDRESS N`, as `docker compose up --scale` does.

Each process has a file in the directory; what was started here is ended by the test (`end_all`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def living(directory: Path) -> list[int]:
    """Return the processes that run, the oldest first."""
    found = []
    for file in sorted(directory.glob("*.node"), key=lambda each: each.stat().st_mtime):
        state = Path("/proc", file.stem, "stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
            found.append(int(file.stem))
    return found


def have(directory: Path, address: str, count: int) -> None:
    """Start what is missing, and end the newest of what is too much."""
    there = living(directory)
    for pid in there[count:]:
        os.kill(pid, signal.SIGTERM)
    for _ in range(count - len(there)):
        command = [sys.executable, "-m", "rabbitry_workers", "start", "--address", address, "--num-cpus", "1"]
        with open(directory / "log", "ab") as log:
            node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        (directory / f"{node.pid}.node").touch()
    with open(directory / "commands", "a") as commands:
        commands.write(f"{count}\n")


def end_all(directory: Path) -> None:
    """End all of them, and wait until they are gone."""
    for pid in living(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10.0
    while living(directory) and time.monotonic() < deadline:
        time.sleep(0.02)


if __name__ == "__main__":
    have(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
