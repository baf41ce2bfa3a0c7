"""Logs: the files of all nodes, and one of them, followed."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlencode

from fastapi import Request
from nicegui import html, ui

from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.elements import Text, link
from rabbitry_workers.dashboard.filters import Filters
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.paging import part
from rabbitry_workers.dashboard.source import LogFile, Query, Rows
from rabbitry_workers.dashboard.table import Cell, Column, LiveTable, query_of

LINES: Final = 2000
"""Shown of a log; the older ones go as newer ones come."""
OF_JOBS: Final = "job"
"""Stands for the node of the logs of submitted jobs, whose names are the jobs'."""
PARTS: Final = 8
"""Of a log that grows fast, so many pieces are read each second."""
_TO_THE_END: Final = "for (const log of document.querySelectorAll('.nicegui-log')) log.scrollTop = log.scrollHeight"

COLUMNS: tuple[Column[LogFile], ...] = (
    Column("name", "File", lambda file: Cell(file.name, link=log_address(file.node, file.name), title=file.name)),
    Column("place", "Node", lambda file: Cell(_place(file), link=f"/nodes/{file.node}", title=file.node)),
    Column("kind", "Of", lambda file: file.kind),
)


def log_address(node: str, name: str, task: str = "") -> str:
    """Return the address of the page of a log, or of what a task printed there.

    Example:
        >>> log_address("ab12", "worker-1.out")
        '/logs/file?node=ab12&name=worker-1.out'
    """
    return f"/logs/file?{urlencode({'node': node, 'name': name} | ({'task': task} if task else {}))}"


def _place(file: LogFile) -> str:
    return file.place or formats.short(file.node)


def add(board: Board) -> None:
    """Register the pages."""

    @ui.page("/logs", title="Logs · rabbitry")
    async def logs(request: Request) -> None:
        with board.page(request, "Logs", "/logs") as live:
            query = query_of(request.query_params)
            filters = Filters(query, "file")

            async def load(query: Query) -> Rows[LogFile]:
                return part(await live.read(live.source.logs), query, lambda file: (file.name,))

            filters.table = LiveTable(
                live,
                COLUMNS,
                load,
                lambda file: f"{file.node} {file.name}",
                query=query,
                empty="No logs.",
                path="/logs",
            )
            await live.start()

    @ui.page("/logs/file", title="Log · rabbitry")
    async def log(request: Request, node: str = "", name: str = "", task: str = "") -> None:
        with board.page(request, name or "Log", "/logs") as live:
            with html.p().classes("soft"):
                where = "Of a job" if node == OF_JOBS else f"On node {formats.short(node)}"
                Text("span", f"{where}, followed as it grows.")
                if task:
                    Text("span", f" Only what task {formats.short_of_many(task)} printed: ")
                    link("show all", log_address(node, name))
            shown = ui.log(max_lines=LINES).props('tabindex="0" aria-label="log"')
            position: object = None
            over = False

            async def follow() -> None:
                nonlocal position, over
                for _ in range(0 if over else PARTS):
                    part = await asyncio.to_thread(live.source.read_log, node, name, task, position, LINES)
                    position, over = part.position, part.over
                    if part.text:
                        shown.push(part.text)
                    if part.ended:
                        return

            live.add(follow)
            ui.context.client.on_connect(lambda: ui.run_javascript(_TO_THE_END))
            await live.start()
