"""What a cluster keeps of objects: keys in Redis and files in shared memory, counted by kind."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rabbitry import current

KINDS = frozenset(("o", "x", "h", "hg", "b", "p", "r", "g", "w", "d", "n", "v"))
DIRECTORY = "/dev/shm"
LOCKS = frozenset(("lock", "keeper"))  # files that hold no object, and stay as long as the session


def objects_kept() -> Counter[str]:
    """Return how many keys of each kind, and files in shared memory, the session's cluster has for objects."""
    client = current.client()
    found: Counter[str] = Counter()
    prefix, cursor = client.keys.prefix, b"0"
    while True:
        cursor, names = client.store.call(b"SCAN", cursor, b"MATCH", prefix + b"*:{*", b"COUNT", 2000)
        for name in names:
            kind = name[len(prefix) :].partition(b":{")[0].decode("latin1")
            if kind in KINDS:
                found[kind] += 1
        if cursor == b"0":
            break
    if client.endpoint.spread:
        found["x"] = sum(len(part) for part in client.store.large.scan_chunks())
    found["file"] = len(files_of_objects())
    return +found


def files_of_objects() -> list[str]:
    """Return the names of the session's files in shared memory that hold objects."""
    start = f"rabbitry-{current.client().store.large.places.session}-"
    names = [(name, name.removeprefix(start)) for name in os.listdir(DIRECTORY)]
    kept = ("free.", "pool.")  # to be written again
    return [name for name, rest in names if rest != name and rest not in LOCKS and not rest.startswith(kept)]


def wait_until(condition: Callable[[], Any], timeout: float = 20.0, text: Callable[[], object] = lambda: "") -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it did not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {text()}"
        time.sleep(0.05)


def assert_kept(timeout: float = 30.0, **expected: int) -> None:
    """Wait until the cluster keeps exactly these keys and files for objects: none but those named."""
    gc.collect()
    wait_until(lambda: objects_kept() == Counter(expected), timeout, objects_kept)
