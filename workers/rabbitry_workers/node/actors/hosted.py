"""What a node knows of its actors, and the calls that wait for one: state that the parts of `node.actors` share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from rabbitry.actor import unpack_facts
from rabbitry.exceptions import ActorUnavailableError, store_error
from rabbitry_broker import records, retry_policy
from rabbitry_broker.messages import Task, TaskHeader, decode_actor_spec
from rabbitry_workers.node.actors.call_order import Call, CallOrder
from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.positions import Positions

PREFETCH: Final = 64  # messages with calls to one actor that may be outstanding, if those are enough to do


Seen = dict[bytes, Positions]
"""Caller -> which of its calls."""


class Hosted:
    """An actor with a process on this node."""

    def __init__(
        self, executor: Executor, header: TaskHeader, task: Task, held: Held, epoch: int, owner: bytes
    ) -> None:
        self.executor = executor
        self.header = header
        self.task = task
        self.spec = decode_actor_spec(header.extra)
        self.creation: Held | None = held
        self.epoch = epoch
        self.owner = owner
        self.detached = bool(header.lifetime)
        self.final = False
        self.alive = False  # its constructor has ended well: before that no call reaches the instance
        self.cause = b""
        self.seen: Seen = {}  # calls that were handed to the process, or to one before it here
        self.absent: set[bytes] = set()  # callers in `seen` that were gone at the last look
        self.order: CallOrder | None = None  # while calls of before may still be with a lost node
        self.looks = False  # whether it has enough to do is looked at soon

    def has_enough(self) -> bool:
        """True if its process has more calls than it could run at a time.

        What waits for another call, as for an event or a lock, must not keep that one away.
        """
        chunks = self.executor.chunks
        if len(chunks) < PREFETCH:
            return False
        wanted = PREFETCH + self.spec.concurrency + sum(self.spec.groups.values())
        return sum(len(chunk.tasks) - len(chunk.done) for chunk in chunks) >= wanted

    def saw_before(self, seen: Seen) -> None:
        """These calls were handed to the process before: a copy of one that comes now is not to run once more."""
        for caller, positions in seen.items():
            self.seen.setdefault(caller, Positions()).update(positions)

    def fails_while_restarting(self) -> bool:
        """True if calls fail while it restarts: they are not tried again, and no state tells which took effect."""
        return not self.spec.durable and unpack_facts(self.spec.facts).max_task_retries == 0


class ActorTable:
    """The actors of a node. Loop thread only.

    Attributes:
        hosted: those with a process here.
        waiting: calls for actors that are being restarted.
        restarting: actors that have had a process, and whose next one is not through its constructor; with: calls that
            are not to be tried again fail meanwhile, as in Ray. `Hosting.host` (or the end of the process before)
            enters them; `Hosting.created`, `Ends.bury`, `Ends.moved_away` and `Ends.give_up` take them out.
        seen: of actors whose process has ended and that keep no state, the calls that their processes here were handed:
            all of them were answered, or wait here. `Ends` enters them when a process has ended; `Hosting.host` hands
            them to the next one, and what ends or leaves this node takes them along.
    """

    def __init__(self) -> None:
        self.hosted: dict[bytes, Hosted] = {}
        self.waiting: dict[bytes, deque[Call]] = {}
        self.restarting: dict[bytes, bool] = {}
        self.seen: dict[bytes, Seen] = {}

    def seen_of(self, actor_id: bytes) -> Seen:
        """Return which calls the processes of an actor were handed here; it has one, or is being restarted."""
        hosted = self.hosted.get(actor_id)
        return hosted.seen if hosted is not None else self.seen.setdefault(actor_id, {})

    def kept(self) -> Iterator[Call]:
        """Yield the calls that this node has and no process of an actor: they wait for one, or are early."""
        for waiting in self.waiting.values():
            yield from waiting
        for hosted in self.hosted.values():
            if hosted.order is not None:
                yield from hosted.order.waiting()

    def kept_ids(self) -> Iterator[bytes]:
        """Yield their ids."""
        for _, _, _, call in self.kept():
            yield call[0]


def unavailable(actor_id: bytes, why: str = "") -> bytes:
    """Return the record that calls get which may not wait for an actor's next process.

    Args:
        actor_id: whose.
        why: its process has ended, "" if that is not known.
    """
    since = f", since its process ended: {why}" if why else ""
    return records.ERROR + store_error(ActorUnavailableError(f"it is being restarted{since}", actor_id))


def attempts_after(
    hosted: Hosted, header: TaskHeader, task: Task, *, sent: bool, begun: bool, running: bool
) -> int | None:
    """Return a lost call's attempts when it is tried again, None if it is not; see `retry_policy`."""
    if hosted.spec.durable:
        return retry_policy.of_durable_call(task[2], running=running)
    return retry_policy.of_actor_call(header.max_retries, task[2], sent=sent, begun=begun)


def together(calls: Iterable[Call]) -> Iterator[tuple[Held, bytes, TaskHeader, list[Task]]]:
    """Gather successive calls of one delivery under one header, in their order."""
    for _, group in groupby(calls, key=lambda call: (id(call[0]), call[1])):
        (held, header_bytes, header, first), *others = group
        yield held, header_bytes, header, [first, *(task for *_, task in others)]
