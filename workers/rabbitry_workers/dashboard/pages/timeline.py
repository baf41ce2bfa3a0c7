"""What ran where in the last seconds, and a trace for Perfetto."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from nicegui import app, html, ui

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_workers.dashboard import charts
from rabbitry_workers.dashboard.elements import Drawing, Region, Text
from rabbitry_workers.dashboard.filters import choice
from rabbitry_workers.dashboard.frame import Board
from rabbitry_workers.dashboard.source import Missing

SPANS: Final = (("10", "10 seconds"), ("30", "30 seconds"), ("60", "1 minute"), ("300", "5 minutes"))
DEFAULT: Final = "30"


def add(board: Board) -> None:
    """Register the page, and the file that it offers."""

    @ui.page("/timeline", title="Timeline · rabbitry")
    async def timeline(request: Request) -> None:
        seconds = float(DEFAULT)
        with board.page(request, "Timeline", "/timeline") as live:

            async def choose(value: str) -> None:
                nonlocal seconds
                if value in dict(SPANS):
                    seconds = float(value)
                    await live.refresh(forced=True)

            with html.div().classes("filters"):
                choice("The last", SPANS, DEFAULT, choose)
                html.a("Download for Perfetto", href="/timeline.json", download="timeline.json").classes("small")
            with html.div().classes("card"), html.div().classes("lanes"):
                names = Region(_names, classes="names")
                with html.div():
                    drawing = Drawing()
                    with html.div().classes("scale"):
                        since = Text("span", "")
                        Text("span", "now")
            empty = Text("p", "")
            empty.classes("soft")

            async def refresh() -> None:
                spans = await live.read(live.source.timeline, seconds)
                names.show(sorted({span.lane for span in spans}))
                drawing.show(charts.timeline(spans, now=time.time(), seconds=seconds) if spans else "")
                since.show(f"{seconds:g} s ago")
                empty.show("" if spans else "Nothing has run in this time.")

            live.add(refresh)
            await live.start()

    @app.get("/timeline.json", include_in_schema=False)
    async def trace() -> Response:
        try:
            data = await asyncio.to_thread(board.source.trace)
        except (Missing, RabbitryBrokerError) as error:
            return PlainTextResponse(str(error), 503)
        return Response(
            data,
            media_type="application/json",
            headers={"content-disposition": 'attachment; filename="timeline.json"'},
        )


def _names(lanes: list[str]) -> None:
    for lane in lanes:
        Text("div", lane)
