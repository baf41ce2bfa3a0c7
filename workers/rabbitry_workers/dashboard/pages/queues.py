"""Queues, and the figures of the server that has them."""

from __future__ import annotations

from fastapi import Request
from nicegui import html, ui

from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.elements import Region, Text, facts
from rabbitry_workers.dashboard.filters import Filters
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.paging import part
from rabbitry_workers.dashboard.source import Query, QueueRow, Rows
from rabbitry_workers.dashboard.table import Cell, Column, LiveTable, query_of


def _rate(number: float | None) -> str:
    return "" if number is None else f"{number:,.1f}/s"


COLUMNS: tuple[Column[QueueRow], ...] = (
    Column("name", "Queue", lambda queue: Cell(queue.name, title=queue.name)),
    Column("kind", "Of", lambda queue: queue.kind),
    Column("tasks", "Tasks waiting", lambda queue: formats.count(queue.tasks), right=True),
    Column("messages", "Messages", lambda queue: formats.count(queue.messages), right=True),
    Column("unacknowledged", "Unsettled", lambda queue: formats.count(queue.unacknowledged), right=True),
    Column("into", "In", lambda queue: _rate(queue.into), right=True),
    Column("out", "Out", lambda queue: _rate(queue.out), right=True),
    Column("consumers", "Consumers", lambda queue: Cell(formats.count(queue.consumers), title=queue.by), right=True),
    Column("by", "Who", lambda queue: Cell(queue.by, title=queue.by)),
)


def add(board: Board) -> None:
    """Register the page."""

    @ui.page("/queues", title="Queues · rabbitry")
    async def queues(request: Request) -> None:
        with board.page(request, "Queues", "/queues") as live:
            query = query_of(request.query_params)
            if not query.sort and "sort" not in request.query_params:
                query = Query(text=query.text, sort="messages", descending=True, limit=query.limit)
            server = Region(_server)
            filters = Filters(query, "name")
            note = Text("p", "")
            note.classes("soft")

            async def load(query: Query) -> Rows[QueueRow]:
                found = await live.read(live.source.queues)
                server.show(list(found.server.items()))
                note.show(found.note)
                return part(found.rows, query, lambda queue: (queue.name, queue.kind, queue.by))

            filters.table = LiveTable(
                live, COLUMNS, load, lambda queue: queue.name, query=query, empty="No queues.", path="/queues"
            )
            await live.start()


def _server(rows: list[tuple[str, str]]) -> None:
    if rows:
        with html.div().classes("card").style("margin-bottom:12px"):
            facts(rows)
