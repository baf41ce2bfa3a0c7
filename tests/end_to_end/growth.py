"""All that a cluster and its driver keep, counted by kind: what a soak compares before and after.

| counted | by |
|---|---|
| keys in Redis that do not end by themselves, and what sets, hashes, lists and streams hold | the name, without ids |
| queues of RabbitMQ | the name, without ids |
| files of the session in shared memory, and in the run directory | what is before an id |
| what environments of the session's job have in the cache of this machine | together |
| collections of the driver's own client | class and attribute |

A dead actor's queue is kept for a minute, so that calls on it fail at once: these, and the list of them, are left out.
So are the queues of removed placement groups and of jobs that ended, which are kept for some minutes. What living
clients hold of functions goes with them: an executor that has made tasks stays for a minute when it has nothing to do.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from rabbitry import current, session
from rabbitry.core.actors.calls import LINES_KEPT
from rabbitry.core.actors.directory import DEAD_KEPT
from rabbitry_workers.environments.cache import OF_JOB, directory_from_environment

SHARED_MEMORY = "/dev/shm"

_SIZES = {b"list": b"LLEN", b"set": b"SCARD", b"hash": b"HLEN", b"zset": b"ZCARD", b"stream": b"XLEN"}
_ID = re.compile(rb"[0-9a-f]{8,}|\d{3,}")
_TAG = re.compile(rb"([a-z]+:\{[^}]*\})([:a-z]*).*", re.DOTALL)


QueueNames = Callable[[], Iterable[str]]


def _is_going(queue: bytes, removed: set[bytes], jobs: set[bytes]) -> bool:
    """True for a queue of one of these placement groups, or of a job that is none of these."""
    _, found, rest = queue.partition(b"bundle.")
    if found:
        return rest.partition(b".")[0] in removed
    _, found, rest = queue.partition(b"job.")
    return bool(found) and rest.partition(b".")[0] not in jobs


def kept(queues: QueueNames = tuple) -> Counter[str]:
    """Return how many there are of each kind.

    Args:
        queues: returns the names of RabbitMQ's queues; the embedded engine's are keys.
    """
    client = current.client()
    store, keys = client.store, client.keys
    names = _keys(b"*")
    dead = set(store.call(b"SMEMBERS", keys.burials))
    removed = set(store.call(b"ZRANGE", keys.groups + b":removed", 0, -1))
    jobs = {job.hex().encode() for job in store.call(b"ZRANGE", keys.jobs, 0, -1)}
    announced = store.call(b"SMEMBERS", keys.queues)
    ends = store.pipeline([(b"PTTL", name) for name in names])
    lasting = [name for name, end in zip(names, ends, strict=True) if end == -1]
    types = store.pipeline([(b"TYPE", name) for name in lasting])
    sized = [(name, _SIZES[kind]) for name, kind in zip(lasting, types, strict=True) if kind in _SIZES]
    sizes = store.pipeline([(command, name) for name, command in sized])
    found: Counter[str] = Counter()
    of_living = _of_living(lasting)
    for name in lasting:
        if name not in of_living and name.rpartition(b".")[2] not in dead and not _is_going(name, removed, jobs):
            found[_kind(name[len(keys.prefix) :])] += 1
    for (name, _), size in zip(sized, sizes, strict=True):
        if name in of_living:
            continue
        found[f"{_kind(name[len(keys.prefix) :])} holds"] += size
    for queue in queues():
        if queue.encode().rpartition(b".")[2] not in dead and not _is_going(queue.encode(), removed, jobs):
            found[f"queue {_kind(queue.encode().removeprefix(keys.prefix))}"] += 1
    found["burials"] = found["burials holds"] = 0
    found["queues holds"] -= sum(_is_going(name, removed, jobs) for name in announced)
    # Written every now and then; there may be no more than there are queues.
    found["queues:used"] = 0
    found["queues:used holds"] = max(0, found["queues:used holds"] - len(announced))
    # Records of drivers that left: the last thousand stay for a while.
    for kept_for_a_while in ("jobs:ended", "jobs:ended:at"):
        found[kept_for_a_while] = found[f"{kept_for_a_while} holds"] = 0
    # Marks of tasks that may run once only go with their client: 50 bytes each.
    found["s:{#} holds"] = 0
    found.update(f"file {each}" for each in _files())
    of_job = f"{OF_JOB}{client.job.hex()}-"
    with suppress(FileNotFoundError):
        entries = (directory_from_environment() / "entries").iterdir()
        found["environments"] = sum(each.is_dir() and each.name.startswith(of_job) for each in entries)
    for part in (
        client,
        client.flight,
        client.inbox,
        client.inbox._known,
        client.outbox,
        client.puts,
        client.references,
        client.actors,
        client.actors.calls,
        client.actors.directory,
        client.lifetimes,
        client.exports,
        client.groups,
        client._cancelling,
    ):
        for attribute in getattr(part, "__dict__", None) or part.__slots__:
            value = getattr(part, attribute)
            if hasattr(value, "__len__") and not isinstance(value, (str, bytes)) and value is not part:
                found[f"{type(part).__name__}.{attribute}"] = len(value)
    # Ends that were noticed before they were told: a process that is killed tells nothing. `COUNTED_KEPT` at most.
    found["Values._counted"] = 0
    # The last of the dead are remembered; from so many lines of calls on, those to dead actors are looked for.
    for table, limit in (
        ("ActorDirectory.dead", DEAD_KEPT),
        ("ActorCalls._dead", DEAD_KEPT),
        ("ActorCalls.lines", LINES_KEPT),
    ):
        found[table] = max(0, found[table] - limit)
    return +found


def _of_living(names: Iterable[bytes]) -> set[bytes]:
    """Return those of the keys that say which functions a client holds whose client lives, but for our own."""
    client = current.client()
    start = client.keys.functions_of(b"").partition(b"{")[0] + b"{"
    clients = {name: bytes.fromhex(name[len(start) : -1].decode()) for name in names if name.startswith(start)}
    others = {name: each for name, each in clients.items() if each != client.id}
    alive = client.store.pipeline([(b"EXISTS", client.keys.client(each)) for each in others.values()])
    return {name for name, lives in zip(others, alive, strict=True) if lives}


def bytes_that_end() -> int:
    """Return what the keys in Redis take that end by themselves: events, and records of what has ended."""
    store = current.client().store
    names = _keys(b"*")
    ends = store.pipeline([(b"PTTL", name) for name in names])
    ending = [name for name, end in zip(names, ends, strict=True) if end > 0]
    return sum(filter(None, store.pipeline([(b"MEMORY", b"USAGE", name) for name in ending])))


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    """Return the kinds of which there are more now: how many there were, how many there are."""
    return {kind: (before[kind], count) for kind, count in sorted(after.items()) if count > before[kind]}


def _keys(pattern: bytes) -> list[bytes]:
    client = current.client()
    found: set[bytes] = set()
    cursor: Any = b"0"
    while True:
        match = client.keys.prefix + pattern
        cursor, names = client.store.call(b"SCAN", cursor, b"MATCH", match, b"COUNT", 2000)
        found.update(names)
        if cursor == b"0":
            return sorted(found)


def _kind(name: bytes) -> str:
    tagged = _TAG.fullmatch(name)
    if tagged is not None:
        name = tagged[1] + (tagged[2] if name.startswith(b"actor") else b"")
    return _ID.sub(b"#", name).decode("latin1")


def _files() -> Iterable[str]:
    client = current.client()
    start = f"rabbitry-{client.store.large.places.session}-"
    for name in os.listdir(SHARED_MEMORY):
        # Spare ones are kept for reuse, for seconds.
        if name.startswith(start) and not name.startswith((f"{start}free.", f"{start}pool.")):
            yield _kind(name.removeprefix(start).encode())
    node = session._session.node if session._session is not None else None
    if node is not None:
        for _, _, names in os.walk(node.directory):
            yield from [f"run directory {_kind(name.encode())}" for name in names]
