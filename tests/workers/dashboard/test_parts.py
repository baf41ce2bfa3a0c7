"""Parts of the pages alone: what is shared, how lists are cut, what is drawn."""

from __future__ import annotations

import asyncio
import doctest
import importlib

import pytest

from rabbitry_workers.dashboard import charts
from rabbitry_workers.dashboard.paging import part
from rabbitry_workers.dashboard.readings import KEPT, SLOWEST_SECONDS, Readings
from rabbitry_workers.dashboard.source import JobRow, Query, Span
from rabbitry_workers.dashboard.table import address, query_of
from tests.workers.dashboard.fakes import EVIL


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.processor = 0.0
        self.costs = 0.0
        self.reads = 0

    def read(self, *_: object) -> int:
        self.processor += self.costs
        self.reads += 1
        return self.reads

    def readings(self) -> Readings:
        return Readings(clock=lambda: self.now, processor=lambda: self.processor)


def test_a_reading_is_shared_until_it_is_a_second_old():
    clock = Clock()
    readings = clock.readings()

    async def run() -> None:
        assert await asyncio.gather(*(readings.get(clock.read) for _ in range(5))) == [1] * 5
        clock.now += 0.5
        assert await readings.get(clock.read) == 1
        assert await readings.get(clock.read, "another") == 2
        clock.now += 0.5
        assert await readings.get(clock.read) == 3
        readings.forget()
        assert await readings.get(clock.read) == 4

    asyncio.run(run())


@pytest.mark.parametrize(("costs", "rests"), [(0.001, 0.9), (0.1, 2.5), (60.0, SLOWEST_SECONDS)])
def test_a_reading_that_takes_long_is_renewed_less_often(costs: float, rests: float):
    clock = Clock()
    clock.costs = costs
    readings = clock.readings()

    async def run() -> None:
        await readings.get(clock.read)
        clock.now += rests - 0.01
        assert await readings.get(clock.read) == 1
        clock.now += 0.02
        assert await readings.get(clock.read) == 2

    asyncio.run(run())


def test_a_failure_is_shared_too_and_tried_again():
    clock = Clock()
    readings = clock.readings()

    def fail() -> None:
        clock.read()
        raise OSError("away")

    async def run() -> None:
        for _ in range(3):
            with pytest.raises(OSError, match="away"):
                await readings.get(fail)
        assert clock.reads == 1
        clock.now += 1
        with pytest.raises(OSError, match="away"):
            await readings.get(fail)
        assert clock.reads == 2

    asyncio.run(run())


def test_readings_that_nobody_asks_for_are_forgotten():
    clock = Clock()
    readings = clock.readings()

    async def run() -> None:
        for number in range(KEPT + 50):
            await readings.get(clock.read, number)
        assert len(readings._readings) == KEPT

    asyncio.run(run())


ROWS = [
    JobRow("01", "RUNNING", "", "a.py", pid=3),
    JobRow("02", "FAILED", "", "B.py"),
    JobRow("03", "RUNNING", "", "c", pid=1),
]


@pytest.mark.parametrize(
    ("query", "found", "total"),
    [
        (Query(), "010203", 3),
        (Query(text=" .PY "), "0102", 2),
        (Query(state="RUNNING"), "0103", 2),
        (Query(sort="pid"), "020301", 3),
        (Query(sort="entrypoint", descending=True), "030201", 3),
        (Query(sort="no such column"), "010203", 3),
        (Query(offset=1, limit=1), "02", 3),
        (Query(offset=9), "", 3),
    ],
)
def test_lists_are_filtered_ordered_and_cut(query: Query, found: str, total: int):
    rows = part(ROWS, query, lambda row: (row.entrypoint,))
    assert "".join(row.id for row in rows.rows) == found
    assert rows.total == total


def test_an_address_tells_the_query_again():
    query = Query(text="a&b=<c>", state="FAILED", job="0a", sort="name", descending=True)
    parameters = dict(pair.split("=", 1) for pair in address("/tasks", query).partition("?")[2].split("&"))
    from urllib.parse import unquote_plus

    assert query_of({name: unquote_plus(value) for name, value in parameters.items()}) == query


def test_a_timeline_draws_names_as_text_and_few_shapes():
    spans = [Span("node 1", EVIL, "ab", 0.0, 90.0, 95.0, True), Span("node 2", "g", "cd", 0.0, 99.0, None)]
    drawn = charts.timeline(spans, now=100.0, seconds=30.0)
    assert "<script" not in drawn
    assert 'onerror="' not in drawn
    assert drawn.count("<rect") == 2
    assert 'class="bar failed"' in drawn
    assert 'class="bar running"' in drawn
    many = [Span("node 1", "f", "ab", None, 70 + at * 0.005, 70 + at * 0.005 + 0.004) for at in range(6000)]
    assert len(charts.timeline(many, now=100.0, seconds=30.0)) < 30_000


def test_rates_of_nothing_can_be_drawn():
    assert charts.rates([], []) == ""
    assert "<svg" in charts.rates([0, 0], [0, 0])
    assert "failed" in charts.rates([5, 5], [0, 1])


@pytest.mark.parametrize("module", ["formats", "paging", "charts", "table", "pages.tones", "pages.logs"])
def test_examples_in_docstrings(module: str):
    results = doctest.testmod(importlib.import_module(f"rabbitry_workers.dashboard.{module}"))
    assert results.attempted
    assert not results.failed
