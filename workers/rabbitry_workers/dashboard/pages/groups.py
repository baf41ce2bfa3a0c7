"""Placement groups."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.filters import Filters
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.pages.tones import tone
from rabbitry_workers.dashboard.paging import part
from rabbitry_workers.dashboard.source import GroupRow, Query, Rows
from rabbitry_workers.dashboard.table import Cell, Column, LiveTable, query_of

STATES = tuple((state, state) for state in ("PENDING", "CREATED", "RESCHEDULING", "REMOVED"))


def _bundles(group: GroupRow) -> str:
    return " | ".join(
        formats.amounts(takes) + (f" on {formats.short(node)}" if node else " nowhere yet")
        for takes, node in group.bundles
    )


COLUMNS: tuple[Column[GroupRow], ...] = (
    Column("id", "Id", lambda group: Cell(formats.short(group.id), title=group.id), sorts=False),
    Column("name", "Name", lambda group: group.name),
    Column("state", "State", lambda group: Cell(group.state, tone=tone(group.state))),
    Column("strategy", "Strategy", lambda group: group.strategy),
    Column("bundles", "Bundles", lambda group: Cell(_bundles(group), title=_bundles(group))),
    Column("waits_for", "Lacks", lambda group: Cell(group.waits_for, title=group.waits_for)),
    Column("job", "Job", lambda group: Cell(formats.short(group.job), title=group.job)),
)


def add(board: Board) -> None:
    """Register the page."""

    @ui.page("/groups", title="Placement groups · rabbitry")
    async def groups(request: Request) -> None:
        with board.page(request, "Placement groups", "/groups") as live:
            query = query_of(request.query_params)
            filters = Filters(query, "name or id", STATES)

            async def load(query: Query) -> Rows[GroupRow]:
                rows = await live.read(live.source.placement_groups)
                return part(rows, query, lambda group: (group.name, group.id))

            filters.table = LiveTable(
                live, COLUMNS, load, lambda group: group.id, query=query, empty="No placement groups.", path="/groups"
            )
            await live.start()
