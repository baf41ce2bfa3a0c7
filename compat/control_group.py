"""A control group of Linux around a program and all that it starts: counts processor time, and ends what is left.

The time on the clock says little on a machine that others use; the processor time of a whole tree of processes, whose
daemons nobody waits for, only the kernel can tell. Where there is no cgroup v2 that this user may write to (no root, a
container), there is none, and only the clock is read.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_TO_END = 60.0


def _root() -> Path | None:
    """Return where cgroup v2 is mounted, None if it is not."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return None
    return next((Path(line.split()[1]) for line in mounts if line.split()[2] == "cgroup2"), None)


class ControlGroup:
    """A group; without a folder it does nothing, and knows no processor time."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def command(self, command: list[str]) -> list[str]:
        """Return what runs a command inside the group."""
        if self.folder is None:
            return command
        join = f'echo $$ > {shlex.quote(str(self.folder / "cgroup.procs"))}; exec "$@"'
        return ["sh", "-c", join, "sh", *command]

    def processor_seconds(self) -> float | None:
        """Return the processor time that the group's processes took so far, None if nobody counts."""
        if self.folder is None:
            return None
        figures = dict(line.split() for line in (self.folder / "cpu.stat").read_text().splitlines())
        return int(figures["usage_usec"]) / 1e6

    def close(self) -> None:
        """End what still runs, and remove the group."""
        if self.folder is None:
            return
        (self.folder / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + SECONDS_TO_END
        while True:
            try:
                self.folder.rmdir()
                return
            except OSError:  # it is in use until the last process is gone
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


@contextmanager
def control_group(name: str) -> Iterator[ControlGroup]:
    """Yield a new group."""
    root = _root()
    folder = root / f"{name}-{os.getpid()}" if root is not None else None
    try:
        if folder is not None:
            folder.mkdir()
    except OSError:
        folder = None
    group = ControlGroup(folder)
    try:
        yield group
    finally:
        group.close()
