"""Mappings of files in shared memory are kept for the next reader, and keep neither memory nor files from others."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterator

import numpy
import pytest

from rabbitry_broker.shared_memory import SharedMemoryStore, mappings

MIB = 1 << 20
Make = Callable[[], SharedMemoryStore]


@pytest.fixture
def make() -> Iterator[Make]:
    """Return a function that makes stores of one session, as several processes would."""
    session, made = f"test{os.urandom(4).hex()}", []

    def store() -> SharedMemoryStore:
        made.append(SharedMemoryStore(session))
        return made[-1]

    yield store
    for each in made:
        each.clear()


def mapped(store: SharedMemoryStore) -> list[str]:
    """Return the lines of this process's mappings that belong to the session."""
    with open("/proc/self/maps") as file:
        return [line for line in file if f"rabbitry-{store.session_id}-" in line]


def faults() -> int:
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[7])


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_pages_that_were_read_once_are_read_again_without_faults(make: Make):
    writer, reader = make(), make()
    writer.create(b"a", [bytes(64 * MIB)])

    def read() -> int:
        before = faults()
        _, (view,) = reader.open(b"a")
        assert sum(view[:: 64 * 1024]) == 0
        return faults() - before

    assert read() > 500
    assert read() < 200


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_file_that_is_used_again_for_another_object_is_mapped_already(make: Make):
    writer, reader = make(), make()
    for number in range(4):
        name = b"%d" % number
        writer.create(name, [bytes([number]) * (2 * MIB)])
        _, (view,) = reader.open(name)
        assert view[-1] == number
        del view
        reader.mappings.settle()
        writer.delete([name])
        # The writer's own (its reused file is kept mapped, too), and the one that the reader keeps.
        assert len({line.split()[4] for line in mapped(reader)}) == 1


def test_what_was_written_meanwhile_is_read_not_what_was_there(make: Make):
    writer, reader = make(), make()
    writer.create(b"a", [b"a" * (2 * MIB)])
    assert bytes(reader.open(b"a")[1][0][:1]) == b"a"
    reader.mappings.settle()
    writer.delete([b"a"])
    writer.create(b"b", [b"b" * (2 * MIB - 100)])
    with pytest.raises(FileNotFoundError):
        reader.open(b"a")
    (view,) = reader.open(b"b")[1]
    assert view.nbytes == 2 * MIB - 100 and bytes(view[-1:]) == b"b"


def write_natively(view: memoryview, at: int, byte: int) -> None:
    """Write as code below Python does, which does not ask whether it may."""
    array = numpy.frombuffer(view, numpy.uint8)
    assert not array.flags.writeable
    ctypes.memset(array.ctypes.data + at, byte, 1)


@pytest.mark.parametrize("size", [1000, 2 * MIB])
def test_what_is_written_into_a_view_all_the_same_stays_in_its_process(make: Make, size: int):
    writer, reader, other = make(), make(), make()
    writer.create(b"a", [bytes(size)])
    (view,) = reader.open(b"a")[1]
    write_natively(view, 500, 7)
    assert view[500] == 7
    assert other.open(b"a")[1][0][500] == 0


def test_what_was_written_into_a_view_is_not_seen_in_the_object_that_has_the_file_next(make: Make):
    writer, reader = make(), make()
    writer.create(b"a", [b"a" * (2 * MIB)])
    (view,) = reader.open(b"a")[1]
    write_natively(view, MIB, 7)
    del view
    reader.mappings.settle()
    writer.delete([b"a"])
    writer.create(b"b", [b"b" * (2 * MIB)])
    (view,) = reader.open(b"b")[1]
    assert bytes(view) == b"b" * (2 * MIB)


def test_who_cannot_see_whether_a_mapping_was_written_maps_anew(make: Make, monkeypatch: pytest.MonkeyPatch):
    mapping = mmap.mmap(-1, mmap.PAGESIZE)
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    assert mappings.is_written(mapping)


def test_an_object_that_grew_into_its_file_is_mapped_anew(make: Make):
    writer, reader = make(), make()
    writer.create(b"a", [bytes(2 * MIB)])
    reader.open(b"a")
    reader.mappings.settle()
    writer.delete([b"a"])
    writer.create(b"b", [b"b" * (2 * MIB + 1000)])  # the end of the last page, which the file did not have before
    (view,) = reader.open(b"b")[1]
    assert view.nbytes == 2 * MIB + 1000 and bytes(view[-1:]) == b"b"


def test_who_deletes_an_object_is_not_kept_from_its_memory_by_a_mapping_that_nothing_views(make: Make):
    writer, other, reader = make(), make(), make()
    writer.create(b"a", [bytes(2 * MIB)])
    _, (view,) = reader.open(b"a")
    del view
    reader.mappings.settle()
    path = f"{writer.directory}/rabbitry-{writer.session_id}-{b'a'.hex()}"
    with open(path, "rb") as file:
        other.delete([b"a"])
        other.trim(0.0)  # not kept for the next writer either
        assert os.fstat(file.fileno()).st_blocks == 0
    with pytest.raises(FileNotFoundError):
        reader.open(b"a")


def test_what_is_viewed_is_not_used_again_however_often_others_settle(make: Make):
    writer, reader = make(), make()
    writer.create(b"a", [b"a" * (2 * MIB)])
    _, (view,) = reader.open(b"a")
    part = view[MIB:]
    del view
    reader.mappings.settle()
    reader.trim()
    writer.delete([b"a"])
    writer.create(b"b", [b"b" * (2 * MIB)])
    assert bytes(part[:1]) == b"a" == bytes(part[-1:])


def test_a_mapping_of_a_deleted_file_goes_with_the_next_trim(make: Make):
    writer, reader, viewer = make(), make(), make()
    writer.create(b"a", [bytes(2 * MIB)])
    reader.open(b"a")
    views = viewer.open(b"a")[1]
    reader.mappings.settle()
    writer.delete([b"a"])  # somebody views it: it has lost its name, and is not emptied
    assert any("(deleted)" in line for line in mapped(reader))
    del views
    viewer.trim()
    reader.trim()
    assert not mapped(reader)


@pytest.mark.parametrize(("variable", "value"), [("KEPT_FILES", 3), ("KEPT_BYTES", 7 * MIB)])
def test_so_many_are_kept_and_those_that_were_used_last(
    make: Make, variable: str, value: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mappings, variable, value)
    writer, reader = make(), make()
    for number in range(5):
        writer.create(b"%d" % number, [bytes(2 * MIB)])
        reader.open(b"%d" % number)
        reader.open(b"0")
    kept = {bytes.fromhex(found[1]) for line in mapped(reader) if (found := re.search(r"-([0-9a-f]+)$", line.strip()))}
    assert kept == {b"0", b"3", b"4"}


def test_a_child_views_its_own_while_the_parent_lets_go(make: Make):
    writer, reader = make(), make()
    writer.create(b"a", [b"a" * (2 * MIB)])
    _, (view,) = reader.open(b"a")
    to_child, to_parent = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(to_child[0], 1)
        os.write(to_parent[1], bytes(view[:1]) + bytes(view[-1:]))
        os._exit(0)
    del view
    reader.mappings.settle()
    writer.delete([b"a"])
    writer.create(b"b", [b"b" * (2 * MIB)])
    os.write(to_child[1], b"!")
    assert os.read(to_parent[0], 2) == b"aa"
    os.waitpid(child, 0)
    for end in (*to_child, *to_parent):
        os.close(end)


def test_one_process_at_a_time_looks_after_a_session_and_all_can_see_that(make: Make):
    first, second, third = make(), make(), make()
    assert not third.is_kept()
    assert first.keep() and first.keep()
    assert not second.keep()
    assert first.is_kept() and third.is_kept()
    first.stop_keeping()
    assert not third.is_kept()
    assert second.keep() and third.is_kept()
    second.close()
    assert not third.is_kept()
