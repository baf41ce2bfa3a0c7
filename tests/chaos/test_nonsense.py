"""Nonsense in the keys of Redis that nobody signs: members of sets and hashes, and keys of another type than theirs.

Whoever writes there may lose work. But nothing ends or hangs for it, what is wrong goes and is counted, and the rest
goes on.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

import rabbitry
from rabbitry import current
from rabbitry_broker import records
from rabbitry_broker.errors import StoreError
from rabbitry_broker.ids import FIRST_INDEX, new_client_id
from rabbitry_workers.status import collect, describe
from tests.chaos.stage import Stage
from tests.chaos.workload import Echo, plain
from tests.servers import wait_until

LEAST = len(("queues", "nodes", "slots", "names", "cancelled"))  # others may have been put right by being written


@rabbitry.remote
def same(value: object) -> object:
    """Return the argument."""
    return value


def work(path: str, echo: Echo) -> None:
    """Plain, chained, at most once, with refs inside, and a call to an actor."""
    assert rabbitry.get(plain.remote(path, secrets.token_hex(4), 1), timeout=20) == 4
    assert rabbitry.get(same.remote(same.remote(1)), timeout=20) == 1
    assert rabbitry.get(same.options(max_retries=0).remote(2), timeout=20) == 2
    assert rabbitry.get(rabbitry.get(same.remote([rabbitry.put(3)]), timeout=20)[0], timeout=20) == 3
    assert rabbitry.get(echo.say.remote(secrets.token_hex(4), 4), timeout=20) == 4


def put_aside() -> int:
    client = current.client()
    return int(client.store.call(b"GET", client.keys.put_aside + b":count") or 0)


@pytest.mark.in_every_run
def test_keys_of_another_type_go_and_work_goes_on(stage: Stage, tmp_path: Path):
    client = current.client()
    store, keys = client.store, client.keys
    path = str(tmp_path / "effects")
    echo = Echo.remote(path)
    work(path, echo)
    node = bytes.fromhex(stage.nodes()[0].node_id)
    shared = [
        *(keys.queues, keys.prioritized, keys.cancelled, keys.names, keys.put_aside),
        *(keys.nodes, keys.nodes + b":slots", keys.nodes + b":died", keys.ghosts, keys.head, keys.requested),
        *(keys.nodes + each for each in (b":leases", b":changes", b":rooms")),
    ]
    own = [keys.inbox(client.id), keys.waited(client.id), keys.starts(client.id)]
    for key in (*shared, *own):
        store.call(b"SET", key, b"nonsense")
    for key in (keys.node(node), keys.job(client.job), keys.put_aside + b":count"):
        store.call(b"DEL", key)
        store.call(b"RPUSH", key, b"nonsense")
    wait_until(lambda: _counts(LEAST), "keys of a wrong type are counted", timeout=20)
    work(path, echo)
    stage.cluster.add_node(num_cpus=1)
    wait_until(lambda: len(rabbitry.nodes()) == 3, "all nodes are on record again", timeout=20)
    work(path, echo)
    assert len(stage.nodes()) == 3
    assert collect(client.endpoint)["put_aside"]["count"] >= LEAST
    assert "Traceback" not in stage.logs()


def _counts(least: int) -> bool:
    try:
        return put_aside() >= least
    except (StoreError, ValueError):
        return False


@pytest.mark.in_every_run
def test_nonsense_in_sets_and_hashes_stops_no_service(stage: Stage, tmp_path: Path):
    client = current.client()
    store, keys = client.store, client.keys
    path = str(tmp_path / "effects")
    echo = Echo.remote(path)
    work(path, echo)
    noise = b"\xff\x1b[31m" + secrets.token_bytes(8)
    for key in (keys.queues, keys.prioritized, keys.ghosts, keys.prefix + b"actors"):
        store.call(b"SADD", key, noise, b"", b"task.(", b"node." + b"ab" * 300, b"task.CPU=1.(" + b"x" * 400 + b")")
    for key in (keys.clients, keys.cancelled):
        store.call(b"ZADD", key, 1, noise, 2, b"", 3, b"short")
    for key in (keys.nodes + each for each in (b":leases", b":changes", b":rooms")):
        store.call(b"ZADD", key, 1, noise, 2, b"", 3, b"short", repr(1e17), b"for ever")
    for key in (keys.nodes, keys.nodes + b":died", keys.names):
        store.call(b"HSET", key, noise, noise, b"", b"")
    for member in (secrets.token_hex(16), "not hexadecimal"):
        store.call(b"SADD", keys.prefix + b"actors", member)
        actor = keys.prefix + b"actor:{" + member.encode() + b"}"
        store.call(
            b"HSET", actor, "state", b"\xff", "node", noise, "epoch", noise, "max_restarts", noise, "class", noise
        )
    store.call(b"SET", keys.prefix + b"j:not hexadecimal", noise)
    store.call(b"LPUSH", keys.put_aside, noise)
    for queue in (noise, b"node." + b"ab" * 300):
        store.call(b"PUBLISH", keys.queues_channel, queue)
    # Two clients are dead: what the second one left is nonsense, and the first one is cleared up after all the same.
    dead, broken = new_client_id(), new_client_id()
    for each in (dead, broken):
        store.put_records([(each + bytes(12) + FIRST_INDEX, records.NONE)])
        store.call(b"ZADD", keys.clients, 1, each)
    for key in (keys.borrowed(broken), keys.graves(broken), keys.waited(broken), keys.inbox(broken)):
        store.call(b"SET", key, noise)

    def left(who: bytes) -> list[bytes]:
        return list(store.call(b"KEYS", b"*" + who.hex().encode() + b"*"))

    wait_until(lambda: not left(dead) and not left(broken), "the janitor clears up after the dead", timeout=30)
    work(path, echo)
    assert len(rabbitry.util.list_named_actors(all_namespaces=True)) > 0
    shown = describe(collect(client.endpoint))
    assert "\x1b" not in shown
    assert len(stage.nodes()) == 2
    assert "Traceback" not in stage.logs()
    forged = [keys.prefix + b"actors", keys.cancelled, keys.names, keys.prioritized, keys.prefix + b"j:not hexadecimal"]
    store.call(b"UNLINK", *forged, *store.call(b"KEYS", keys.prefix + b"actor:{*"))
