"""Tasks: the table, and the page of one."""

from __future__ import annotations

import time

from fastapi import Request
from nicegui import html, ui

from rabbitry_workers.dashboard import actions, formats
from rabbitry_workers.dashboard.elements import Region, Text, badge, facts, link
from rabbitry_workers.dashboard.filters import Filters
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.live import Live
from rabbitry_workers.dashboard.pages.logs import log_address
from rabbitry_workers.dashboard.source import GROUPS, RUNNING, WAITING, Query, TaskDetail, TaskRow
from rabbitry_workers.dashboard.table import Cell, Column, LiveTable, query_of

STATES = (
    *((group, group.capitalize()) for group in GROUPS),
    ("PENDING_ARGS_AVAIL", "waits for arguments"),
    ("PENDING_NODE_ASSIGNMENT", "in a queue"),
    ("PENDING_ACTOR_TASK_ARGS_FETCH", "waits for arguments, on an actor"),
    ("PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY", "waits for its turn on an actor"),
    ("SUBMITTED_TO_WORKER", "on a node"),
    ("RUNNING_IN_RAY_GET", "waits in get"),
    ("RUNNING_IN_RAY_WAIT", "waits in wait"),
)


def took(task: TaskRow) -> float | None:
    """Return how long a task has run so far, or ran."""
    if task.started is None:
        return None
    return (task.ended or time.time()) - task.started


def _state(task: TaskRow) -> Cell:
    return Cell(task.error or task.state, tone=task.group, title=task.state)


COLUMNS: tuple[Column[TaskRow], ...] = (
    Column("name", "Name", lambda task: Cell(task.name, link=f"/tasks/{task.id}", title=task.name)),
    Column("state", "State", _state),
    Column("created", "Submitted", lambda task: Cell(formats.ago(task.created), title=formats.moment(task.created))),
    Column("started", "Runs for", lambda task: formats.duration(took(task)), right=True),
    Column("attempt", "Attempt", lambda task: str(task.attempt + 1), right=True),
    Column(
        "node",
        "Node",
        lambda task: Cell(formats.short(task.node), link=f"/nodes/{task.node}" if task.node else "", title=task.node),
    ),
    Column("pid", "Process", lambda task: str(task.pid or ""), right=True),
    Column(
        "job",
        "Job",
        lambda task: Cell(formats.short(task.job), link=f"/tasks?job={task.job}" if task.job else "", title=task.job),
    ),
    Column("id", "Id", lambda task: Cell(formats.short_of_many(task.id), title=task.id), sorts=False),
)


def task_table(live: Live, query: Query, *, path: str = "") -> LiveTable[TaskRow]:
    """Add a table of tasks with filters."""
    filters = Filters(query, "name or id", STATES)

    async def load(query: Query) -> object:
        return await live.read(live.source.tasks, query)

    filters.table = LiveTable(
        live,
        COLUMNS,
        load,  # type: ignore[arg-type]
        lambda task: f"{task.id}-{task.attempt}",
        query=query,
        empty="No such tasks.",
        path=path,
    )
    return filters.table


def add(board: Board) -> None:
    """Register the pages."""

    @ui.page("/tasks", title="Tasks · rabbitry")
    async def tasks(request: Request) -> None:
        with board.page(request, "Tasks", "/tasks") as live:
            task_table(live, query_of(request.query_params), path="/tasks")
            await live.start()

    @ui.page("/tasks/{task_id}", title="Task · rabbitry")
    async def task(request: Request, task_id: str) -> None:
        with board.page(request, "Tasks", "/tasks", one=True) as live:
            shown = Region(lambda detail: _detail(live, detail))

            async def refresh() -> None:
                shown.show(await live.read(live.source.task, task_id))

            live.add(refresh)
            await live.start()


def _detail(live: Live, detail: TaskDetail) -> None:
    task = detail.row
    with html.div().classes("head"):
        Text("h1", task.name)
        badge(task.error or task.state, task.group)
        with html.div().classes("tools"):
            if task.group in (WAITING, RUNNING):
                actions.cancel_button(live, task)
            if task.group == RUNNING and task.node and task.pid:
                html.button("Stack", type="button").classes("small").on(
                    "click", lambda: actions.show_stack(live, task.node, task.pid or 0, task.name)
                )
    if detail.waits_for:
        Text("div", f"It waits: {detail.waits_for}").classes("note")
    with html.div().classes("two"):
        with html.div().classes("card"):
            Text("h2", "Facts")
            facts(
                [
                    ("Id", task.id),
                    ("State", task.state),
                    ("Kind", task.kind),
                    ("Attempt", str(task.attempt + 1)),
                    ("Job", (task.job, f"/tasks?job={task.job}") if task.job else ""),
                    ("Actor", (task.actor, f"/actors/{task.actor}") if task.actor else ""),
                    ("Node", (task.node, f"/nodes/{task.node}") if task.node else ""),
                    ("Process", str(task.pid or "")),
                    ("Worker", task.worker),
                    ("Takes", formats.amounts(detail.resources)),
                    ("Log", ("what it printed", log_address(*detail.log, task.id)) if detail.log else ""),
                    *detail.facts.items(),
                ]
            )
        with html.div().classes("card"):
            Text("h2", "States")
            facts(
                [(formats.moment(when), lambda state=state: Text("span", state)) for state, when in detail.states],
                "states",
            )
            if task.ended and task.started:
                Text("p", f"It ran for {formats.duration(took(task))}.").classes("soft")
    if detail.message:
        Text("h2", "Error")
        Text("pre", detail.message).classes("box")
    Text("h2", "Submitted by")
    if detail.parent is None:
        Text("div", "its driver, or a task that is not remembered").classes("soft")
    else:
        _relative(detail.parent)
    if detail.children_total:
        Text("h2", f"Has submitted {formats.count(detail.children_total)}")
        for child in detail.children:
            _relative(child)
        if detail.children_total > len(detail.children):
            Text("div", f"and {formats.count(detail.children_total - len(detail.children))} more").classes("soft")


def _relative(task: TaskRow) -> None:
    with html.div():
        link(task.name, f"/tasks/{task.id}", title=task.id)
        Text("span", " ")
        badge(task.error or task.state, task.group)
