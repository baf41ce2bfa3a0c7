"""Large copies are whole, with and without a second thread."""

from __future__ import annotations

import mmap
import sys
import threading
from typing import Any

import numpy
import pytest

from rabbitry_broker.shared_memory import copying
from rabbitry_broker.shared_memory.copying import SHARED_BYTES, copy_into


@pytest.fixture(params=["two threads", "one processor", "no numpy", "no thread to be had"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(copying, "_has_two_processors", lambda: request.param != "one processor")
    if request.param == "no numpy":
        monkeypatch.delitem(sys.modules, "numpy")
    if request.param == "no thread to be had":

        def no_thread(_: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", no_thread)
    return str(request.param)


@pytest.mark.parametrize("size", [0, 1, SHARED_BYTES - 1, SHARED_BYTES, SHARED_BYTES + 4097])
def test_all_bytes_are_copied_to_their_place_and_no_others(way: str, size: int):
    source = numpy.arange(size, dtype=numpy.uint32).astype(numpy.uint8)
    source.flags.writeable = False
    target = mmap.mmap(-1, size + 3 * mmap.PAGESIZE)
    copy_into(target, 100, memoryview(source))
    assert target[:100] == bytes(100) and not any(target[100 + size :])
    assert target[100 : 100 + size] == source.tobytes()
    target.close()  # nothing views it any more


def test_the_second_half_is_another_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(copying, "_has_two_processors", lambda: True)
    threads = []
    start = copying._start
    monkeypatch.setattr(copying, "_start", lambda *work: threads.append(start(*work)) or threads[-1])
    target = mmap.mmap(-1, SHARED_BYTES)
    copy_into(target, 0, memoryview(bytes(SHARED_BYTES)))
    assert len(threads) == 1 and not threads[0].is_alive()


def test_an_interrupt_leaves_no_thread_that_writes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(copying, "_has_two_processors", lambda: True)
    copyto, main = numpy.copyto, threading.current_thread()

    def interrupted(into: Any, source: Any) -> None:
        if threading.current_thread() is main:
            raise KeyboardInterrupt
        copyto(into, source)

    monkeypatch.setattr(numpy, "copyto", interrupted)
    target = mmap.mmap(-1, SHARED_BYTES)
    with pytest.raises(KeyboardInterrupt):
        copy_into(target, 0, memoryview(bytes(SHARED_BYTES)))
    assert not [each for each in threading.enumerate() if each.name == "rabbitry-copy"]
