"""An executor's `sys.stdout` and `sys.stderr`: by lines, but what has no newline yet is not kept back for long.

Nothing that was printed is lost, however the process ends: what has no newline yet stands on the page that the process
shares with its node (`Tail`) until a thread, which sleeps unless there is such text, flushes it after `FLUSH_SECONDS`.
The end of a task flushes at once.

What one task prints is told from what another one does by marks in the stream (`rabbitry_broker.output_marks`), one
where the task changes: they are written by who prints, so that a task which prints nothing costs nothing.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn, Protocol

from rabbitry_broker.output_marks import for_pipe

FLUSH_SECONDS: Final = 0.1

Whose = Callable[[], tuple[bytes | None, str]]
"""Returns which task runs in the calling thread, and its name."""


class Tail(Protocol):
    """Where text without a newline survives the process: `Progress`."""

    def keep_tail(self, stream: int, text: bytes, *, at: int) -> int:
        """Put text at `at`; return where it ends, -1 if there is no room."""

    def clear_tail(self, stream: int) -> None:
        """It was written."""


class Flusher:
    """Flushes streams after a while. Any thread may call anything."""

    def __init__(self) -> None:
        self.pending = False  # HOT PATH: read before each commit; something was printed
        self.whose: Whose = lambda: (None, "")
        self.tail: Tail | None = None
        self.concurrent = False  # several tasks run in this process at a time
        self.pid = os.getpid()  # of the process whose streams these are; what it forks is none of ours
        self._partial = False  # some of it has no newline
        self._streams: list[LineStream] = []
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        if self._thread is None and not (self.pending or self._partial) and self.tail is None:
            return  # what is written to here is memory that the two share no longer
        self.pending = self._partial = False
        self.tail = None  # the page is its parent's
        self._wanted = threading.Event()
        self._thread = None

    def add(self, stream: LineStream) -> None:
        """Look after a stream, as long as this process lives."""
        self._streams.append(stream)

    def soon(self) -> None:
        """Flush all streams after a while."""
        self._partial = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rabbitry-output", daemon=True)
            self._thread.start()
        self._wanted.set()

    @property
    def partial(self) -> bool:
        """True if text without a newline waits to be flushed."""
        return self._partial

    def flush(self) -> None:
        """Flush all streams now."""
        self._partial = False
        for stream in self._streams:
            with suppress(OSError, ValueError):  # user code closed it
                stream.flush()

    def end(self) -> None:
        """A task has ended: what comes next is of another, or of none that is known (a child process, C code)."""
        self.pending = self._partial = False
        if self.concurrent:
            self.flush()  # that of another one goes on
            return
        for stream in self._streams:
            with suppress(OSError, ValueError):
                stream.end(self.whose()[0])

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            time.sleep(FLUSH_SECONDS)
            if self._partial:
                self.flush()


class LineStream(io.TextIOWrapper):
    """A line-buffered text stream on a descriptor, which has what it keeps back flushed soon."""

    def __init__(self, fd: int, flusher: Flusher) -> None:
        binary = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
        super().__init__(binary, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self.mode = "w"  # type: ignore[misc]  # as open() does
        self._flusher = flusher
        self._number = fd - 1
        self._kept = 0  # bytes on the page
        self._marked: bytes | None = None  # the task of the last mark

    def write(self, text: str, /) -> int:
        """Write text; without a newline at its end it is flushed a little later."""
        flusher = self._flusher
        task, name = flusher.whose()
        if task != self._marked and os.getpid() == flusher.pid:
            self._marked = task
            mark = for_pipe(task, name)
            if isinstance(text, str) and text.endswith("\n"):
                flusher.pending = True
                super().write(mark + text)  # one system call, and one wake-up of the node, for both
                if self._kept:
                    self._clear()
                return len(text)
            super().write(mark)
        flusher.pending = True
        count = super().write(text)
        if "\n" in text or "\r" in text:  # all of it has been flushed
            if self._kept:
                self._clear()
            if text.endswith("\n"):
                return count
        tail = flusher.tail
        if tail is not None and self._kept >= 0 and not ("\n" in text or "\r" in text):
            self._kept = tail.keep_tail(self._number, text.encode("utf-8", "backslashreplace"), at=self._kept)
            if self._kept < 0:
                self.flush()  # too long for the page
        if not flusher.partial:
            flusher.soon()
        return count

    def flush(self) -> None:
        """Write what is kept back."""
        super().flush()
        if self._kept:
            self._clear()

    def end(self, running: bytes | None) -> None:
        """Write what is kept back, and that what follows is nobody's in particular unless this task still runs."""
        if self._marked not in (None, running) and os.getpid() == self._flusher.pid:
            self._marked = None
            super().write(for_pipe(None, ""))
        self.flush()

    def _clear(self) -> None:
        self._kept = 0
        if self._flusher.tail is not None:
            self._flusher.tail.clear_tail(self._number)


flusher: Final = Flusher()


def install() -> None:
    """Make the streams of this process such ones, on descriptors 1 and 2; one that it forks calls `begin`."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = LineStream(fd, flusher)
        flusher.add(stream)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    _flush_before_exit()


def begin() -> None:
    """This process, just forked by the one that called `install`, has descriptors 1 and 2 of its own."""
    flusher.pid = os.getpid()


def _flush_before_exit() -> None:
    """Have `os._exit` flush what has no newline: user code that ends so has printed it, as far as it can tell."""
    exit_at_once = os._exit

    def flush_and_exit(status: int) -> NoReturn:
        # Not in a process that was forked from this one: what is kept back is not its own.
        if flusher.partial and os.getpid() == flusher.pid:
            flusher.flush()
        exit_at_once(status)

    os._exit = flush_and_exit


def reset_logging() -> None:
    """Leave the root logger to user code, as a fresh interpreter does; our own warnings go to stderr by themselves."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    ours = logging.getLogger("rabbitry")
    ours.handlers = [logging.StreamHandler(sys.stderr)]
    ours.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours.setLevel(logging.WARNING)
    ours.propagate = False
