"""Find the processes that descend from a test session, however they were started or detached."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARKER_VARIABLE = "RABBITRY_TEST_SESSION"
"""Environment variable that every process of a session inherits; its value is the session's directory."""


def find_processes(session_dir: str) -> dict[int, str]:
    """Return pid -> command line of the living processes that belong to a session, this process excepted.

    A process belongs to the session if it inherited its marker, or works in its directory or names it on its command
    line: Redis wipes the environment it was started with, so the marker alone would miss it.
    """
    found = dict(_scan_proc(session_dir) if sys.platform == "linux" else _scan_ps(session_dir))
    found.pop(os.getpid(), None)
    return found


def kill_processes(session_dir: str) -> None:
    """Send SIGKILL to every process that `find_processes` reports."""
    for pid in find_processes(session_dir):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _scan_proc(session_dir: str) -> Iterator[tuple[int, str]]:
    directory = os.fsencode(session_dir)
    marker = os.fsencode(MARKER_VARIABLE) + b"=" + directory
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z":
                continue
            command = (entry / "cmdline").read_bytes()
            marked = marker in (entry / "environ").read_bytes().split(b"\0")
            works_here = os.readlink(entry / "cwd").startswith(session_dir)
        except OSError:  # It ended meanwhile, or it belongs to another user and so is none of ours.
            continue
        if marked or works_here or directory in command:
            yield int(entry.name), command.replace(b"\0", b" ").decode(errors="replace").strip()


def _scan_ps(session_dir: str) -> Iterator[tuple[int, str]]:
    listing = subprocess.run(["ps", "eww", "-axo", "pid=,command="], capture_output=True, text=True, check=False)
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        if session_dir in command and "ps eww" not in command:
            yield int(pid), command[:200]
