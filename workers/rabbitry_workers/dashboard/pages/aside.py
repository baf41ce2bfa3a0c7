"""Messages that could not be read, with why."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.elements import Text
from rabbitry_workers.dashboard.filters import Filters
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.paging import part
from rabbitry_workers.dashboard.source import AsideRow, Query, Rows
from rabbitry_workers.dashboard.table import Cell, Column, LiveTable, query_of

COLUMNS: tuple[Column[AsideRow], ...] = (
    Column("number", "No.", lambda row: str(row.number + 1), right=True),
    Column("reason", "Reason", lambda row: Cell(row.reason, title=row.reason)),
    Column("size", "Size", lambda row: formats.size(row.size), right=True),
    Column("excerpt", "Begins with", lambda row: Cell(row.excerpt, title=row.excerpt), sorts=False),
)


def add(board: Board) -> None:
    """Register the page."""

    @ui.page("/put-aside", title="Put aside · rabbitry")
    async def put_aside(request: Request) -> None:
        with board.page(request, "Put aside", "/put-aside") as live:
            Text(
                "p",
                "Messages that were not signed with the secret of this cluster, or could not be read. They are kept, "
                "the last thousand of them, and never run.",
            ).classes("soft")
            query = query_of(request.query_params)
            filters = Filters(query, "reason")
            said = Text("p", "")

            async def load(query: Query) -> Rows[AsideRow]:
                found = await live.read(live.source.put_aside)
                said.show(f"{formats.count(found.total)} so far." if found.total else "")
                return part(found.rows, query, lambda row: (row.reason,))

            filters.table = LiveTable(
                live,
                COLUMNS,
                load,
                lambda row: str(row.number),
                query=query,
                empty="Nothing was put aside.",
                path="/put-aside",
            )
            await live.start()
