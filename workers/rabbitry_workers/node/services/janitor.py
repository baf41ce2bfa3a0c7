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

A dead node's custody goes back to its queues (see `node.outcome.custody`); its record goes after a while, and then its
own queue, if there was one. A queue of a class of resources goes when nobody has used it for ten minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import RabbitryBrokerError, StoreError, is_wrong_type
from rabbitry_broker.ids import CLIENT_BYTES
from rabbitry_broker.messages import decode
from rabbitry_broker.queue_names import QueueKind
from rabbitry_broker.signing import ForgedMessage
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.source import ORPHAN_SECONDS
from rabbitry_workers.node.services.turns import takes_turn
from rabbitry_workers.node.services.wrong_types import put_aside_wrong_types

log = logging.getLogger("rabbitry.node")

INTERVAL_SECONDS: Final = 5.0
DEAD_NODES_KEPT_SECONDS: Final = 600.0
QUEUES_KEPT_SECONDS: Final = 3 * ORPHAN_SECONDS
IDLE_QUEUES_KEPT_SECONDS: Final = 600.0
RETIRED_AT_ONCE: Final = 20  # queues; the others have their turn in the next round
STEP_PAUSE_SECONDS: Final = 0.002
CANCELLATIONS_AT_ONCE: Final = 5000
JOB: Final = b"j:"


class DeletesQueues(Protocol):
    """The node's consumer, as the janitor uses it."""

    def delete_queue(self, queue: str, *, if_empty: bool = False) -> None:
        """Delete a queue."""

    def retire_queue(self, queue: str, on_retired: Callable[[], None]) -> None:
        """Delete an empty queue so that publishers announce it anew."""


class Janitor:
    """Service on the agent's loop: `start`, `run_once`.

    Args:
        node: which clears up.
        queues: deletes those of nodes that are forgotten.
        orphan: told of objects of the dead that somebody waits for.
        take_over: puts the work of a dead node back on its queues; returns how many messages there were.
    """

    def __init__(
        self,
        node: Node,
        queues: DeletesQueues,
        orphan: Callable[[list[bytes]], None],
        take_over: Callable[[bytes], int],
    ) -> None:
        self._node = node
        self._queues = queues
        self._orphan = orphan
        self._take_over = take_over
        self._store = node.store
        self._keys = node.keys
        self._orphans: dict[str, float] = {}

    def start(self) -> None:
        """Look after the cluster from now on."""
        self._node.loop.call_later(INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        try:
            steps = self._steps() if self._locked() else iter(())
        except RabbitryBrokerError as error:
            log.warning("the janitor cannot begin its round: %s", error)
            steps = iter(())
        self._step(steps)

    def _step(self, steps: Iterator[None]) -> None:
        try:
            next(steps)
        except StopIteration:
            self._node.loop.call_later(self._node.periodic.pause(INTERVAL_SECONDS), self._tick)
        except Exception as error:
            # What it reads is not signed: somebody's nonsense must not end it for good.
            known = isinstance(error, RabbitryBrokerError)
            log.warning("the janitor could not finish its round: %s", error, exc_info=None if known else error)
            self._node.loop.call_later(INTERVAL_SECONDS, self._tick)
        else:
            # A step is a round trip or two: from far away they must not come one right after the other.
            self._node.loop.call_later(STEP_PAUSE_SECONDS + self._node.periodic.round_trip, lambda: self._step(steps))

    def _locked(self) -> bool:
        return takes_turn(self._store, self._keys.janitor, self._node.id, INTERVAL_SECONDS, self._node.turns)

    def run_once(self) -> None:
        """Clear up after whoever is dead now; returns when it is done."""
        for _ in self._steps():
            pass

    def _steps(self) -> Iterator[None]:
        put_aside_wrong_types(self._store)
        # After an outage of Redis, leases have ended that nobody could renew: those who live get the time to do so.
        if self._store.trusts_leases(self._node.config.client_lease):
            yield from self._clear_clients()
            self._store.lives.lay_ghosts()
        self._forget_cancellations()
        if self._store.trusts_leases(self._node.config.lease):
            self._clear_nodes()
            self._clear_queues()
            self._retire_queues()

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
            yield from store.lives.leave(dead, self._orphan, note_job)
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
                yield from store.lives.leave([client], self._orphan)
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
            try:
                stored = self._store.job(job)
                record = decode(stored) if stored else {}
            except ForgedMessage:
                continue
            client: bytes = record.get("client", b"")
            # Who was to end it may have been killed when the driver was cleared away already.
            missed = record.get("is_missed") and not self._store.registered([client])
            if client in dead or missed:
                self._store.end_job(job)

    def _forget_cancellations(self) -> None:
        """Who comes late need not know any more of what was cancelled long ago."""
        store, keys = self._store, self._keys
        over = store.call(b"ZRANGEBYSCORE", keys.cancelled, b"-inf", store.time(), b"LIMIT", 0, CANCELLATIONS_AT_ONCE)
        if over:
            store.call(b"ZREM", keys.cancelled, *over)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _clear_queues(self) -> None:
        """Delete the queues of nodes and groups that are gone, once no node looks after them any more."""
        store, keys = self._store, self._keys
        known, groups = (set(each) for each in store.pipeline([(b"HKEYS", keys.nodes), (b"SMEMBERS", keys.groups)]))
        now = time.monotonic()
        orphans: dict[str, float] = {}
        for name in store.call(b"SMEMBERS", keys.queues):
            queue = name.decode("utf-8", "replace")
            try:
                place = names.parse(queue)
            except ValueError:
                continue
            of_group = place.kind is QueueKind.BUNDLE and place.id.hex().encode() not in groups
            if of_group or (place.kind is QueueKind.NODE and place.id not in known):
                orphans[queue] = self._orphans.get(queue, now)
        self._orphans = orphans
        for queue, since in list(orphans.items()):
            if now - since > QUEUES_KEPT_SECONDS:
                self._queues.delete_queue(queue, if_empty=True)
                store.pipeline([(b"SREM", each, queue) for each in (keys.queues, keys.prioritized)])
                del orphans[queue]

    def _retire_queues(self) -> None:
        """Delete queues of classes of resources that nobody has used for long; those of jobs that ended sooner."""
        store, keys = self._store, self._keys
        announced, used, living = store.pipeline(
            [(b"SMEMBERS", keys.queues), (b"HGETALL", keys.used), (b"ZRANGE", keys.jobs, 0, -1)]
        )
        since = {queue: _seconds(at) for queue, at in zip(used[::2], used[1::2], strict=True)}
        forgotten = since.keys() - set(announced)
        now, jobs = store.time(), set(living)
        idle: list[tuple[float, bytes]] = []
        notes: list[bytes] = []
        for queue in announced:
            text = queue.decode("utf-8", "replace")
            if not names.is_of_class(text):
                continue
            try:
                job = names.parse(text).job
            except ValueError:
                continue
            if queue not in since:
                notes += (queue, repr(now).encode())
                continue
            kept = QUEUES_KEPT_SECONDS if job and job not in jobs else IDLE_QUEUES_KEPT_SECONDS
            if now - since[queue] > kept:
                idle.append((since[queue], queue))
        for _, queue in sorted(idle)[:RETIRED_AT_ONCE]:
            # One that is not empty keeps its place for as long again: nobody is there to take what is on it.
            notes += (queue, repr(now).encode())
            self._queues.retire_queue(queue.decode(), partial(self._retired, queue))
        if forgotten:
            store.call(b"HDEL", keys.used, *forgotten)
        if notes:
            store.call(b"HSET", keys.used, *notes)

    def _retired(self, queue: bytes) -> None:
        keys = self._keys
        try:
            self._store.pipeline(
                [(b"SREM", keys.queues, queue), (b"SREM", keys.prioritized, queue), (b"HDEL", keys.used, queue)]
            )
        except RabbitryBrokerError as error:
            log.warning("queue %s is deleted, but still on record: %s", queue.decode(), error)

    def _clear_nodes(self) -> None:
        store, keys = self._store, self._keys
        died = keys.nodes + b":died"
        now = store.time()
        nodes, noted = store.pipeline([(b"HKEYS", keys.nodes), (b"HKEYS", died)])
        left = set(noted).difference(nodes)
        if left:
            store.call(b"HDEL", died, *left)  # they came back, and said goodbye
        others = [node for node in nodes if node != self._node.id]
        living = store.pipeline([(b"EXISTS", keys.node(node)) for node in others])  # they may be very many
        back = {node for node, lives in zip(others, living, strict=True) if lives}.intersection(noted)
        if back:
            store.call(b"HDEL", died, *back)  # they were silent for a while
        for node in [node for node, lives in zip(others, living, strict=True) if not lives]:
            if store.call(b"EXISTS", keys.node(node)):
                continue  # it came back just now
            try:
                count = self._take_over(node)
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
        # What is noted of a node goes with its record; one that came back and left in order took that away itself.
        known, *noted = store.pipeline([(b"HKEYS", each) for each in (keys.nodes, died, keys.nodes + b":slots")])
        for key, nodes in zip((died, keys.nodes + b":slots"), noted, strict=True):
            strangers = set(nodes).difference(known)
            if strangers:
                store.call(b"HDEL", key, *strangers)


def _seconds(text: bytes | None) -> float:
    """Return a time as it stands in Redis; 0 for what is none."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
