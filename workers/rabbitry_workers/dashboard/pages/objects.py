"""Objects: the largest ones."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.elements import Text
from rabbitry_workers.dashboard.filters import Filters
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.paging import part
from rabbitry_workers.dashboard.source import ObjectRow, Query, Rows
from rabbitry_workers.dashboard.table import Cell, Column, LiveTable, query_of

COLUMNS: tuple[Column[ObjectRow], ...] = (
    Column("id", "Id", lambda row: Cell(formats.short_of_many(row.id), title=row.id), sorts=False),
    Column(
        "size", "Size", lambda row: Cell(formats.size(row.size), title=f"{formats.count(row.size)} bytes"), right=True
    ),
    Column("kind", "Kind", lambda row: row.kind),
    Column("place", "Lies in", lambda row: row.place),
    Column("holders", "Holders", lambda row: str(row.holders or ""), right=True),
    Column("owner", "Owner", lambda row: Cell(formats.short(row.owner), title=row.owner)),
    Column(
        "task",
        "Made by",
        lambda row: Cell(
            formats.short_of_many(row.task), link=f"/tasks/{row.task}" if row.task else "", title=row.task
        ),
    ),
)


def add(board: Board) -> None:
    """Register the page."""

    @ui.page("/objects", title="Objects · rabbitry")
    async def objects(request: Request) -> None:
        with board.page(request, "Objects", "/objects") as live:
            query = query_of(request.query_params)
            filters = Filters(query, "id, kind or place")
            said = Text("p", "")
            said.classes("soft")

            async def load(query: Query) -> Rows[ObjectRow]:
                found = await live.read(live.source.objects)
                said.show(_how_many(found))
                return part(found.rows, query, lambda row: (row.id, row.kind, row.place, row.owner))

            filters.table = LiveTable(
                live, COLUMNS, load, lambda row: row.id, query=query, empty="No objects.", path="/objects"
            )
            await live.start()


def _how_many(found: Rows[ObjectRow]) -> str:
    if found.total == len(found.rows):
        return ""
    return f"The {formats.count(len(found.rows))} largest of {formats.count(found.total)} objects."
