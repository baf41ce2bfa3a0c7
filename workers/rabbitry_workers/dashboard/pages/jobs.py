"""Jobs: the table, and the page of one."""

from __future__ import annotations

import time

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
from rabbitry_workers.dashboard.source import JobRow, Missing, Query, Rows
from rabbitry_workers.dashboard.table import PAGE_ROWS, Cell, Column, LiveTable, query_of

STATES = tuple((state, state) for state in ("PENDING", "RUNNING", "SUCCEEDED", "STOPPED", "FAILED"))
ENDED = ("SUCCEEDED", "STOPPED", "FAILED")


def _key(job: JobRow) -> str:
    return job.submission or job.id


def _ran(job: JobRow) -> str:
    return formats.duration((job.ended or time.time()) - job.started) if job.started else ""


COLUMNS: tuple[Column[JobRow], ...] = (
    Column("id", "Job", lambda job: Cell(job.submission or formats.short(job.id), link=f"/jobs/{_key(job)}")),
    Column("state", "State", lambda job: Cell(job.state, tone=tone(job.state), title=job.message)),
    Column("entrypoint", "Entrypoint", lambda job: Cell(job.entrypoint, title=job.entrypoint)),
    Column("started", "Started", lambda job: Cell(formats.ago(job.started), title=formats.moment(job.started))),
    Column("ended", "Ran for", _ran, sorts=False, right=True),
    Column("host", "Host", lambda job: job.host),
    Column("pid", "Process", lambda job: str(job.pid or ""), right=True),
)


def add(board: Board) -> None:
    """Register the pages."""

    @ui.page("/jobs", title="Jobs · rabbitry")
    async def jobs(request: Request) -> None:
        with board.page(request, "Jobs", "/jobs") as live:
            query = query_of(request.query_params)
            filters = Filters(query, "entrypoint or id", STATES)

            async def load(query: Query) -> Rows[JobRow]:
                rows = await live.read(live.source.jobs)
                return part(rows, query, lambda job: (job.id, job.submission, job.entrypoint))

            filters.table = LiveTable(live, COLUMNS, load, _key, query=query, empty="No such jobs.", path="/jobs")
            await live.start()

    @ui.page("/jobs/{job_id}", title="Job · rabbitry")
    async def job(request: Request, job_id: str) -> None:
        with board.page(request, "Jobs", "/jobs", one=True) as live:
            shown = Region(lambda row: _detail(live, row))

            async def find() -> JobRow:
                found = [row for row in await live.read(live.source.jobs) if job_id in (row.id, row.submission)]
                if not found:
                    raise Missing("There is no such job, or it ended long ago.")
                return found[0]

            async def refresh() -> None:
                shown.show(await find())

            live.add(refresh)
            Text("h2", "Tasks")
            task_table(live, Query(job=job_id, limit=PAGE_ROWS))
            await live.start()


def _detail(live: Live, job: JobRow) -> None:
    with html.div().classes("head"):
        Text("h1", _key(job))
        badge(job.state, tone(job.state))
        with html.div().classes("tools"):
            if job.submission and job.state not in ENDED:
                actions.stop_button(live, job)
    with html.div().classes("card"):
        facts(
            [
                ("Submission", job.submission),
                ("Job", job.id),
                ("Entrypoint", job.entrypoint),
                ("Message", job.message),
                ("Started", formats.moment(job.started)),
                ("Ended", formats.moment(job.ended)),
                ("Ran for", _ran(job)),
                ("Host", job.host),
                ("Process", str(job.pid or "")),
                ("Actors", ("of this job", f"/actors?job={job.id}") if job.id else ""),
                ("Printed", ("its log", log_address(*job.log)) if job.log else ""),
            ]
        )
