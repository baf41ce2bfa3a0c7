"""What waits on a node and how long nothing has happened there, for those who start and stop nodes."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from rabbitry_broker import queue_names as names
from rabbitry_workers.node.model.lanes import Executor, Lanes, State
from rabbitry_workers.node.model.work import Piece

KINDS_SHOWN: Final = 100  # of what waits, in a node's record
SHARE_SECONDS: Final = 1.0  # quick tasks that take so long together count as one: they keep no node for themselves
_QUIET: Final = (State.STARTING, State.IDLE)


class Waiting:
    """Loop thread only.

    Args:
        lanes: in which tasks wait.
        executors: all that are alive, by the process's number.
        means: of run times, by function.
    """

    def __init__(self, lanes: Lanes, executors: Mapping[int, Executor], means: Mapping[bytes, float]) -> None:
        self._lanes = lanes
        self._executors = executors
        self._means = means
        self._quiet_since = time.monotonic()

    def work(self) -> list[tuple[str, str, int]]:
        """Return (resource class, label selector, count) of the tasks that wait here and that other nodes could run."""
        counts: Counter[tuple[str, str]] = Counter()
        for lane in self._lanes.values():
            if not lane.waiting or lane.bundle:  # what is in a bundle has its room, or waits for it there
                continue
            for piece in lane.all_pieces():
                selector = _selector(piece)
                if selector is not None:
                    mean = self._means.get(piece.header.function, SHARE_SECONDS)
                    share = math.ceil(len(piece.tasks) * min(1.0, mean / SHARE_SECONDS))
                    counts[lane.request.class_name, selector] += share
        return [(*kind, count) for kind, count in counts.most_common(KINDS_SHOWN)]

    def idle_seconds(self) -> float:
        """Return for how long the node has had nothing: no task, no actor, no process that others live by."""
        busy = any(lane.waiting for lane in self._lanes.values()) or any(
            executor.state not in _QUIET or executor.chunks or executor.lingering
            for executor in self._executors.values()
        )
        if busy:
            self._quiet_since = time.monotonic()
        return time.monotonic() - self._quiet_since


def _selector(piece: Piece) -> str | None:
    """Return which labels a node must have that could run it; None if only this one may."""
    source = piece.held.source
    if source is None or source.request is not None:
        return "" if source is None else source.place.selector
    return names.parse(piece.header.elsewhere).selector if piece.header.elsewhere else None
