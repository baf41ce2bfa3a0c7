"""The entrypoint of a job as a process: a group of its own, its output into the log, its end with its supervisor's.

    supervisor --+-- sh -c ENTRYPOINT, leads a group --> whatever it starts
                 '-- guardian: waits on a pipe; kills the group if the supervisor is gone without a word

The guardian is a shell of its own session, so that nobody who ends the supervisor ends it too. It is there before the
entrypoint, which tells it its group before it begins: there is no moment at which the supervisor could end, and leave
something behind that nobody looks after.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rabbitry_workers.executor import children
from rabbitry_workers.jobs.log_files import LogWriter

STOP_SECONDS: Final = 3.0
KILL_SECONDS: Final = 1.0  # for those that were killed to be gone
POLL_SECONDS: Final = 0.05
DRAIN_SECONDS: Final = 0.5  # for what was printed just before the end
_GUARD: Final = (
    'IFS= read -r group; [ "$group" = done ] && exit 0; IFS= read -r word; [ "$word" = done ] && exit 0; '
    '[ -n "$group" ] && kill -s KILL -- "-$group" 2>/dev/null; exit 0'
)
_DONE: Final = b"done\n"


class Entrypoint:
    """A running entrypoint. `run` on one thread, `stop` on any.

    Args:
        command: for the shell.
        environment: all its variables.
        log: where its output goes.
    """

    def __init__(self, command: str, environment: dict[str, str], log: LogWriter) -> None:
        self._log = log
        self._stop_at: float | None = None
        self._killed = False
        self._family: list[tuple[int, str]] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        read, write = os.pipe()
        self._output = read
        try:
            self._guardian = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            for fd in (read, write, self._wake_read, self._wake_write):
                os.close(fd)
            raise
        assert self._guardian.stdin is not None
        told = self._guardian.stdin.fileno()
        try:
            self._process = subprocess.Popen(
                command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: _begin(told),  # it takes no lock
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(write)
        self.pid = self._process.pid

    @property
    def asked_to_stop(self) -> bool:
        """True once `stop` was called."""
        return self._stop_at is not None

    def run(self, on_output: Callable[[], None]) -> int:
        """Copy its output into the log until it has ended; return its exit code, negative for a signal.

        Args:
            on_output: called when the log has grown.
        """
        code: int | None = None
        over: float | None = None
        os.set_blocking(self._output, False)
        fds = [self._output, self._wake_read]
        try:
            while True:
                readable, _, _ = select.select(fds, [], [], POLL_SECONDS if code is None else 0.0)
                if self._wake_read in readable:
                    os.read(self._wake_read, 4096)
                grown = self._output in readable and self._copy(fds)
                if grown:
                    on_output()
                if code is None:
                    self._look_at_stop()
                    code = self._process.poll()
                if code is None:
                    continue
                # What it has left running may print for ever: only what was printed by now counts.
                over = over or time.monotonic() + DRAIN_SECONDS
                if self._output not in fds or not grown or time.monotonic() > over:
                    break
            if self._stop_at is not None:
                self._end_group()
            return code
        finally:
            self._close()

    def _copy(self, fds: list[int]) -> bool:
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return False
        if not data:
            fds.remove(self._output)
            return False
        with contextlib.suppress(OSError):  # a full disk ends no job; what it printed then is lost
            self._log.write(data)
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """End it with all it has started: a signal first, SIGKILL after `seconds`. May be called again."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + seconds
            self._signal(number)
            with contextlib.suppress(OSError):
                os.write(self._wake_write, b"s")

    def _look_at_stop(self) -> None:
        if self._stop_at is not None and not self._killed and time.monotonic() >= self._stop_at:
            self._killed = True
            self._signal(signal.SIGKILL)

    def _end_group(self) -> None:
        """The shell is gone: what else was in its group has the rest of the time."""
        while self._stop_at is not None and time.monotonic() < self._stop_at and self._lives():
            time.sleep(POLL_SECONDS)
        self._signal(signal.SIGKILL)
        over = time.monotonic() + KILL_SECONDS
        while self._lives() and time.monotonic() < over:
            time.sleep(POLL_SECONDS / 5)

    def _lives(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # macOS: what is left waits to be collected
        return True

    def _signal(self, number: signal.Signals) -> None:
        # Also those of its children that made groups of their own, as far as they were to be found when it was asked
        # to stop, or are now.
        self._family += [(pid, _began(pid)) for pid in children.descendants(self.pid)]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        for pid, began in self._family:
            if began and _began(pid) == began:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)

    def _close(self) -> None:
        assert self._guardian.stdin is not None
        with contextlib.suppress(OSError):
            self._guardian.stdin.write(_DONE)
            self._guardian.stdin.flush()
        with contextlib.suppress(OSError):
            self._guardian.stdin.close()
        self._guardian.wait()
        for fd in (self._output, self._wake_read, self._wake_write):
            os.close(fd)


def _began(pid: int) -> str:
    """Return when a process began: another one of that id has another time. "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _begin(guardian: int) -> None:
    """In the child: the guardian hears of its group; signals are as a shell expects them, whatever they were here."""
    os.write(guardian, b"%d\n" % os.getpid())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
