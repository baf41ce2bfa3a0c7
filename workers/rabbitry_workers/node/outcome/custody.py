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
from collections import deque
from itertools import takewhile
from typing import Final

from rabbitry.core.failures import death_record
from rabbitry.exceptions import ActorUnavailableError, store_error
from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import (
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
from rabbitry_broker.signing import ForgedMessage
from rabbitry_broker.store.actors import DEAD, ActorRecords
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Commits, Publishes, Rechecks
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome.settling import Settling

CUSTODY_SECONDS: Final = 5.0  # well below the shortest `consumer_timeout` that anybody sets
AGAIN_SECONDS: Final = 1.0  # until the next try to put back what a dead node had, when a server is away
SLICE_SECONDS: Final = 0.005
SLICE_PAUSE_SECONDS: Final = 0.001
GIVE_BACK_SECONDS: Final = 5.0  # for the broker to confirm what a leaving node gives back

log = logging.getLogger("rabbitry.node")


class Custody:
    """A node's custody of its own deliveries. Loop thread only; nothing happens on the embedded engine.

    Args:
        node: whose custody it is.
        settling: acknowledges what is taken.
        commits: of results that are clear.
        publishing: of what goes back.
        rechecks: tell what has still to be done.
        actors: the records of actors.
        after: seconds after which a delivery is taken.
    """

    def __init__(
        self,
        node: Node,
        settling: Settling,
        commits: Commits,
        publishing: Publishes,
        rechecks: Rechecks,
        actors: ActorRecords,
        after: float = CUSTODY_SECONDS,
    ) -> None:
        self._node = node
        self._settling = settling
        self._commits = commits
        self._publishing = publishing
        self._rechecks = rechecks
        self._actors = actors
        self.after = after
        self._key = node.keys.custody(node.id)
        self._watched: dict[int, Held] = {}  # in the order of their arrival
        self._kept: dict[bytes, Held] = {}
        self._tried: dict[int, bytes] = {}  # fields of what is watched, if the reply to their writing was lost
        self._done: list[bytes] = []  # entries to be deleted
        self._adopted: deque[tuple[bytes, bytes]] = deque()  # of dead nodes, until it is put back
        self._foreign: dict[bytes, bool] = {}  # its fields, until their entries go: whether the broker got the message
        self.left = False  # this node ends, and could not put everything back

    def watch(self, held: Held) -> None:
        """A delivery was taken. HOT PATH."""
        if self._node.endpoint.traits.takes_custody:
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
        deadline = time.monotonic() - self.after
        self._take(list(takewhile(lambda held: held.received_at <= deadline, self._watched.values())))

    def take_from(self, queue: str) -> None:
        """A queue was deleted: it takes nothing back that came from it, should this node end."""
        self._take([held for held in self._watched.values() if held.queue == queue])

    def _take(self, long: list[Held]) -> None:
        if not long and not self._done:
            return
        fields = {
            self._tried.get(id(held)) or secrets.token_bytes(12): held for held in long if held.delivery is not None
        }
        commands: list[tuple[bytes, ...]] = [
            (b"HSET", self._key, field, self._entry(field, held)) for field, held in fields.items()
        ]
        if self._done:
            commands.append((b"HDEL", self._key, *self._done))
        try:
            self._node.store.pipeline(commands)
        except RabbitryBrokerError as error:
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
            self._settling.release(held)

    def update(self, held: Held) -> None:
        """Tasks of a delivery were handed back: they must not come again from custody too."""
        if held.custody:
            self._node.store.call(b"HSET", self._key, held.custody, self._entry(held.custody, held))

    def _entry(self, field: bytes, held: Held) -> bytes:
        assert held.delivery is not None
        body = held.delivery.body
        if held.returned:
            body = self._without(body, held.returned)
        return self._node.signer.seal(b"custody" + field, encode([held.queue, held.delivery.priority, body]))

    def give_back(self) -> None:
        """This node ends with work in its custody: put it back on its queues, as far as it is not done.

        What the broker has not confirmed stays, and `left` says so: another node's janitor puts it back then.
        """
        self._done += self._tried.values()  # the broker gives those back
        self._tried.clear()
        if not self._kept and not self._done and not self._foreign:
            return
        self.left = True
        if self._done:
            self._node.store.call(b"HDEL", self._key, *self._done)
            self._done.clear()
        entries = self._node.store.call(b"HGETALL", self._key)
        # No attempt is counted: this node ends in good order. What may run only once is decided by its start mark.
        for field, entry in zip(entries[::2], entries[1::2], strict=True):
            if not self._foreign.get(field):  # else it is on its way, and waited for below
                self._put_back(field, entry, lost=field in self._foreign)
        if not self._publishing.flush(GIVE_BACK_SECONDS):
            log.warning("the broker does not take back what is in custody: it is left to other nodes")
            return
        self._node.store.call(b"UNLINK", self._key)
        self._kept.clear()
        self._foreign.clear()
        self._adopted.clear()
        self.left = False

    def adopt(self, node: bytes) -> int:
        """Put a dead node's custody back on its queues, bit by bit; return how many messages there were."""
        entries = self._node.store.script("custody_adopt", self._node.keys.custody(node), self._key)
        self._node.store.call(b"UNLINK", self._node.keys.custody(node))
        under_way = bool(self._adopted)
        self._adopted.extend(zip(entries[::2], entries[1::2], strict=True))
        self._foreign.update(dict.fromkeys(entries[::2], False))
        if not under_way:
            self._put_back_adopted()
        return len(entries) // 2

    def _put_back_adopted(self) -> None:
        """Put back some; the loop has other work as well."""
        pause = SLICE_PAUSE_SECONDS
        until = time.monotonic() + SLICE_SECONDS
        while self._adopted:
            field, entry = self._adopted[0]
            try:
                self._put_back(field, entry, lost=True)
            except RabbitryBrokerError as error:
                log.warning("cannot yet put back what a dead node had: %s", error)
                pause = AGAIN_SECONDS
                break
            self._adopted.popleft()
            if time.monotonic() > until:
                break
        if self._adopted:
            self._node.loop.call_later(pause, self._put_back_adopted)

    def _put_back(self, field: bytes, entry: bytes, *, lost: bool) -> None:
        def delete() -> None:
            self._node.store.call(b"HDEL", self._key, field)
            self._foreign.pop(field, None)

        def done() -> None:
            self._node.loop.add_callback(delete)

        try:
            queue, priority, body = decode(self._node.signer.open(b"custody" + field, entry))
            left = self._unfinished(queue, body, lost=lost) if body else b""  # all of it was handed back
        except (ForgedMessage, MalformedMessage) as error:
            self._node.store.put_aside("custody", entry, str(error))
            left = b""
        if left:
            self._publishing.publish_now(queue, left, priority, done)
            if field in self._foreign:
                self._foreign[field] = True
        else:
            done()

    def _without(self, body: bytes, gone: set[bytes]) -> bytes:
        """Return a message without the tasks in `gone`."""
        frames = []
        for header_bytes, tasks in decode_frames(self._node.signer, body):
            left = [task for task in tasks if task[0] not in gone]
            if left:
                frames.append(encode_frame(self._node.signer, header_bytes, left))
        return b"".join(frames)

    def _unfinished(self, queue: str, body: bytes, *, lost: bool) -> bytes:
        """Return what has still to be done of a message; results that are clear are committed."""
        frames = []
        for header_bytes, tasks in decode_frames(self._node.signer, body):
            header = decode_header(header_bytes)
            held = Held(None, queue)
            if header.kind == KIND_ACTOR_CALL:
                left = self._unfinished_calls(held, header, tasks, lost=lost)
            else:
                left = self._rechecks.recheck(held, header, tasks, lost=lost)
            if left:
                frames.append(encode_frame(self._node.signer, header_bytes, left))
        return b"".join(frames)

    def _unfinished_calls(self, held: Held, header: TaskHeader, tasks: list[Task], *, lost: bool) -> list[Task]:
        state, durable = self._actors.fields(header.actor, "state", "durable")
        if durable:
            return tasks  # the actor's next process knows which of them took effect
        record = b""
        if state is None or state == DEAD.encode():
            cause = self._actors.cause(header.actor)
            record = records.ERROR + (
                cause or death_record("", header.actor, "The actor is dead because its node has died.")
            )
        elif header.max_retries == 0:
            error = ActorUnavailableError("it lost its node while it had this call", header.actor)
            record = records.ERROR + store_error(error)
        left = self._rechecks.recheck(held, header, tasks, lost=lost)
        if not record:
            return left
        self._commits.commit_records([(held, header, task, record) for task in left])
        return []
