"""Nodes: the table, and the page of one with what it runs."""

from __future__ import annotations

import time

from fastapi import Request
from nicegui import html, ui

from rabbitry_workers.dashboard import actions, formats
from rabbitry_workers.dashboard.elements import Region, Text, badge, facts, meter
from rabbitry_workers.dashboard.filters import Filters
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.live import Live
from rabbitry_workers.dashboard.pages.tones import tone
from rabbitry_workers.dashboard.paging import part
from rabbitry_workers.dashboard.source import Executor, Missing, NodeRow, Query, Rows
from rabbitry_workers.dashboard.table import PAGE_ROWS, Cell, Column, LiveTable, query_of


def _of(used_and_total: tuple[int, int] | None) -> Cell:
    if used_and_total is None:
        return Cell("")
    used, total = used_and_total
    return Cell(f"{formats.size(used)} of {formats.size(total)}", share=used / total if total else 0.0)


def _cpu(node: NodeRow) -> Cell:
    return Cell("") if node.cpu is None else Cell(f"{node.cpu:.0%}", share=node.cpu)


def _lent(node: NodeRow) -> str:
    return f"{node.used.get('CPU', 0):g} of {node.total.get('CPU', 0):g}"


def _gpus(node: NodeRow) -> str:
    total = node.total.get("GPU")
    return f"{node.used.get('GPU', 0):g} of {total:g}" if total else ""


def _busy(node: NodeRow) -> str:
    return f"{sum(bool(executor.runs) for executor in node.executors)} of {len(node.executors)}"


COLUMNS: tuple[Column[NodeRow], ...] = (
    Column("name", "Name", lambda node: Cell(node.name, link=f"/nodes/{node.id}")),
    Column("state", "State", lambda node: Cell(node.state, tone=tone(node.state))),
    Column("cpu", "Processors", _cpu),
    Column("memory", "Memory", lambda node: _of(node.memory)),
    Column("shared", "Shared memory", lambda node: _of(node.shared)),
    Column("used", "CPUs lent", _lent, sorts=False, right=True),
    Column("gpus", "GPUs lent", _gpus, sorts=False, right=True),
    Column("executors", "Processes busy", _busy, right=True),
    Column("started", "Up", lambda node: formats.duration(_up(node)), right=True),
    Column("host", "Host", lambda node: "" if node.host == node.name else node.host),
)

EXECUTOR_COLUMNS: tuple[Column[Executor], ...] = (
    Column("pid", "Process", lambda executor: str(executor.pid), right=True),
    Column("kind", "Kind", lambda executor: executor.kind),
    Column(
        "runs",
        "Runs",
        lambda executor: Cell(executor.runs or "nothing", link=_what(executor)),
    ),
    Column(
        "since",
        "For",
        lambda executor: formats.duration(time.time() - executor.since) if executor.since else "",
        right=True,
    ),
    Column("stack", "", lambda executor: Cell("Stack", act=str(executor.pid)), sorts=False),
)


def _what(executor: Executor) -> str:
    if executor.task:
        return f"/tasks/{executor.task}"
    return f"/actors/{executor.actor}" if executor.actor else ""


def _up(node: NodeRow) -> float | None:
    return time.time() - node.started if node.started and node.state != "dead" else None


def add(board: Board) -> None:
    """Register the pages."""

    @ui.page("/nodes", title="Nodes · rabbitry")
    async def nodes(request: Request) -> None:
        with board.page(request, "Nodes", "/nodes") as live:
            query = query_of(request.query_params)
            filters = Filters(query, "name, host or id", [(each, each) for each in ("alive", "draining", "dead")])

            async def load(query: Query) -> Rows[NodeRow]:
                rows = await live.read(live.source.nodes)
                return part(rows, query, lambda node: (node.name, node.host, node.id))

            filters.table = LiveTable(
                live, COLUMNS, load, lambda node: node.id, query=query, empty="No such nodes.", path="/nodes"
            )
            await live.start()

    @ui.page("/nodes/{node_id}", title="Node · rabbitry")
    async def node(request: Request, node_id: str) -> None:
        with board.page(request, "Nodes", "/nodes", one=True) as live:
            head = Region(lambda row: _head(live, row))
            gauges = Region(_gauges, classes="card")
            Text("h2", "Worker processes")

            async def find() -> NodeRow:
                found = [row for row in await live.read(live.source.nodes) if row.id == node_id]
                if not found:
                    raise Missing("There is no such node, or it left long ago.")
                return found[0]

            async def load(query: Query) -> Rows[Executor]:
                return part((await find()).executors, query, lambda executor: (executor.runs,))

            async def stack(pid: str) -> None:
                what = {str(each.pid): each.runs for each in (await find()).executors}
                if pid in what:
                    await actions.show_stack(live, node_id, int(pid), what[pid])

            async def refresh() -> None:
                row = await find()
                head.show((row.name, row.state, row.id, row.host, row.address, row.pid, row.started, dict(row.labels)))
                gauges.show(_shares(row))

            live.add(refresh)
            LiveTable(
                live,
                EXECUTOR_COLUMNS,
                load,
                lambda executor: str(executor.pid),
                query=Query(limit=PAGE_ROWS),
                empty="No worker processes.",
                on_act=stack,
            )
            with html.p():
                html.a("Tasks of this node", href=f"/tasks?node={node_id}")
                Text("span", " · ")
                html.a("Its logs", href=f"/logs?node={node_id}")
            await live.start()


def _head(live: Live, row: tuple[str, str, str, str, str, int | None, float | None, dict[str, str]]) -> None:
    name, state, identity, host, address, pid, started, labels = row
    with html.div().classes("head"):
        Text("h1", name)
        badge(state, tone(state))
        with html.div().classes("tools"):
            if state == "alive":
                actions.drain_button(live, NodeRow(identity, name, host, state))
    with html.div().classes("card"):
        facts(
            [
                ("Id", identity),
                ("Host", f"{host} ({address})" if address and address != host else host),
                ("Agent", f"process {pid}" if pid else ""),
                ("Started", formats.moment(started)),
                ("Labels", ", ".join(f"{key}={value}" for key, value in labels.items())),
            ]
        )


def _shares(node: NodeRow) -> list[tuple[str, str, float]]:
    """Return (name, text, share) of all that a node has."""
    shares = []
    if node.cpu is not None:
        shares.append(("processors", f"{node.cpu:.0%} busy", node.cpu))
    for name, pair in (("memory", node.memory), ("shared memory", node.shared)):
        if pair and pair[1]:
            shares.append((name, f"{formats.size(pair[0])} of {formats.size(pair[1])}", pair[0] / pair[1]))
    for name, busy, used, total in node.gpus:
        text = "" if busy is None else f"{busy:.0%} busy"
        if used is not None and total:
            text = ", ".join(filter(None, (text, f"{formats.size(used)} of {formats.size(total)}")))
        shares.append((name, text, busy if busy is not None else 0.0))
    for name, total_of in node.total.items():
        used_of = node.used.get(name, 0.0)
        text = f"{formats.amount(name, used_of)} of {formats.amount(name, total_of)} lent"
        shares.append((f"{name} (lent)", text, used_of / total_of if total_of else 0.0))
    return shares


def _gauges(shares: list[tuple[str, str, float]]) -> None:
    for name, text, share in shares:
        meter(name, text, share)
