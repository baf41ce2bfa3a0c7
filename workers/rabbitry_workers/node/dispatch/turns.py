"""Whose turn it is: a node that several jobs use serves them by their shares.

Start-time fair queueing, with jobs as flows: what a job has used (seconds of its tasks, times their CPUs, divided by
its share) is its *time*; the job whose time is the earliest comes next. A task counts when it begins, by what its
function is known to take, and is corrected when it ends. One that comes back begins at the time of the task that
began last, so nobody saves up turns while away, and whoever comes with little to do is served at once.

Priorities come before that. Of one job's lanes the one that was not served for longest is next; a lane gives way to
it after `LANE_SECONDS`, since a lease that stays costs least.

A node with one job keeps no times: HOT PATH, `Completions.on_done` asks `is_shared` for each chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rabbitry_broker.resources import CPU, UNITS
from rabbitry_workers.node.model.lanes import Lane, Lanes
from rabbitry_workers.node.model.work import Chunk

LANE_SECONDS: Final = 0.05
UNKNOWN_SECONDS: Final = 0.05  # that a task is taken to run whose function has not run here yet
SMALLEST_COST: Final = 0.1  # CPUs, of tasks that ask for less


class Turns:
    """Loop thread only.

    Args:
        lanes: in which tasks wait.
        share: returns a job's share.
        keeps_room: True for a lane whose room is kept for somebody.
    """

    def __init__(
        self,
        lanes: Lanes,
        share: Callable[[bytes], float],
        keeps_room: Callable[[Lane], bool] = lambda lane: False,
    ) -> None:
        self._lanes = lanes
        self._keeps_room = keeps_room
        self._share = share
        self._times: dict[bytes, float] = {}
        self._now = 0.0

    @property
    def is_shared(self) -> bool:
        """True if there is work of several jobs here."""
        return len(self._lanes.jobs) > 1

    def began(self, lane: Lane, chunk: Chunk, mean: float | None) -> None:
        """Tasks of a lane were handed out; they take `mean` seconds each, as far as is known."""
        if not self.is_shared:
            return
        job = lane.key[1]
        self._now = start = self.time_of(job)
        chunk.charged = UNKNOWN_SECONDS if mean is None else mean
        self._set(job, start + self._cost(lane, chunk.charged * len(chunk.tasks)))

    def ended(self, lane: Lane, chunk: Chunk, count: int, seconds: float) -> None:
        """So many tasks of a chunk have ended, after so many seconds together."""
        if self.is_shared:
            job = lane.key[1]
            self._set(job, self._times.get(job, self._now) + self._cost(lane, seconds - chunk.charged * count))

    def time_of(self, job: bytes) -> float:
        """Return the time of a job's next task."""
        time = self._times.get(job, self._now)
        return time if time > self._now else self._now

    def gives_way(self, lane: Lane) -> bool:
        """True if the next turn is another lane's, or room is kept for somebody. HOT PATH while one lane waits."""
        ready = self._lanes.ready
        if len(ready) > 1 and any(self._is_before(other, lane) for other in ready):
            return True
        return self._keeps_room(lane)

    def in_turn(self, lanes: list[Lane], goes_first: Callable[[Lane], bool] | None) -> list[Lane]:
        """Return lanes in which something waits in the order of their turns.

        Args:
            lanes: as they stand in `Lanes.ready`, so that those of one job and priority are in order already.
            goes_first: True for those that go first of their job; None if there are none.
        """
        priorities = [max(lane.pieces, default=0) for lane in lanes]
        if not goes_first and not any(priorities) and not self.is_shared:
            return lanes
        keys = [
            (-priority, self.time_of(lane.key[1]), not (goes_first and goes_first(lane)), at)
            for at, (priority, lane) in enumerate(zip(priorities, lanes, strict=True))
        ]
        return [lanes[key[-1]] for key in sorted(keys)]

    def _is_before(self, other: Lane, lane: Lane) -> bool:
        if other.account is not lane.account or other is lane:
            return False
        first, second = max(other.pieces, default=0), max(lane.pieces, default=0)
        if first != second:
            return first > second
        job, other_job = lane.key[1], other.key[1]
        if job == other_job:
            return other.waiting_since < lane.waiting_since - LANE_SECONDS
        return self.time_of(other_job) < self.time_of(job)

    def _cost(self, lane: Lane, seconds: float) -> float:
        cpus = lane.request.amount(CPU) / UNITS
        return seconds * max(cpus, SMALLEST_COST) / self._share(lane.key[1])

    def _set(self, job: bytes, time: float) -> None:
        times = self._times
        times[job] = time
        jobs = self._lanes.jobs
        if len(times) > 2 * len(jobs):
            self._times = {each: times[each] for each in times if each in jobs}
