"""What executors print, on its way into the pipe to their node."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from rabbitry_broker.ids import TASK_BYTES
from rabbitry_broker.output_marks import split
from rabbitry_workers.executor.streams import Flusher, LineStream

pytestmark = pytest.mark.skipif(not hasattr(os, "O_DIRECT") or sys.platform != "linux", reason="pipes with packets")

ONE, TWO = b"1" * TASK_BYTES, b"2" * TASK_BYTES


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of which each read returns what one write has written."""
    reads, writes = os.pipe2(os.O_DIRECT)
    os.set_blocking(reads, False)
    yield reads, writes
    os.close(reads)
    os.close(writes)


def written(reads: int) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(os.read(reads, 1 << 16))
        except BlockingIOError:
            return found


def test_a_line_and_the_mark_of_its_task_are_written_together(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    running = [ONE]
    flusher = Flusher()
    flusher.whose = lambda: (running[0], "f")
    stream = LineStream(writes, flusher)
    assert stream.write("first\n") == len("first\n")
    assert stream.write("second\n") == len("second\n")
    running[0] = TWO
    stream.write("of another\n")
    first, second, third = written(reads)
    assert split(first) == (b"", ONE, "f", b"first\n") and second == b"second\n"
    assert split(third) == (b"", TWO, "f", b"of another\n")
    running[0] = ONE
    assert stream.write("no newline") == len("no newline")
    stream.flush()
    assert split(b"".join(written(reads))) == (b"", ONE, "f", b"no newline")
    running[0] = TWO
    with pytest.raises(TypeError):
        stream.write(1)  # type: ignore[arg-type]
    stream.detach()
