"""What this client has submitted and what has not ended, as far as it knows.

HOT PATH: the outbox counts under `lock` what it takes, in the same breath.
"""

from __future__ import annotations

import threading

from rabbitry.core.ports import Call
from rabbitry_broker.events import Recorder


class Flight:
    """Tasks in flight. Any thread may call anything.

    Args:
        events: notes which tasks have submitted which.

    Attributes:
        lock: held while `count`, `children` and what waits to be sent change.
        count: tasks accepted whose end is not known.
        returns: how many results a task has, if several and until one of them comes.
        calls: the plans of calls to actors whose results have not come, by task id. Taken out by single steps that no
            lock is needed for: when its result comes, or it fails.
        children: what each task that runs here has submitted, until it ends (its executor takes it out).
    """

    def __init__(self, events: Recorder | None = None) -> None:
        self._child = events.child if events is not None and events.on else None
        self.lock = threading.RLock()  # a `__del__` of the user's may submit something while we hold it
        self.count = 0
        self.returns: dict[bytes, int] = {}
        self.calls: dict[bytes, Call] = {}
        self.children: dict[bytes, list[bytes]] = {}

    def ended(self, count: int | None) -> None:
        """So many tasks have ended, by any way; None for all."""
        with self.lock:
            # A task that ran twice is told of twice.
            self.count = 0 if count is None else max(0, self.count - count)

    def submitted_by(self, parent: bytes, task_id: bytes) -> None:
        """A task that runs here has submitted another one."""
        with self.lock:
            self.children.setdefault(parent, []).append(task_id)
            if self._child is not None:
                self._child(parent, task_id)

    def take_children(self, parent: bytes) -> list[bytes]:
        """Return what a task has submitted, and forget it."""
        with self.lock:
            return self.children.pop(parent, [])

    def results_of(self, task_id: bytes, guess: int) -> int:
        """Return how many results a task has, as in its header; `guess` if this client does not know."""
        call = self.calls.get(task_id)
        return self.returns.get(task_id, guess) if call is None else call.header.num_returns

    def calls_to(self, actor_id: bytes) -> list[tuple[bytes, Call]]:
        """Return the calls to an actor that have not ended, with their ids."""
        return [(task_id, call) for task_id, call in list(self.calls.items()) if call.function == actor_id]

    def busy_actors(self) -> set[bytes]:
        """Return the actors with calls that have not ended."""
        return {call.function for call in list(self.calls.values())}

    def forget(self, task_id: bytes) -> None:
        """A task was not accepted after all."""
        self.returns.pop(task_id, None)
