"""How an object lies in its file: what stands before its buffers, and where each of them is.

    header (64) | (offset, length) of each buffer | meta | buffer | buffer ...        every buffer at a multiple of 64

HOT PATH (`benchmarks/`: `put_64mib`, `task_8mib_result`).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from typing import Final

from rabbitry_broker.shared_memory.copying import copy_into

ALIGNMENT: Final = 64

_MAGIC: Final = b"WSM1"
# magic, id's length, id, buffers, bytes of meta, bytes of all
_HEADER: Final = struct.Struct("<4sI36sIQQ")
_LONGEST_ID: Final = 36
_RANGE: Final = struct.Struct("<QQ")
# The system's limit of buffers in one call is 1024 everywhere that matters.
_BUFFERS_A_WRITE: Final = 1000

Buffer = bytes | bytearray | memoryview


def flat(buffer: Buffer) -> memoryview:
    """Return a view of the buffer's bytes."""
    view = memoryview(buffer)
    # A view with a zero in its shape cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def lay_out(object_id: bytes, sizes: Sequence[int], meta: bytes) -> tuple[bytes, list[int], int]:
    """Return what stands before the buffers, the offset of each, and the size of all."""
    if not 1 <= len(object_id) <= _LONGEST_ID:
        raise ValueError(f"object id of {len(object_id)} bytes; 1 to {_LONGEST_ID} are possible")
    before = _HEADER.size + _RANGE.size * len(sizes) + len(meta)
    start = -(-before // ALIGNMENT) * ALIGNMENT if sizes else before
    places, length = in_body(sizes)
    places = [start + place for place in places]
    at = start + length
    header = _HEADER.pack(_MAGIC, len(object_id), object_id, len(sizes), len(meta), at)
    table = b"".join([_RANGE.pack(place, size) for place, size in zip(places, sizes, strict=True)])
    return header + table + meta, places, at


def in_body(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where buffers of these sizes lie in what `body` returns, and how large that is."""
    at, places = 0, []
    for size in sizes:
        at = -(-at // ALIGNMENT) * ALIGNMENT
        places.append(at)
        at += size
    return places, at


def pieces(head: bytes, places: list[int], views: list[memoryview]) -> list[Buffer]:
    """Return all that a file has, in its order, with what lies between."""
    pieces: list[Buffer] = [head]
    at = len(head)
    for place, view in zip(places, views, strict=True):
        if place > at:
            pieces.append(bytes(place - at))
        if view.nbytes:
            pieces.append(view)
        at = place + view.nbytes
    return pieces


def write(file: int, pieces: list[Buffer]) -> None:
    """Write all pieces; one call may take less than it was given (2 GiB at most)."""
    index = 0
    while index < len(pieces):
        written = os.writev(file, pieces[index : index + _BUFFERS_A_WRITE])
        while index < len(pieces) and written >= len(pieces[index]):
            written -= len(pieces[index])
            index += 1
        if written:
            pieces[index] = memoryview(pieces[index])[written:]


def copy(target: mmap.mmap, head: bytes, places: list[int], views: list[memoryview]) -> None:
    """Write an object into a mapping of its file; what lies between is not touched."""
    target[: len(head)] = head
    for place, view in zip(places, views, strict=True):
        copy_into(target, place, view)


def parse(whole: memoryview, object_id: bytes) -> tuple[bytes, list[tuple[int, int]], int]:
    """Return an object's meta, where its buffers lie, and the size of all."""
    if whole.nbytes >= _HEADER.size:
        magic, id_length, padded_id, count, meta_length, size = _HEADER.unpack_from(whole)
        if magic == _MAGIC and padded_id[:id_length] == object_id and size <= whole.nbytes:
            at = _HEADER.size + _RANGE.size * count
            ranges = list(_RANGE.iter_unpack(whole[_HEADER.size : at]))
            return bytes(whole[at : at + meta_length]), ranges, size
    # Recycled since we opened it, and given to another object.
    raise FileNotFoundError(f"object {object_id.hex()} in shared memory was just deleted")
