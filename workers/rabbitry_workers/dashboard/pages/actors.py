"""Actors: the table, and the page of one."""

from __future__ import annotations

from fastapi import Request
from nicegui import html, ui

from rabbitry_workers.dashboard import actions, formats
from rabbitry_workers.dashboard.elements import Region, Text, badge, facts
from rabbitry_workers.dashboard.filters import Filters
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.live import Live
from rabbitry_workers.dashboard.pages.logs import log_address
from rabbitry_workers.dashboard.pages.tasks import task_table
from rabbitry_workers.dashboard.pages.tones import tone
from rabbitry_workers.dashboard.paging import part
from rabbitry_workers.dashboard.source import ActorRow, Missing, Query, Rows
from rabbitry_workers.dashboard.table import PAGE_ROWS, Cell, Column, LiveTable, query_of

STATES = tuple((state, state) for state in ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD"))

COLUMNS: tuple[Column[ActorRow], ...] = (
    Column("class_name", "Class", lambda actor: Cell(actor.class_name, link=f"/actors/{actor.id}")),
    Column("name", "Name", lambda actor: actor.name),
    Column("state", "State", lambda actor: Cell(actor.state, tone=tone(actor.state), title=actor.death)),
    Column("restarts", "Restarts", lambda actor: str(actor.restarts), right=True),
    Column(
        "node",
        "Node",
        lambda actor: Cell(
            formats.short(actor.node), link=f"/nodes/{actor.node}" if actor.node else "", title=actor.node
        ),
    ),
    Column("pid", "Process", lambda actor: str(actor.pid or ""), right=True),
    Column("job", "Job", lambda actor: Cell(formats.short(actor.job), title=actor.job)),
    Column("id", "Id", lambda actor: Cell(formats.short(actor.id), title=actor.id), sorts=False),
)


def _texts(actor: ActorRow) -> tuple[str, ...]:
    return actor.class_name, actor.name, actor.id


def actor_table(live: Live, query: Query, *, path: str = "") -> None:
    """Add a table of actors with filters."""
    filters = Filters(query, "class, name or id", STATES)

    async def load(query: Query) -> Rows[ActorRow]:
        return part(await live.read(live.source.actors), query, _texts)

    filters.table = LiveTable(
        live, COLUMNS, load, lambda actor: actor.id, query=query, empty="No such actors.", path=path
    )


def add(board: Board) -> None:
    """Register the pages."""

    @ui.page("/actors", title="Actors · rabbitry")
    async def actors(request: Request) -> None:
        with board.page(request, "Actors", "/actors") as live:
            actor_table(live, query_of(request.query_params), path="/actors")
            await live.start()

    @ui.page("/actors/{actor_id}", title="Actor · rabbitry")
    async def actor(request: Request, actor_id: str) -> None:
        with board.page(request, "Actors", "/actors", one=True) as live:
            shown = Region(lambda row: _detail(live, row))

            async def refresh() -> None:
                found = [row for row in await live.read(live.source.actors) if row.id == actor_id]
                if not found:
                    raise Missing("There is no such actor, or it ended more than an hour ago.")
                shown.show(found[0])

            live.add(refresh)
            Text("h2", "Calls")
            task_table(live, Query(actor=actor_id, limit=PAGE_ROWS))
            await live.start()


def _detail(live: Live, actor: ActorRow) -> None:
    with html.div().classes("head"):
        Text("h1", actor.class_name)
        badge(actor.state, tone(actor.state))
        with html.div().classes("tools"):
            if actor.state != "DEAD":
                actions.kill_button(live, actor)
            if actor.pid and actor.node and actor.state == "ALIVE":
                html.button("Stack", type="button").classes("small").on(
                    "click", lambda: actions.show_stack(live, actor.node, actor.pid or 0, actor.class_name)
                )
    if actor.waits_for:
        Text("div", f"It waits: {actor.waits_for}").classes("note")
    with html.div().classes("card"):
        facts(
            [
                ("Id", actor.id),
                ("Name", f"{actor.name} (namespace {actor.namespace})" if actor.name else ""),
                ("Job", (actor.job, f"/tasks?job={actor.job}") if actor.job else ""),
                ("Node", (actor.node, f"/nodes/{actor.node}") if actor.node else ""),
                ("Process", str(actor.pid or "")),
                ("Restarts", str(actor.restarts)),
                ("Outlives its job", "yes" if actor.detached else "no"),
                ("State is kept", "yes" if actor.durable else "no"),
                ("Takes", formats.amounts(actor.resources)),
                ("Printed", ("its log", log_address(*actor.log)) if actor.log else ""),
            ]
        )
    if actor.death:
        Text("h2", "Why it ended")
        Text("pre", actor.death).classes("box")
