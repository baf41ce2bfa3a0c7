"""The bytes of every id: who made it, in which order, for which job.

| id | bytes | layout |
|---|---|---|
| client | 12 | random; the first bit is 0 |
| owner of detached work | 12 | random; the first bit is 1: it has no lease, what it owns stays |
| job | 4 | random |
| task | 24 | client, sequence number (8, big endian), job |
| object | 28 | task, index (4, little endian; results count from 1, a put has 1) |
| actor | 16 | random (12), job |
| node | 28 | random |
| placement group | 18 | random (14), job |

An id therefore names the client that owns it, and with it the hash tag of its Redis keys: no look-up is needed.
"""

from __future__ import annotations

import itertools
import os
import struct
from typing import Final

CLIENT_BYTES: Final = 12
JOB_BYTES: Final = 4
TASK_BYTES: Final = 24
OBJECT_BYTES: Final = 28
SUFFIX_BYTES: Final = OBJECT_BYTES - CLIENT_BYTES
"""Of an object's id: what follows its owner."""
ACTOR_BYTES: Final = 16
NODE_BYTES: Final = 28
GROUP_BYTES: Final = 18

FIRST_INDEX: Final = struct.pack("<I", 1)
INDEX_ARGUMENTS: Final = b"\xff\xff\xff\xff"
"""The index of the object that large arguments of a task travel as."""


def new_client_id() -> bytes:
    """Return a fresh random client id."""
    first, *rest = os.urandom(CLIENT_BYTES)
    return bytes((first & 0x7F, *rest))


def new_detached_id() -> bytes:
    """Return a fresh random id for the pseudo client that owns a job's detached work."""
    first, *rest = os.urandom(CLIENT_BYTES)
    return bytes((first | 0x80, *rest))


def is_detached(any_id: bytes) -> bool:
    """True if what has this id is owned by no living client: it is deleted by `free` or its TTL alone."""
    return any_id[0] >= 0x80


def new_group_id(job: bytes) -> bytes:
    """Return a fresh random id for a placement group of a job."""
    return os.urandom(GROUP_BYTES - JOB_BYTES) + job


def new_job_id() -> bytes:
    """Return a fresh random job id."""
    return os.urandom(JOB_BYTES)


def new_node_id() -> bytes:
    """Return a fresh random node id."""
    return os.urandom(NODE_BYTES)


def new_actor_id(job: bytes) -> bytes:
    """Return a fresh actor id of `job`."""
    return os.urandom(ACTOR_BYTES - JOB_BYTES) + job


def object_id(task: bytes, index: int) -> bytes:
    """Return the id of result number `index` (from 1) of `task`."""
    return task + struct.pack("<I", index)


def owner_of(any_id: bytes) -> bytes:
    """Return the client under whose hash tag the object or task of this id is kept."""
    return any_id[:CLIENT_BYTES]


class TaskIds:
    """A client's source of task ids. `next()` may be called from any thread (the counter is atomic)."""

    __slots__ = ("_client", "_count", "_job")

    def __init__(self, client: bytes, job: bytes) -> None:
        self._client = client
        self._job = job
        self._count = itertools.count(1)

    def become(self, client: bytes) -> None:
        """Make ids of this client from now on; before the first of them."""
        self._client = client

    def next(self) -> bytes:
        """Return an id never returned before."""
        return self._client + next(self._count).to_bytes(8, "big") + self._job
