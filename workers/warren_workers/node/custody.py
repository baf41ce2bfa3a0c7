"""Custody: RabbitMQ closes a channel whose delivery stays unacknowledged too long, so long work is kept elsewhere.

A delivery that is unsettled after `CUSTODY_SECONDS` is written to the node's custody hash in Redis, and acknowledged.
When its work is done the entry goes. When the node's lease ends, the janitor of one other node adopts its entries in
one step (they are in that node's custody then, and so survive its end too) and puts what is left of them back on the
queues.

    held --5 s---> in custody (Redis) + acknowledged --done--> entry deleted
                          |  '-----this node leaves--> published again, entry deleted
                          '--------this node is dead-> adopted --> published again, entry deleted

What is left of an entry: tasks whose result does not stand. For each an attempt is counted, as for any task that was
lost with its node (see `redelivery`); those that may run only once are decided by their start marks.
"""

from __future__ import annotations

import logging
import secrets
import time
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from warren.actor_client import death_record
from warren.exceptions import ActorUnavailableError, store_error
from warren_broker import records
from warren_broker.errors import WarrenBrokerError
from warren_broker.messages import (
    KIND_ACTOR_CALL,
    MalformedMessage,
    Task,
    TaskHeader,
    decode,
    decode_frames,
    decode_header,
    encode,
    encode_frame,
)
from warren_broker.signing import ForgedMessage
from warren_broker.store.actors import DEAD
from warren_workers.node.intake import Held

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

CUSTODY_SECONDS: Final = 5.0  # well below the shortest `consumer_timeout` that anybody sets
GIVE_BACK_SECONDS: Final = 5.0  # for the broker to confirm what a leaving node gives back

log = logging.getLogger("warren.node")


class Custody:
    """The agent's custody of its own deliveries. Loop thread only; nothing happens on the embedded engine."""

    def __init__(self, agent: Agent, after: float = CUSTODY_SECONDS) -> None:
        self._agent = agent
        self._after = after
        self._key = agent.keys.custody(agent.node_id)
        self._watched: dict[int, Held] = {}  # in the order of their arrival
        self._kept: dict[bytes, Held] = {}
        self._tried: dict[int, bytes] = {}  # fields of what is watched, if the reply to their writing was lost
        self._done: list[bytes] = []  # entries to be deleted
        self.left = False  # this node ends, and could not put everything back

    def watch(self, held: Held) -> None:
        """A delivery was taken. HOT PATH."""
        if not self._agent.endpoint.embedded:
            self._watched[id(held)] = held

    def settled(self, held: Held) -> None:
        """Nothing of it is outstanding. HOT PATH."""
        self._watched.pop(id(held), None)
        tried = self._tried.pop(id(held), b"") if self._tried else b""
        if tried and not held.custody:
            self._done.append(tried)
        if held.custody:
            self._kept.pop(held.custody, None)
            self._done.append(held.custody)

    def forget(self, held: Held) -> None:
        """A delivery is given up: its queue takes it back."""
        self._watched.pop(id(held), None)
        tried = self._tried.pop(id(held), b"")
        if tried:
            self._done.append(tried)

    def run_once(self) -> None:
        """Take custody of what is unsettled for long, delete the entries of what is done: in one round trip."""
        deadline = time.monotonic() - self._after
        long = list(takewhile(lambda held: held.received_at <= deadline, self._watched.values()))
        if not long and not self._done:
            return
        agent = self._agent
        fields = {
            self._tried.get(id(held)) or secrets.token_bytes(12): held for held in long if held.delivery is not None
        }
        commands: list[tuple[bytes, ...]] = [
            (b"HSET", self._key, field, self._entry(field, held)) for field, held in fields.items()
        ]
        if self._done:
            commands.append((b"HDEL", self._key, *self._done))
        try:
            agent.store.pipeline(commands)
        except WarrenBrokerError as error:
            log.warning("cannot take custody now: %s", error)
            self._tried.update((id(held), field) for field, held in fields.items())  # perhaps they are written
            return
        self._done.clear()
        self._tried.clear()
        for held in long:
            del self._watched[id(held)]
        for field, held in fields.items():
            assert held.delivery is not None
            held.custody = field
            self._kept[field] = held
            agent.consumer.ack(held.delivery)
            agent.sources.settled(held)

    def update(self, held: Held) -> None:
        """Tasks of a delivery were handed back: they must not come again from custody too."""
        if held.custody:
            self._agent.store.call(b"HSET", self._key, held.custody, self._entry(held.custody, held))

    def _entry(self, field: bytes, held: Held) -> bytes:
        agent = self._agent
        assert held.delivery is not None
        body = held.delivery.body
        if held.returned:
            body = _without(agent, body, held.returned)
        return agent.signer.seal(b"custody" + field, encode([held.queue, held.delivery.priority, body]))

    def give_back(self) -> None:
        """This node ends with work in its custody: put it back on its queues, as far as it is not done.

        What the broker has not confirmed stays, and `left` says so: another node's janitor puts it back then.
        """
        self._done += self._tried.values()  # the broker gives those back
        self._tried.clear()
        if not self._kept and not self._done:
            return
        agent = self._agent
        self.left = True
        if self._done:
            agent.store.call(b"HDEL", self._key, *self._done)
            self._done.clear()
        entries = agent.store.call(b"HGETALL", self._key)
        # No attempt is counted: this node ends in good order. What may run only once is decided by its start mark.
        _put_back(agent, entries, lost=False)
        if not agent.publisher.flush(GIVE_BACK_SECONDS):
            log.warning("the broker does not take back what is in custody: it is left to other nodes")
            return
        agent.store.call(b"UNLINK", self._key)
        self._kept.clear()
        self.left = False

    def adopt(self, node: bytes) -> int:
        """Put a dead node's custody back on its queues; return how many messages there were."""
        agent = self._agent
        entries = agent.store.script("custody_adopt", agent.keys.custody(node), self._key)
        _put_back(agent, entries, lost=True)
        agent.store.call(b"UNLINK", agent.keys.custody(node))
        return len(entries) // 2


def _put_back(agent: Agent, entries: list[bytes], *, lost: bool) -> None:
    key = agent.keys.custody(agent.node_id)
    for field, entry in zip(entries[::2], entries[1::2], strict=True):

        def done(field: bytes = field) -> None:
            agent.loop.add_callback(lambda: agent.store.call(b"HDEL", key, field))

        try:
            queue, priority, body = decode(agent.signer.open(b"custody" + field, entry))
            left = _unfinished(agent, queue, body, lost=lost)
        except (ForgedMessage, MalformedMessage) as error:
            agent.store.put_aside("custody", entry, str(error))
            left = b""
        if left:
            agent.publisher.publish(queue, left, priority=priority, on_confirm=done)
        else:
            done()


def _without(agent: Agent, body: bytes, gone: set[bytes]) -> bytes:
    """Return a message without the tasks in `gone`."""
    frames = []
    for header_bytes, tasks in decode_frames(agent.signer, body):
        left = [task for task in tasks if task[0] not in gone]
        if left:
            frames.append(encode_frame(agent.signer, header_bytes, left))
    return b"".join(frames)


def _unfinished(agent: Agent, queue: str, body: bytes, *, lost: bool) -> bytes:
    """Return what has still to be done of a message; results that are clear are committed."""
    frames = []
    for header_bytes, tasks in decode_frames(agent.signer, body):
        header = decode_header(header_bytes)
        held = Held(None, queue)
        if header.kind == KIND_ACTOR_CALL:
            left = _unfinished_calls(agent, held, header, tasks, lost=lost)
        else:
            left = agent.redelivery.recheck(held, header, tasks, lost=lost)
        if left:
            frames.append(encode_frame(agent.signer, header_bytes, left))
    return b"".join(frames)


def _unfinished_calls(agent: Agent, held: Held, header: TaskHeader, tasks: list[Task], *, lost: bool) -> list[Task]:
    state, durable = agent.actors.records.fields(header.actor, "state", "durable")
    if durable:
        return tasks  # the actor's next process knows which of them took effect
    record = b""
    if state is None or state == DEAD.encode():
        cause = agent.actors.records.cause(header.actor)
        record = records.ERROR + (cause or death_record("", header.actor, "Its node is gone."))
    elif header.max_retries == 0:
        text = f"The actor {header.actor.hex()} lost its node while it had this call; it may have run."
        record = records.ERROR + store_error(ActorUnavailableError(text, header.actor))
    left = agent.redelivery.recheck(held, header, tasks, lost=lost)
    if not record:
        return left
    for task in left:
        agent.commit_record(held, header, task, record)
    return []
