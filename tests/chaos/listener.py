"""A driver of its own that prints what its task prints: `python listener.py <address> <file of effects> <bytes>`.

See `test_poison.py`. The task's result is noted among the effects, since nobody may read what this process prints.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import rabbitry
from tests.chaos.ledger import note
from tests.chaos.poison import shout

READ_BYTES = 1 << 20


class Listener:
    """Such a driver, as the test sees it; use it with `with`.

    Args:
        address: of the cluster.
        path: file of effects.
        size: how much the task prints.
        reads: whether anybody reads it.

    Attributes:
        pid: of the driver.
        read: how much came out of it.
    """

    def __init__(self, address: str, path: str, size: int, *, reads: bool) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, __file__, address, path, str(size)]
        self._path = Path(path)
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self.read = 0
        self._reader = threading.Thread(target=self._read, name="listener", daemon=True)
        if reads:
            self._reader.start()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._reader.ident is not None:
            self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), READ_BYTES):
            self.read += len(data)

    def finished(self) -> bool:
        """True when the task has ended, and the driver has its result.

        Raises:
            AssertionError: the driver has ended without.
        """
        assert self._process.poll() is None, "the driver has ended"
        return "heard " in self._path.read_text()


def main(address: str, path: str, size: int) -> None:
    """Run the task, say so, and wait to be killed."""
    rabbitry.init(address=address)
    assert rabbitry.get(shout.remote(path, "shout", size), timeout=300) == size
    note(path, "heard")
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
