"""What a cluster may keep when its driver has gone, and when its nodes have: nothing that was somebody's.

| stays | why |
|---|---|
| the cluster's own records, and its nodes' | it is still there |
| records of drivers that left, the last thousand of them | who asks for jobs is told of them |
| functions | known by their contents: the next driver need not send them |
| results of detached tasks | they are what outlives a driver |
| that detached tasks need functions, for a week | they are on no other record |
| records of dead actors, for an hour; their queues, for a minute | others may still ask what they died of |
| marks of detached tasks, and of those whose owner was cleared away before, for a while | no late copy may run |
| empty queues of tasks, for some minutes, and when they were used | the next driver uses them, or may |
| empty queues of nodes that tasks were sent to by name | the same |
| records of removed placement groups, for an hour; their empty queues | others may still ask, or submit |
| who plans, and how many did before | the next planner has a higher number |
| which node is the head | another takes that over |
| events, in a stream with a bound | they are told of later |
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import rabbitry
from rabbitry_broker import cluster_file
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import is_detached
from rabbitry_broker.store.host import shared_session
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.redis.connection import Connection
from tests.chaos.stage import Stage
from tests.servers import wait_until

KEYS_TIMEOUT = 30.0  # seconds; the lease of a killed driver and two rounds of the janitor are less than half of it
NODES_TIMEOUT = 20.0
SHARED_MEMORY = Path("/dev/shm")
MAY_STAY = re.compile(
    rb"cluster$|f:|n:|nodes|queues(:used|:retired)?$|janitor|put-aside|burials$|planner|head$|jobs:ended|dashboard$|events"
)
WEEK = 604_800  # seconds
TRANSIENT = (b"actor:{", b"a:{", b"s:{", b"pg:{", b"groups:removed")


def assert_nothing_left(stage: Stage) -> None:
    """Have the driver leave, then the nodes, and see what stays."""
    endpoint = cluster_file.read(stage.cluster.address).endpoint
    # A node whose connection for announcements broke just now would not hear that the driver leaves.
    wait_until(lambda: listeners(endpoint) >= len(stage.nodes()), "all nodes listen")
    rabbitry.shutdown()
    left: list[bytes] = []

    def cleared() -> bool:
        left[:] = keys_left(endpoint)
        return not left

    try:
        wait_until(cleared, "the keys of the driver are gone", KEYS_TIMEOUT)
    except AssertionError as error:
        raise AssertionError(f"{error}; left: {left[:20]}") from None
    # What waits there was done before, or its driver is gone: the nodes need a moment to find that out.
    wait_until(lambda: not messages_left(stage, endpoint.prefix), "the queues of tasks are empty", KEYS_TIMEOUT)
    processes = [*stage.templates(), *stage.workers()]
    nodes = stage.nodes()
    for node in nodes:
        with suppress(ProcessLookupError):
            os.kill(node.pid, signal.SIGTERM)
    wait_until(lambda: not any(node.alive() for node in nodes), "the nodes leave", NODES_TIMEOUT)
    wait_until(lambda: not any(map(lives, processes)), "processes of the nodes are gone", NODES_TIMEOUT)
    left_queues = queues_left(stage, endpoint.prefix)
    assert not left_queues, f"queues are left: {left_queues}"
    files = files_left(endpoint)
    assert not files, f"shared memory is left: {files}"


def listeners(endpoint: Endpoint) -> int:
    """Return how many nodes listen to what is announced to all."""
    connection = Connection.open(endpoint, name="leftovers")
    try:
        return int(connection.call(b"PUBSUB", b"NUMSUB", Keys.of(endpoint).control_channel)[1])
    finally:
        connection.close()


def keys_left(endpoint: Endpoint) -> list[bytes]:
    """Return the keys, without the cluster's prefix, that should not be there once the driver is gone."""
    prefix = Keys.of(endpoint).prefix
    connection = Connection.open(endpoint, name="leftovers")
    try:
        cursor: Any = b""
        found: list[bytes] = []
        while cursor != b"0":
            cursor, part = connection.call(b"SCAN", cursor or b"0", b"MATCH", prefix + b"*", b"COUNT", 1000)
            found += part
        names = [key.removeprefix(prefix) for key in found]
        left = [name for name in names if not (MAY_STAY.match(name) or is_of_detached_work(name))]
        return [name for name in left if not goes_by_itself(connection, prefix + name, name)]
    finally:
        connection.close()


def goes_by_itself(connection: Connection, key: bytes, name: bytes) -> bool:
    """True for a key that Redis will remove; who needs a function may be no client any more."""
    if name.startswith(b"u:"):
        return connection.call(b"SMEMBERS", key) == [b"d"] and 0 <= int(connection.call(b"TTL", key)) <= WEEK
    return name.startswith(TRANSIENT) and int(connection.call(b"TTL", key)) >= 0


def is_of_detached_work(name: bytes) -> bool:
    """True for an object without an owner that lives."""
    owner = re.match(rb"o:\{([0-9a-f]+)\}", name)
    return owner is not None and is_detached(bytes.fromhex(owner[1].decode()))


def queues_left(stage: Stage, prefix: str) -> list[str]:
    """Return the queues, with how many messages they hold, that should not be there once the nodes are gone."""
    return [
        line
        for line in queues(stage, prefix)
        if not (line.startswith(("task.", "job.", "node.", "bundle.")) and line.endswith("\t0"))
    ]


def messages_left(stage: Stage, prefix: str) -> list[str]:
    """Return the queues of tasks that hold messages, with how many."""
    return [
        line
        for line in queues(stage, prefix)
        if line.startswith(("task.", "job.", "bundle.")) and not line.endswith("\t0")
    ]


def queues(stage: Stage, prefix: str) -> list[str]:
    """Return the cluster's queues, with how many messages they hold."""
    vhost = stage.rabbitmq.url.rpartition("/")[2]
    listing = stage.rabbitmq.ctl("list_queues", "--quiet", "--no-table-headers", "-p", vhost, "name", "messages")
    return [line.removeprefix(prefix) for line in listing.splitlines() if line.startswith(prefix)]


def files_left(endpoint: Endpoint) -> list[str]:
    """Return the names of the cluster's objects in shared memory; the lock may be with a child that a task forked."""
    names = [path.name for path in SHARED_MEMORY.glob(f"rabbitry-{shared_session(endpoint)}-*")]
    return [name for name in names if not name.endswith(("-lock", "-keeper"))]


def lives(pid: int) -> bool:
    """True if there is such a process, and it is not just waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
