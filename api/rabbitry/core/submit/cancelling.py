"""Cancelling: a task that waits here is taken back, others are cancelled by the node that has them, or by nobody else.

A cancellation is announced to all nodes: a lone one at once, one of many a moment later together with the others. A
node that runs the task claims it, and commits its end. If all nodes say that they have it not, or none has claimed it
within `CANCEL_GRACE_SECONDS`, the task is in a queue or nowhere: this client commits its end, and whoever meets it
later finds its results there.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import groupby
from typing import Protocol

from rabbitry.core.failures import cancelled_error, failed_results
from rabbitry.core.flight import Flight
from rabbitry.core.identity import Identity
from rabbitry.core.resolve.notes import CANCEL, FORCE, RECURSIVE
from rabbitry_broker import records
from rabbitry_broker.ids import FIRST_INDEX, owner_of
from rabbitry_broker.messages import STREAMING, Completion, encode_completion
from rabbitry_broker.store.keys import Keys

LATE_SECONDS = 5.0  # after an end was committed here: results may still come, of which nobody is told otherwise
ALONE_SECONDS = 0.002  # after the last announcement: then the next one goes out at once
ANNOUNCED_AT = 500  # tasks that wait to be announced: then whoever cancels does it
ENDED_TOGETHER = 500  # tasks whose ends are committed in one step
CANCEL_GRACE_SECONDS = 0.15  # for a node that runs the task to claim the cancellation


class CancelStore(Protocol):
    """What the store does for it; see `ObjectStore`."""

    def announce_cancel(
        self, keys: Keys, task_ids: Sequence[bytes], client: bytes, *, force: bool, recursive: bool
    ) -> int:
        """Tell all nodes; return how many there are."""

    def tell(self, client: bytes, entry: bytes) -> None:
        """Put an entry on a client's inbox."""


class EndedHere(Protocol):
    """Makes the ends of tasks known here; see `Inbox.ended_here`."""

    def __call__(self, task_ids: Sequence[bytes], items: list[bytes], *, untold: bool) -> None:
        """Their results, or none; `untold` if nobody else can tell of other ends."""


class _Announced:
    """A cancelled task of which nodes were told.

    Attributes:
        until: when its end is committed here, whoever is still to answer.
        results: how many it has, as in a header.
        nodes: how many were told; infinite until that is known.
        passed: ids of those that have it not.
    """

    __slots__ = ("nodes", "passed", "results", "until")

    def __init__(self, results: int) -> None:
        self.until = math.inf
        self.results = results
        self.nodes = math.inf
        self.passed: set[bytes] = set()


class Cancelling:
    """Cancels tasks for one client. Any thread may call anything but `end_due`, which is the service thread's.

    What was not announced yet is announced by the service thread, or by the next who cancels.

    Args:
        identity: of the client.
        flight: knows how many results tasks have, and which submitted which.
        streams: ids of streaming tasks.
        values: the records of resolved objects.
        store: tells nodes and owners.
        withdraw: takes a task back that was not sent; False if it was.
        owns: tells whether this client owns an object or task.
        commit: commits errors (id, record, ...) where no results stand.
        ended_here: makes ends known here.
        kick: has the service thread look.
    """

    def __init__(
        self,
        identity: Identity,
        flight: Flight,
        *,
        streams: Container[bytes],
        values: Container[bytes],
        store: CancelStore,
        withdraw: Callable[[bytes], bool],
        owns: Callable[[bytes], bool],
        commit: Callable[[Sequence[bytes]], None],
        ended_here: EndedHere,
        kick: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._flight = flight
        self._streams = streams
        self._values = values
        self._store = store
        self._withdraw = withdraw
        self._owns = owns
        self._commit = commit
        self._ended_here = ended_here
        self._kick = kick
        # (task, (by force, with its children), results), until nodes were told
        self._unannounced: deque[tuple[bytes, tuple[bool, bool], int]] = deque()
        self._announced_at = -math.inf  # never
        self._waiting: dict[bytes, _Announced] = {}
        self._nowhere: deque[bytes] = deque()  # what no node has, until its end is committed
        self._late_until = 0.0

    @property
    def waiting(self) -> bool:
        """True while it is not known of some tasks who commits their ends."""
        return bool(self._waiting or self._unannounced)

    @property
    def unannounced(self) -> bool:
        """True while nodes were not told of some tasks yet."""
        return bool(self._unannounced)

    @property
    def expects_late(self) -> bool:
        """True while results may still come of tasks whose ends were committed here."""
        return time.monotonic() < self._late_until

    def expect_late(self) -> None:
        """The end of a task was committed here, and others may commit one too, which nobody here asks for."""
        self._late_until = time.monotonic() + LATE_SECONDS
        self._kick()

    def cancel(self, task_id: bytes, *, force: bool, recursive: bool, results: int = 1) -> None:
        """Cancel a task: dropped if not started, interrupted if running; see `rabbitry.cancel`.

        Args:
            task_id: of the task.
            force: kill the process that runs it.
            recursive: cancel also what it submitted.
            results: how many results it has, as in a header, if this client does not know.
        """
        results = STREAMING if task_id in self._streams else self._flight.results_of(task_id, results)
        if self._withdraw(task_id):
            self._end([(task_id, results)], withdrawn=True)
            return
        identity = self._identity
        owner = owner_of(task_id)
        if not self._owns(task_id):
            asked = [each for each, wanted in ((FORCE, force), (RECURSIVE, recursive)) if wanted]
            note = Completion(b"", 0, 0.0, asked, [task_id], CANCEL)
            self._store.tell(owner, encode_completion(identity.signer, owner, note))
        self._unannounced.append((task_id, (force, recursive), results))
        if len(self._unannounced) >= ANNOUNCED_AT or time.monotonic() - self._announced_at > ALONE_SECONDS:
            self.announce()
        self.expect_late()

    def announce(self) -> None:
        """Tell all nodes of what was cancelled."""
        unannounced = self._unannounced
        taken = []
        while unannounced:
            try:
                taken.append(unannounced.popleft())
            except IndexError:
                break  # another thread does it, too
        identity = self._identity
        at = 0
        try:
            for (force, recursive), group in groupby(taken, key=lambda each: each[1]):
                tasks = list(group)
                # Noted before, for a claim that is faster than the reply; the time counts from the reply.
                expected = [(each[0], _Announced(each[2])) for each in tasks]
                self._waiting.update(expected)
                nodes = self._store.announce_cancel(
                    identity.keys, [each[0] for each in tasks], identity.id, force=force, recursive=recursive
                )
                at += len(tasks)
                self._announced_at = now = time.monotonic()
                for _, announced in expected:
                    announced.nodes, announced.until = nodes, now + CANCEL_GRACE_SECONDS
                self._end_if_nowhere(expected)
        finally:
            for task_id, *_ in taken[at:]:
                self._waiting.pop(task_id, None)
            unannounced.extendleft(reversed(taken[at:]))

    def cancel_children(self, parent: bytes, *, force: bool) -> None:
        """Cancel what a cancelled task had submitted."""
        for task_id in self._flight.take_children(parent):
            if task_id + FIRST_INDEX not in self._values:
                self.cancel(task_id, force=force, recursive=True)

    def claimed(self, task_id: bytes) -> None:
        """A node runs the task and will commit its end."""
        self._waiting.pop(task_id, None)

    def passed(self, node: bytes, task_ids: Sequence[bytes]) -> None:
        """A node has none of these tasks, and will not run them if they come."""
        waiting = self._waiting
        told = [(task_id, each) for task_id in task_ids if (each := waiting.get(task_id)) is not None]
        for _, announced in told:
            announced.passed.add(node)
        self._end_if_nowhere(told)

    def _end_if_nowhere(self, tasks: Iterable[tuple[bytes, _Announced]]) -> None:
        """Have the ends of those be committed that no node has."""
        nowhere = [task_id for task_id, announced in tasks if len(announced.passed) >= announced.nodes]
        if nowhere:
            self._nowhere.extend(nowhere)
            self._kick()

    def end_due(self) -> None:
        """Commit the ends of what was cancelled and what no node has, or has claimed in time."""
        waiting, nowhere = self._waiting, self._nowhere
        due: dict[bytes, _Announced] = {}
        while nowhere:
            task_id = nowhere.popleft()
            announced = waiting.pop(task_id, None)
            if announced is not None:
                due[task_id] = announced
        now = time.monotonic()
        for task_id, announced in list(waiting.items()):
            if announced.until > now:
                break  # they are in order
            if waiting.pop(task_id, None) is not None:
                due[task_id] = announced
        try:
            while due:
                owner = owner_of(next(iter(due)))
                together = [task_id for task_id in due if owner_of(task_id) == owner][:ENDED_TOGETHER]
                self._end([(task_id, due[task_id].results) for task_id in together])
                for task_id in together:
                    del due[task_id]
        finally:
            self._waiting.update(due)  # what is left when the store fails comes again

    def _end(self, tasks: Iterable[tuple[bytes, int]], *, withdrawn: bool = False) -> None:
        """Commit the ends of tasks (id, results) of one owner."""
        ended: list[bytes] = []
        items: list[bytes] = []
        for task_id, results in tasks:
            ended.append(task_id)
            items += failed_results(task_id, results, records.ERROR + cancelled_error(task_id))
        if items:
            self._commit(items)
        self._ended_here(ended, items, untold=withdrawn)
