"""Calls to actors. HOT PATH: `call` (`benchmarks/`: `actor_*`).

Calls of one client to one actor keep their order: they wait in one *line* a target actor, whatever the method, and
leave in one message with one frame a run of equal methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from rabbitry.core.actors.directory import ActorDirectory
from rabbitry.core.failures import failed_results
from rabbitry.core.flight import Flight
from rabbitry.core.ports import Call
from rabbitry.core.submit.plan import Line, Plan
from rabbitry.core.submit.plans import Plans
from rabbitry.options import MethodOptions
from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import FIRST_INDEX, TaskIds
from rabbitry_broker.store.actors import DEAD

LOOKED_FOR = 500  # calls without handles, at a time
LINES_KEPT = 1000  # of calls: from then on those of dead actors are looked for


class CallInbox(Protocol):
    """Where the results of calls come; see `Inbox`."""

    def drain(self) -> bool:
        """Take what is there."""

    def look_for(self, keys: list[bytes]) -> None:
        """Look whether results are in the store that nobody told us of."""

    def make_known(self, items: list[bytes], *, tasks: int = 0, ended: Sequence[bytes] = ()) -> None:
        """Make results known that this process made."""


class CallStore(Protocol):
    """What the store does for it; see `ObjectStore`."""

    def when_room(self, action: Callable[[], Any]) -> Any:
        """Run `action`; while the store is full, wait and run it again."""

    def commit(self, owner: bytes, items: Sequence[bytes], entry: bytes, *, require_owner: bool) -> list[Any]:
        """Commit results where none stand."""

    def fetch(self, object_ids: Sequence[bytes]) -> list[bytes | None]:
        """Return the records of objects, None for those that are not there."""


class States(Protocol):
    """Records of actors in the store; see `ActorRecords`."""

    def states(self, actor_ids: list[bytes]) -> list[tuple[str, bytes]]:
        """Return (state, cause of death) of each."""


class Submits(Protocol):
    """Submits tasks; see `Submitter`."""

    def submit(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], task_id: bytes | None = None) -> Any:
        """Send one task of `plan`."""

    def handles(self, plan: Plan, task_id: bytes) -> Any:
        """Return the handles of a task that the caller fails."""


class ActorCalls:
    """Calls actors for one client. Any thread may call anything.

    Args:
        client: its id.
        ids: of tasks.
        flight: knows the calls that have not ended.
        directory: knows the dead.
        plans: makes plans of methods.
        submitter: submits calls.
        inbox: where results come.
        store: where calls fail that nobody else can fail.
        records: of actors.
        lingering: actors without handles that calls of ours keep alive (shared with what ends them).
        expect_late: called when calls that were sent have failed here: their node may tell of them too.

    Attributes:
        lines: by actor, until the last handle of an owned actor goes, or the actor is found dead.
    """

    def __init__(
        self,
        client: bytes,
        ids: TaskIds,
        flight: Flight,
        directory: ActorDirectory,
        *,
        plans: Plans,
        submitter: Submits,
        inbox: CallInbox,
        store: CallStore,
        records: States,
        lingering: set[bytes],
        expect_late: Callable[[], None],
    ) -> None:
        self._client = client
        self._next_id = ids.next
        self._flight = flight
        self._calls = flight.calls
        self._directory = directory
        self._dead = directory.dead
        self._plans = plans
        self._submit = submitter.submit
        self._handles = submitter.handles
        self._inbox = inbox
        self._store = store
        self._records = records
        self._lingering = lingering
        self._expect_late = expect_late
        self._sweep_at = LINES_KEPT
        self.lines: dict[bytes, Line] = {}

    def become(self, client: bytes) -> None:
        """What it is for: `become` of the whole."""
        self._client = client

    def method_plan(self, actor_id: bytes, class_name: str, method: str, options: MethodOptions) -> Plan:
        """Return the plan of one method's calls with these options, fully resolved."""
        return self._plans.method(actor_id, class_name, method, options, self.line(actor_id))

    def line(self, actor_id: bytes) -> Line:
        """Return the line of calls to an actor."""
        line = self.lines.get(actor_id)
        if line is None:
            if len(self.lines) >= self._sweep_at:
                self._sweep_lines()
            line = self.lines.setdefault(actor_id, Line(names.actor_queue(actor_id)))
        return line

    def _sweep_lines(self) -> None:
        """Forget the lines to actors that are dead.

        A line numbers the calls, and numbers must go on as long as the actor lives, whether or not this process has a
        handle just now. So the lines of a living actor stay.
        """
        lines = list(self.lines.items())
        with suppress(RabbitryBrokerError):  # Redis does not answer: the next time
            states = self._records.states([actor_id for actor_id, _ in lines])
            for (actor_id, line), (state, _) in zip(lines, states, strict=True):
                if (state == DEAD or not state) and not line.pending:
                    self.lines.pop(actor_id, None)
        self._sweep_at = max(LINES_KEPT, 2 * len(self.lines))

    def call(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Send a call; return what `handle.method.remote()` returns. HOT PATH."""
        task_id = self._next_id()
        self._calls[task_id] = plan
        try:
            if self._dead and (record := self._dead.get(plan.function)) is not None:
                # A call to an actor known to be dead fails without a trip.
                result = self._handles(plan, task_id)
                self._fail(task_id, plan, record)
                return result
            return self._submit(plan, args, kwargs, task_id)
        except Exception:
            self._calls.pop(task_id, None)
            raise

    def pending(self, actor_id: bytes) -> int:
        """Return how many calls of this process to the actor have not finished."""
        if self._flight.count:
            self._inbox.drain()
        return len(self._flight.calls_to(actor_id))

    def check_pending(self) -> None:
        """Fail the calls to actors that died where nobody could tell us (their node died with them)."""
        if self._lingering:
            # Nobody else asks for results without handles, and a completion can get lost.
            left = [task_id for task_id, plan in list(self._calls.items()) if plan.function in self._lingering]
            self._inbox.look_for([task_id + FIRST_INDEX for task_id in left[:LOOKED_FOR]])
        called = list(self._flight.busy_actors())
        if not called:
            return
        for actor_id, record in self._directory.find_dead(called).items():
            for task_id, plan in self._flight.calls_to(actor_id):
                self._fail(task_id, plan, record)
                self._expect_late()

    def _fail(self, task_id: bytes, plan: Call, record: bytes) -> None:
        """Fail one call here and, if no result stands, in the store."""
        items = failed_results(task_id, plan.header.num_returns, record)
        if items:
            store, keys = self._store, items[::2]
            store.when_room(lambda: store.commit(self._client, items, b"", require_owner=True))
            standing = store.fetch(keys)
            items = [
                each
                for key, stands in zip(keys, standing, strict=True)
                for each in (key, stands if stands is not None else record)
            ]
        self._inbox.make_known(items, tasks=1, ended=[task_id])
