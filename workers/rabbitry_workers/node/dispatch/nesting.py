"""What runs next while tasks wait for others in `get` or `wait`.

A task that waits lends its CPU. If whatever stands first on the queue took it, that would mostly be one more of the
same kind, which waits in turn: a thousand parents would come to have a process each before the first child runs. So
while tasks wait here

1. what they wait for goes first: of the waiting tasks those whose owner is blocked here, of these the owner that
   blocked last, which takes a tree of tasks depth first;
2. of one function and one owner only so many tasks are under way (running or blocked) as the node could run at a time.

The second rule alone could deadlock: tasks may wait for others of their own kind, or for something else altogether. If
there is room that nobody may use (a *stall*), then

    stalled --more on the queue--> take more from it: what is waited for may stand behind it
    stalled for a while ---------> twice as many may be under way, and the while doubles as well

so that n processes come to run after a time that is linear in n, as if they had been started one after the other. All
that is kept here goes when nothing is blocked any more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Final, Protocol

from rabbitry_broker.messages import KIND_ACTOR_CREATION
from rabbitry_broker.resources import CPU, UNITS, ResourceRequest
from rabbitry_workers.node.model.lanes import Executor, Lane, LaneKey, Lanes, State
from rabbitry_workers.node.model.ledger import Ledger
from rabbitry_workers.node.model.ports import Serve
from rabbitry_workers.node.model.work import Piece

STALL_SECONDS: Final = 0.1

Kind = tuple[bytes, bytes]  # function, owner


class TakesMore(Protocol):
    """Takes more from queues, for the sake of what tasks wait for."""

    def take_more(self, resource_class: str) -> bool:
        """Take more of a class (in a bundle, if the lane is one); False if there is no more."""

    def forget_blocked(self) -> None:
        """Nothing is blocked any more."""


class Nesting:
    """Loop thread only.

    Args:
        lanes: in which tasks wait.
        executors: all that are alive, by the process's number.
        ledger: of the node's resources.
        sources: of more work.
        serve: gives a lane's tasks to executors.

    Attributes:
        blocked: clients in executors that wait, the latest last.
    """

    def __init__(
        self,
        lanes: Lanes,
        executors: Mapping[int, Executor],
        ledger: Ledger,
        sources: TakesMore,
        serve: Serve,
    ) -> None:
        self._lanes = lanes
        self._executors = executors
        self._ledger = ledger
        self._sources = sources
        self._serve = serve
        self.blocked: dict[bytes, int] = {}
        self._count = 0
        self._caps: dict[Kind, int] = {}
        self._stalled: dict[LaneKey, float] = {}  # lanes, and since when
        self._patience = STALL_SECONDS

    def begins(self, executor: Executor) -> None:
        """An executor waits."""
        self._count += 1
        self.blocked[executor.client_id] = self._count

    def ends(self, executor: Executor) -> None:
        """It waits no more, or is gone."""
        if self.blocked.pop(executor.client_id, None) is not None and not self.blocked:
            self._caps.clear()
            self._stalled.clear()
            self._patience = STALL_SECONDS
            self._sources.forget_blocked()

    def choose(self, lane: Lane) -> Piece | None:
        """Return the piece to serve next; None if none may be started now. HOT PATH while nothing is blocked."""
        if not self.blocked:
            return lane.first()
        best: Piece | None = None
        latest = 0
        under_way = self._under_way()
        for piece in lane.all_pieces():
            if best is not None and piece.header.priority < best.header.priority:
                break
            since = self.blocked.get(piece.header.owner, 0)
            if (best is None or since > latest) and self._allowed(lane, piece, under_way):
                best, latest = piece, since
        if best is None and lane.waiting:
            self._on_stall(lane)
        return best

    def startable(self, lane: Lane) -> int:
        """Return how many executors the lane can use now. HOT PATH while nothing is blocked."""
        if not self.blocked:
            return lane.waiting
        under_way = self._under_way()
        count = 0
        for piece in lane.all_pieces():
            allowed = min(len(piece.tasks), self._allowed(lane, piece, under_way))
            under_way[_kind(piece)] += allowed
            count += allowed
        return count

    def holds_back(self, lane: Lane) -> bool:
        """True if the lane stalls: there is room, and nothing of what waits may be started."""
        return bool(self.blocked) and lane.key in self._stalled

    def waits_for(self, lane: Lane) -> bool:
        """True if somebody who is blocked here waits for a task in this lane."""
        return any(piece.header.owner in self.blocked for piece in lane.all_pieces())

    def available(self) -> dict[str, float]:
        """Return what is free here of each resource."""
        return self._ledger.available()

    def for_others(self) -> dict[str, float]:
        """Return what is free here, but for what blocked tasks lend: that is for what they wait for, not for others."""
        free = self._ledger.available()
        if self.blocked and CPU in free:
            lent = sum(
                executor.grant.request.amount(CPU)
                for executor in self._executors.values()
                if executor.state is State.BLOCKED
                and executor.grant is not None
                and executor.grant.ledger is self._ledger
            )
            free[CPU] = max(0.0, free[CPU] - lent / UNITS)
        return free

    def totals(self) -> ResourceRequest:
        """Return what is here in all."""
        return self._ledger.totals

    def gpus(self) -> list[int]:
        """Return what is free here of each GPU, in units of 1/10000."""
        return self._ledger.free_gpu_shares()

    def run_once(self) -> None:
        """Let more run where room was of no use for long."""
        now = time.monotonic()
        for key, since in list(self._stalled.items()):
            lane = self._lanes.get(key)
            if lane is None or not lane.waiting or self.startable(lane) or not self._has_room(lane):
                del self._stalled[key]
                self._patience = STALL_SECONDS
            elif now - since > self._patience and not self._sources.take_more(key[0]):
                del self._stalled[key]
                self._patience *= 2
                for piece in lane.all_pieces():
                    kind = _kind(piece)
                    self._caps[kind] = max(self._caps.get(kind, 0), 2 * self._cap(lane, kind))
                self._serve(lane)

    def _on_stall(self, lane: Lane) -> None:
        if self._has_room(lane):
            self._stalled.setdefault(lane.key, time.monotonic())
            self._sources.take_more(lane.key[0])

    def _has_room(self, lane: Lane) -> bool:
        return lane.account.has_room(lane.request)

    def _under_way(self) -> Counter[Kind]:
        """Count the executors that run a task or are blocked in it, by its kind."""
        return Counter(
            [
                (executor.chunks[0].header.function, executor.chunks[0].header.owner)
                for executor in self._executors.values()
                if executor.chunks and executor.state is not State.ACTOR
            ]
        )

    def _allowed(self, lane: Lane, piece: Piece, under_way: Counter[Kind]) -> int:
        """Return how many more tasks of the piece's kind may be started; at most about as many as it has."""
        if piece.header.kind == KIND_ACTOR_CREATION:
            return len(piece.tasks)
        kind = _kind(piece)
        return max(0, self._cap(lane, kind) - under_way[kind])

    def _cap(self, lane: Lane, kind: Kind) -> int:
        return self._caps.get(kind) or max(1, lane.account.times(lane.request))


def _kind(piece: Piece) -> Kind:
    return piece.header.function, piece.header.owner
