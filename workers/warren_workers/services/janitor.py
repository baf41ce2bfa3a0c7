"""The janitor: clears up after clients and nodes that died without a goodbye.

Authoritative are the leases: `c:{client}` and `n:<node>` expire if nobody renews them. Every agent runs a janitor; a
lock with an expiry lets one of them work at a time. All it does may be done twice. It works in small steps, so that the
agent it lives in can serve tasks meanwhile.

| of a dead client | becomes |
|---|---|
| objects that nobody else holds | deleted, and what they held themselves is released |
| objects that somebody holds | left to their last holder |
| objects that somebody waits for and that never came | OwnerDiedError, kept for an hour |
| foreign objects it held | released |
| its inbox, specs that wait for dependencies, marks and counts | deleted |
| its job, if it was a driver | ended |

A dead node's custody goes back to its queues (see `warren_workers.node.custody`); its record goes after a while.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from warren.exceptions import OwnerDiedError, store_error
from warren_broker import records
from warren_broker.errors import WarrenBrokerError
from warren_broker.ids import CLIENT_BYTES
from warren_broker.messages import decode
from warren_broker.signing import ForgedMessage

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

log = logging.getLogger("warren.node")

INTERVAL_SECONDS: Final = 5.0
DEAD_NODES_KEPT_SECONDS: Final = 600.0
OWNER_DIED_KEPT_SECONDS: Final = 3600
SCAN_COUNT: Final = 1000
KEYS_AT_A_TIME: Final = 500
STEP_PAUSE_SECONDS: Final = 0.002
OBJECT_SUFFIX_BYTES: Final = 28 - CLIENT_BYTES  # of an object id behind its owner's
JOB: Final = b"j"

_CLIENT: Final = re.compile(rb"[0-9a-f]{%d}" % (2 * CLIENT_BYTES))
_Found = tuple[bytes, bytes, bytes]  # key, client, what follows the client's tag


class Janitor:
    """Service on the agent's loop: `start`, `run_once`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._store = agent.store
        self._keys = agent.keys

    def start(self) -> None:
        """Look after the cluster from now on."""
        self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        try:
            steps = self._steps() if self._locked() else iter(())
        except WarrenBrokerError as error:
            log.warning("the janitor cannot begin its round: %s", error)
            steps = iter(())
        self._step(steps)

    def _step(self, steps: Iterator[None]) -> None:
        try:
            next(steps)
        except StopIteration:
            self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)
        except WarrenBrokerError as error:
            log.warning("the janitor could not finish its round: %s", error)
            self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)
        else:
            self._agent.loop.call_later(STEP_PAUSE_SECONDS, lambda: self._step(steps))

    def _locked(self) -> bool:
        lock = (b"SET", self._keys.janitor, self._agent.node_id, b"NX", b"PX", int(INTERVAL_SECONDS * 900))
        return self._store.call(*lock) is not None

    def run_once(self) -> None:
        """Clear up after whoever is dead now; returns when it is done."""
        for _ in self._steps():
            pass

    def _steps(self) -> Iterator[None]:
        # After an outage of Redis, leases have ended that nobody could renew: those who live get the time to do so.
        if self._store.trusts_leases(self._agent.config.client_lease):
            yield from self._clear_clients()
        if self._store.trusts_leases(self._agent.config.lease):
            self._clear_nodes()

    # -- clients -----------------------------------------------------------------------------------------------------

    def _clear_clients(self) -> Iterator[None]:
        store, keys = self._store, self._keys
        expired = store.call(b"ZRANGEBYSCORE", keys.clients, b"-inf", time.time())
        living = store.pipeline([(b"EXISTS", keys.client(client)) for client in expired])
        dead = {client for client, alive in zip(expired, living, strict=True) if not alive}
        if not dead:
            return
        for client in dead:
            borrowed = store.call(b"SMEMBERS", keys.borrowed(client))
            if borrowed:
                store.release(b"c" + client, borrowed)
        found: dict[bytes, list[_Found]] = {}
        for part in self._scan():
            for kind, key, client, suffix in part:
                if client in dead or kind == JOB:
                    found.setdefault(kind, []).append((key, client, suffix))
            yield
        # Specs before objects: what waits for the dead themselves must not be started by errors committed below.
        order: list[tuple[bytes, Callable[[list[_Found]], None]]] = [
            (b"d", self._delete),
            (b"o", self._drop),
            (b"w", self._tell_waiting),
            (b"x", self._drop_chunks),
            (JOB, partial(self._end_jobs, dead)),
            *((kind, self._delete) for kind in (b"i", b"g", b"b", b"s", b"a")),
        ]
        for kind, clear in order:
            keys_of_kind = found.get(kind, [])
            for at in range(0, len(keys_of_kind), KEYS_AT_A_TIME):
                clear(keys_of_kind[at : at + KEYS_AT_A_TIME])
                yield
        store.call(b"ZREM", keys.clients, *dead)
        log.info("cleared up after %d clients that are gone", len(dead))

    def _scan(self) -> Iterator[list[tuple[bytes, bytes, bytes, bytes]]]:
        """Yield (kind, key, client, suffix) of all keys such as `kind:{client}:suffix`, and of jobs."""
        cursor: Any = b"0"
        start = len(self._keys.prefix)
        while True:
            cursor, keys = self._store.call(b"SCAN", cursor, b"MATCH", self._keys.prefix + b"*", b"COUNT", SCAN_COUNT)
            part = []
            for key in keys:
                kind, _, rest = key[start:].partition(b":")
                if kind == JOB:
                    part.append((kind, key, b"", rest))
                elif rest[:1] == b"{":
                    tag, _, suffix = rest[1:].partition(b"}")
                    if _CLIENT.fullmatch(tag):
                        part.append((kind, key, bytes.fromhex(tag.decode()), suffix[1:]))
            yield part
            if cursor == b"0":
                return

    def _delete(self, found: list[_Found]) -> None:
        self._store.call(b"UNLINK", *[key for key, _, _ in found])

    def _drop(self, found: list[_Found]) -> None:
        """Let go of objects as their owner would have."""
        store = self._store
        object_ids = [client + suffix for _, client, suffix in found]
        stored = store.fetch(object_ids)
        kept = store.drop(object_ids)
        for object_id, record in zip(object_ids, stored, strict=True):
            if object_id in kept or record is None:
                continue
            store.large.forget(object_id, record)
            inner = records.contained(record)
            if inner:
                store.release(b"o" + object_id, inner)

    def _drop_chunks(self, found: list[_Found]) -> None:
        """Delete parts of large values whose record is not there: their writer died before the end."""
        object_ids = [client + suffix[:OBJECT_SUFFIX_BYTES] for _, client, suffix in found]
        there = self._store.pipeline([(b"EXISTS", self._keys.object(object_id)) for object_id in object_ids])
        self._delete_all([key for (key, _, _), exists in zip(found, there, strict=True) if not exists])

    def _tell_waiting(self, found: list[_Found]) -> None:
        """Objects of the dead that somebody waits for will never come: an error takes their place."""
        object_ids = [client + suffix for _, client, suffix in found]
        for object_id, stored in zip(object_ids, self._store.fetch(object_ids), strict=True):
            if stored is None:
                error = records.ERROR + store_error(OwnerDiedError(object_id.hex()))
                self._agent.commit_ownerless([object_id, error])
                self._store.call(b"EXPIRE", self._keys.object(object_id), OWNER_DIED_KEPT_SECONDS)
        self._delete(found)

    def _end_jobs(self, dead: set[bytes], found: list[_Found]) -> None:
        for key, _, suffix in found:
            job = bytes.fromhex(suffix.decode())
            stored = self._store.call(b"GET", key)
            try:
                record = decode(self._agent.signer.open(b"job" + job, stored)) if stored else {}
            except ForgedMessage:
                continue
            if record.get("client") in dead:
                self._store.end_job(job)

    def _delete_all(self, keys: list[bytes]) -> None:
        if keys:
            self._store.call(b"UNLINK", *keys)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _clear_nodes(self) -> None:
        agent = self._agent
        store, keys = self._store, self._keys
        died = keys.nodes + b":died"
        for node in store.call(b"HKEYS", keys.nodes):
            if node == agent.node_id:
                continue
            if store.call(b"EXISTS", keys.node(node)):
                store.call(b"HDEL", died, node)  # it was silent for a while, and is back
                continue
            count = agent.custody.adopt(node)
            if count:
                log.warning("node %s is dead; %d messages in its custody go back", node.hex()[:8], count)
            if not store.call(b"HSETNX", died, node, str(time.time())):
                since = float(store.call(b"HGET", died, node) or 0)
                if time.time() - since > DEAD_NODES_KEPT_SECONDS:
                    store.pipeline([(b"HDEL", keys.nodes, node), (b"HDEL", died, node)])
