"""Serve's router goes on where it finds room."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

from rabbitry.ray_alias.adapters.serve_router import amend


class Router:
    """As far as Serve has it: gives what room there is to the first that waits, and pauses before each further one."""

    def __init__(self, room: list[int]) -> None:
        self.room = room
        self.paused: list[int] = []
        self._pending_requests_to_fulfill = list(range(sum(room)))

    async def _select_from_candidate_replicas(self, candidates: Any, backoff_index: int) -> str | None:
        if not self.room[0]:
            return None
        self.room[0] -= 1
        return "replica"

    async def _backoff(self, attempt: int) -> None:
        self.paused.append(attempt)
        self.room.pop(0)

    async def route(self) -> None:
        attempt = 0
        while self._pending_requests_to_fulfill:
            if await self._select_from_candidate_replicas([], attempt) is not None:
                del self._pending_requests_to_fulfill[0]
            if self._pending_requests_to_fulfill:
                await self._backoff(attempt)
                attempt += 1


def routed(room: list[int], times: int = 1) -> list[int]:
    module = ModuleType("request_router")
    kind: Any = type("RequestRouter", (Router,), dict(vars(Router)))
    module.RequestRouter = kind  # type: ignore[attr-defined]
    amend(module)
    router = kind(room)

    async def route() -> None:
        for _ in range(times):
            await router.route()

    asyncio.run(route())
    return router.paused  # type: ignore[no-any-return]


def test_it_pauses_only_where_there_was_no_room() -> None:
    assert routed([200]) == []
    assert routed([0, 0, 3, 0, 2]) == [0, 1, 0, 1], "and pauses are short again after one that found room"


def test_tasks_do_not_share_what_they_found() -> None:
    module = ModuleType("request_router")
    module.RequestRouter = type("RequestRouter", (Router,), dict(vars(Router)))  # type: ignore[attr-defined]
    amend(module)
    router = module.RequestRouter([1, 0, 0])

    async def both() -> None:
        async def finds() -> None:
            assert await router._select_from_candidate_replicas([], 0) == "replica"

        await asyncio.create_task(finds())
        assert await router._select_from_candidate_replicas([], 0) is None
        await router._backoff(0)

    asyncio.run(both())
    assert router.paused == [0]


def test_a_router_that_is_made_otherwise_is_left_alone() -> None:
    module = ModuleType("request_router")
    amend(module)
    module.RequestRouter = type("RequestRouter", (), {})  # type: ignore[attr-defined]
    amend(module)
    assert not hasattr(module.RequestRouter, "_backoff")
