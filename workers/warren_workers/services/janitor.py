"""The janitor: clears up after clients and nodes that died without a goodbye.

Authoritative are the leases: `c:{client}` and `n:<node>` expire if nobody renews them. Every agent runs a janitor; a
lock with an expiry lets one of them work at a time. All it does may be done twice. It works in small steps, so that the
agent it lives in can serve tasks meanwhile.

| of a dead client | becomes |
|---|---|
| objects that nobody else holds | deleted, and what they held themselves is released |
| objects that somebody holds | left to their last holder |
| objects that somebody waits for and that never came | OwnerDiedError, kept while held, or for a minute |
| foreign objects it held | released |
| its inbox, specs that wait for dependencies, marks and counts | deleted |
| its job, if it was a driver | ended |

A dead node's custody goes back to its queues (see `warren_workers.node.custody`); its record goes after a while,
and then its own queue, if there was one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from warren_broker.errors import StoreError, WarrenBrokerError, is_wrong_type
from warren_broker.ids import CLIENT_BYTES
from warren_broker.messages import decode
from warren_broker.queues import names
from warren_broker.queues.names import QueueKind
from warren_broker.signing import ForgedMessage
from warren_workers.node.periodic import pause
from warren_workers.node.sources import ORPHAN_SECONDS
from warren_workers.services.turns import takes_turn
from warren_workers.services.wrong_types import put_aside_wrong_types

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

log = logging.getLogger("warren.node")

INTERVAL_SECONDS: Final = 5.0
DEAD_NODES_KEPT_SECONDS: Final = 600.0
QUEUES_KEPT_SECONDS: Final = 3 * ORPHAN_SECONDS
STEP_PAUSE_SECONDS: Final = 0.002
JOB: Final = b"j:"


class Janitor:
    """Service on the agent's loop: `start`, `run_once`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._store = agent.store
        self._keys = agent.keys
        self._orphans: dict[str, float] = {}

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
            self._agent.loop.call_later(pause(self._agent, INTERVAL_SECONDS), self._tick)
        except Exception as error:
            # What it reads is not signed: somebody's nonsense must not end it for good.
            known = isinstance(error, WarrenBrokerError)
            log.warning("the janitor could not finish its round: %s", error, exc_info=None if known else error)
            self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)
        else:
            # A step is a round trip or two: from far away they must not come one right after the other.
            self._agent.loop.call_later(
                STEP_PAUSE_SECONDS + self._agent.heartbeat.round_trip, lambda: self._step(steps)
            )

    def _locked(self) -> bool:
        return takes_turn(self._store, self._keys.janitor, self._agent.node_id, INTERVAL_SECONDS)

    def run_once(self) -> None:
        """Clear up after whoever is dead now; returns when it is done."""
        for _ in self._steps():
            pass

    def _steps(self) -> Iterator[None]:
        put_aside_wrong_types(self._store)
        # After an outage of Redis, leases have ended that nobody could renew: those who live get the time to do so.
        if self._store.trusts_leases(self._agent.config.client_lease):
            yield from self._clear_clients()
            self._store.lives.lay_ghosts()
        if self._store.trusts_leases(self._agent.config.lease):
            self._clear_nodes()
            self._clear_queues()

    # -- clients -----------------------------------------------------------------------------------------------------

    def _clear_clients(self) -> Iterator[None]:
        store, keys = self._store, self._keys
        expired = store.call(b"ZRANGEBYSCORE", keys.clients, b"-inf", store.time())
        strangers = [each for each in expired if len(each) != CLIENT_BYTES]
        if strangers:
            store.call(b"ZREM", keys.clients, *strangers)
            expired = [each for each in expired if len(each) == CLIENT_BYTES]
        living = store.pipeline([(b"EXISTS", keys.client(client)) for client in expired])
        dead = {client for client, alive in zip(expired, living, strict=True) if not alive}
        if not dead:
            return
        jobs: list[bytes] = []
        start = keys.prefix + JOB

        def note_job(key: bytes) -> None:
            if key.startswith(start):
                jobs.append(key[len(start) :])

        try:
            yield from store.lives.leave(dead, self._agent.orphan, note_job)
        except StoreError as error:
            if not is_wrong_type(error):
                raise
            yield from self._clear_one_by_one(dead)
        self._end_jobs(dead, jobs)
        log.info("cleared up after %d clients that are gone", len(dead))

    def _clear_one_by_one(self, dead: set[bytes]) -> Iterator[None]:
        """One of the dead has a key of a wrong type: somebody else wrote there. All of its keys go, unread."""
        store = self._store
        for client in dead:
            try:
                yield from store.lives.leave([client], self._agent.orphan)
            except StoreError as error:
                if not is_wrong_type(error):
                    raise
                store.put_aside(f"keys of client {client.hex()}", b"", str(error))
                yield from store.lives.erase(client)

    def _end_jobs(self, dead: set[bytes], jobs: list[bytes]) -> None:
        for name in jobs:
            try:
                job = bytes.fromhex(name.decode())
            except ValueError:
                continue  # no job of ours
            (stored,) = self._store.call(b"MGET", self._keys.job(job))  # unlike GET, not offended by another type
            try:
                record = decode(self._agent.signer.open(b"job" + job, stored)) if stored else {}
            except ForgedMessage:
                continue
            if record.get("client") in dead:
                self._store.end_job(job)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _clear_queues(self) -> None:
        """Delete the queues of nodes that are forgotten, once no other node looks after them any more."""
        agent = self._agent
        store, keys = self._store, self._keys
        known = set(store.call(b"HKEYS", keys.nodes))
        now = time.monotonic()
        orphans: dict[str, float] = {}
        for name in store.call(b"SMEMBERS", keys.queues):
            queue = name.decode("utf-8", "replace")
            try:
                place = names.parse(queue)
            except ValueError:
                continue
            if place.kind is QueueKind.NODE and place.id not in known:
                orphans[queue] = self._orphans.get(queue, now)
        self._orphans = orphans
        for queue, since in list(orphans.items()):
            if now - since > QUEUES_KEPT_SECONDS:
                agent.consumer.delete_queue(queue, if_empty=True)
                store.call(b"SREM", keys.queues, queue)
                del orphans[queue]

    def _clear_nodes(self) -> None:
        agent = self._agent
        store, keys = self._store, self._keys
        died = keys.nodes + b":died"
        now = store.time()
        for node in store.call(b"HKEYS", keys.nodes):
            if node == agent.node_id:
                continue
            if store.call(b"EXISTS", keys.node(node)):
                store.call(b"HDEL", died, node)  # it was silent for a while, and is back
                continue
            try:
                count = agent.custody.adopt(node) + agent.continuations.publish_of(node)
            except StoreError as error:
                if not is_wrong_type(error):
                    raise
                store.put_aside(f"custody of node {node.hex()}", b"", str(error))
                store.call(b"UNLINK", keys.custody(node), keys.continuations(node))
                count = 0
            if count:
                log.warning("node %s is dead; %d messages that it had go back", node.hex()[:8], count)
            if not store.call(b"HSETNX", died, node, str(now)):
                since = _seconds(store.call(b"HGET", died, node))
                if now - since > DEAD_NODES_KEPT_SECONDS:
                    store.pipeline([(b"HDEL", keys.nodes, node), (b"HDEL", died, node)])


def _seconds(text: bytes | None) -> float:
    """Return a time as it stands in Redis; 0 for what is none."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
