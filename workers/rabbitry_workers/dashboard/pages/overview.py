"""The first page: the cluster at one look."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from fastapi import Request
from nicegui import html, ui

from rabbitry_workers.dashboard import charts, formats
from rabbitry_workers.dashboard.elements import Drawing, Region, Text, badge, link, meter
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.source import FAILED, FINISHED, GROUPS, RUNNING, WAITING, Overview

RATE_SECONDS = 5
"""Work done a second is the mean over so many."""


def add(board: Board) -> None:
    """Register the page."""

    @ui.page("/", title="rabbitry")
    async def overview(request: Request) -> None:
        with board.page(request, board.name or "Overview", "/") as live:
            notes = Region(_notes)
            with html.div().classes("tiles"):
                rate = _tile("tasks done a second", "/timeline")
                running = _tile("running", "/tasks?state=running")
                waiting = _tile("waiting", "/tasks?state=waiting")
                failed = _tile("failed", "/tasks?state=failed")
                nodes = _tile("nodes alive", "/nodes")
                actors = _tile("actors alive", "/actors")
                aside = _tile("put aside", "/put-aside")
            with html.div().classes("card"):
                Text("h2", "Tasks that ended, each second")
                drawing = Drawing()
            with html.div().classes("two"):
                with html.div().classes("card"):
                    Text("h2", "Resources in use")
                    resources = Region(_resources)
                with html.div().classes("card"):
                    Text("h2", "By function")
                    functions = Region(_functions)

            async def refresh() -> None:
                now = await live.read(live.source.overview)
                ended = [*now.finished[-RATE_SECONDS:], *now.failed[-RATE_SECONDS:]]
                mean = sum(ended) / RATE_SECONDS
                rate.show(formats.count(round(mean, 1 if mean < 10 else None)))
                running.show(formats.count(now.groups.get(RUNNING, 0)))
                waiting.show(formats.count(now.groups.get(WAITING, 0)))
                failed.show(formats.count(now.groups.get(FAILED, 0)))
                failed.parent_slot.parent.classes(  # type: ignore[union-attr]
                    add="bad" if now.groups.get(FAILED) else "", remove="" if now.groups.get(FAILED) else "bad"
                )
                nodes.show(_of_all(now.nodes, "alive"))
                actors.show(_of_all(now.actors, "ALIVE"))
                aside.show(formats.count(now.put_aside))
                drawing.show(charts.rates(now.finished, now.failed))
                resources.show([(name, now.used.get(name, 0.0), total) for name, total in now.total.items()])
                functions.show([(name, dict(groups)) for name, groups in now.functions])
                notes.show(_what_to_note(now))

            live.add(refresh)
            await live.start()


def _tile(label: str, to: str) -> Text:
    with html.a(href=to).classes("tile"):
        number = Text("div", "")
        number.classes("number")
        Text("div", label).classes("label")
    return number


def _of_all(states: Mapping[str, int], good: str) -> str:
    alive, total = states.get(good, 0), sum(states.values())
    return formats.count(alive) if alive == total else f"{formats.count(alive)} of {formats.count(total)}"


def _what_to_note(now: Overview) -> list[str]:
    notes = list(now.notes)
    if now.dropped:
        notes.append(
            f"{formats.count(now.dropped)} events found no room: tasks may be missing, or be shown in an older state."
        )
    return notes


def _notes(notes: list[str]) -> None:
    for note in notes:
        Text("div", note).classes("note")


def _resources(rows: list[tuple[str, float, float]]) -> None:
    if not rows:
        Text("span", "No node is alive.").classes("soft")
    for name, used, total in rows:
        text = f"{formats.amount(name, used)} of {formats.amount(name, total)}"
        meter(name, text, used / total if total else 0.0)


def _functions(rows: list[tuple[str, dict[str, int]]]) -> None:
    if not rows:
        Text("span", "No tasks yet.").classes("soft")
        return
    with html.dl().classes("facts narrow"):
        for name, groups in rows:
            with html.dt():
                link(name, f"/tasks?text={quote(name)}", title=name)
            with html.dd():
                for group in (*GROUPS[:2], FINISHED, FAILED):
                    if groups.get(group):
                        badge(f"{formats.count(groups[group])} {group}", group)
