"""The ends of actors without handles.

An actor lives as long as a handle on its creation object does: a strong handle holds that object's ref, so all counting
of refs counts handles too. When the last one goes, the actor is told to end after what was sent. As in Ray, calls keep
their actor alive until they end: one that is told while a call waits for an argument, or for its next try, would not
live to run it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rabbitry.core.actors.calls import ActorCalls
from rabbitry.core.actors.creating import creation_pin
from rabbitry.core.flight import Flight
from rabbitry.core.submit.plan import Plan
from rabbitry.core.submit.plans import Plans
from rabbitry_broker.ids import TaskIds
from rabbitry_broker.messages import Task


class ActorEnds:
    """Tells actors to end. Any thread may call anything, under no lock.

    Args:
        ids: of tasks.
        flight: knows the calls that have not ended.
        plans: makes the plan of the last call.
        calls: has the lines that it goes by.
        dead: error records of actors known to be dead.
        add_call: sends a call.
        unpin: lets go of what was pinned under a name.
        ending: actors whose last handle went, and that were not told yet (shared with what notes them, under locks).
        lingering: those among them that calls of ours keep alive until they end (shared with what looks after calls).
    """

    def __init__(
        self,
        ids: TaskIds,
        flight: Flight,
        plans: Plans,
        calls: ActorCalls,
        *,
        dead: dict[bytes, bytes],
        add_call: Callable[[Plan, Task], None],
        unpin: Callable[[bytes], None],
        ending: deque[bytes],
        lingering: set[bytes],
    ) -> None:
        self._ids = ids
        self._flight = flight
        self._plans = plans
        self._calls = calls
        self._dead = dead
        self._add_call = add_call
        self._unpin = unpin
        self.ending = ending
        self.lingering = lingering

    def send(self) -> None:
        """Tell the actors without handles to end, but for those that calls keep alive."""
        busy = self._flight.busy_actors()
        while self.ending:
            try:
                actor_id = self.ending.popleft()
            except IndexError:
                return  # another thread was faster
            if actor_id in busy:
                self.lingering.add(actor_id)
                continue
            try:
                self._send_end(actor_id)
            except BaseException:
                self.ending.appendleft(actor_id)
                raise

    def send_lingering(self) -> None:
        """Tell those to end whose calls have ended since. For the service thread."""
        for actor_id in self.lingering - self._flight.busy_actors():
            self.lingering.discard(actor_id)
            self.ending.append(actor_id)
        if self.ending:
            self.send()

    def _send_end(self, actor_id: bytes) -> None:
        plan = self._plans.end(actor_id, self._calls.line(actor_id))
        self._add_call(plan, (self._ids.next(), b"", 0, [], {}, 0))
        self._unpin(creation_pin(actor_id))
        self._calls.lines.pop(actor_id, None)
        self._dead.pop(actor_id, None)
