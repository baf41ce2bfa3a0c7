"""Serve's router pauses when no replica has room, and not when it has just found one.

Seen with Ray 2.60: a replica refuses what is beyond its `max_ongoing_requests`, and refused requests wait to be routed
again. A routing task of `RequestRouter` that finds room gives it to the request that waits for longest, mostly not to
the one it was started for; it goes on, and before each further one it pauses as if it had found none, up to 0.5 s each
time. With some 200 refused requests that takes most of a minute, on Ray as well where as many are under way at once.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary


def amend(module: ModuleType) -> None:
    """Have the routers of `ray.serve._private.request_router.request_router` go on where they find room.

    Nothing changes if its router is not made like that of Ray 2.60.
    """
    router = getattr(module, "RequestRouter", None)
    select, pause = getattr(router, "_select_from_candidate_replicas", None), getattr(router, "_backoff", None)
    if router is None or select is None or pause is None:
        return
    router._rabbitry_select, router._rabbitry_pause = select, pause
    router._select_from_candidate_replicas, router._backoff = _select, _pause


class _Task:
    """A routing task: whether it found room when it looked last, and how often in a row it did not."""

    def __init__(self) -> None:
        self.found = False
        self.in_vain = 0


def _task_of(router: Any) -> _Task:
    known: WeakKeyDictionary[Any, _Task] | None = getattr(router, "_rabbitry_tasks", None)
    if known is None:
        known = router._rabbitry_tasks = WeakKeyDictionary()
    return known.setdefault(asyncio.current_task(), _Task())


async def _select(self: Any, candidates: Any, *args: Any, **kwargs: Any) -> Any:
    chosen = await self._rabbitry_select(candidates, *args, **kwargs)
    _task_of(self).found = chosen is not None
    return chosen


async def _pause(self: Any, attempt: int) -> None:
    """Called with the number of pauses for one request so far."""
    task = _task_of(self)
    if attempt == 0:
        task.in_vain = 0
    if task.found and self._pending_requests_to_fulfill:
        task.in_vain = 0
        await asyncio.sleep(0)
        return
    in_vain, task.in_vain = task.in_vain, task.in_vain + 1
    await self._rabbitry_pause(in_vain)
