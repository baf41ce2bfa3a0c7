"""Clean up after a test session that was killed before it could do so itself.

Run as a process of its own. Its standard input, which the session holds open, brings the session's directory as its
first line and `done` as its second when the session cleaned up; end of file without it means the session is gone.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.processes import find_processes, kill_processes


def main() -> None:
    """Wait for the end of the session, then kill its processes and remove its directory unless it did so."""
    # Ctrl-C in a terminal reaches every process of its group: the session still needs this one after that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By input and not as an argument: a command line that names the directory makes a process part of the session.
    session_dir = sys.stdin.readline().strip()
    if not session_dir or sys.stdin.read().strip() == "done":
        return
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        kill_processes(session_dir)
        if not find_processes(session_dir):
            break
        time.sleep(0.05)
    shutil.rmtree(session_dir, ignore_errors=True)


if __name__ == "__main__":
    main()
