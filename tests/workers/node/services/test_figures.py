"""The figures that go with a node's sign of life."""

from __future__ import annotations

from typing import Any

from rabbitry_broker.events import Recorder
from rabbitry_workers.node.services.figures import Figures
from tests.workers.node.fakes import FakeExecutor, FakePublisher, World


def test_work_processes_and_actors_are_counted() -> None:
    world = World()
    executors: dict[int, Any] = {pid: FakeExecutor(pid) for pid in (1, 2, 3)}
    publisher: Any = FakePublisher()
    recorder = Recorder(on=True)
    recorder.dropped = 4
    figures = Figures(
        world.lanes,
        executors,
        {"actor": object()},
        recorder,
        publisher,
        lambda: [("GPU 0 (A)", 0.5, 1, 2)],
        lambda: {"values_sent": 3},
    ).read()
    assert figures["waiting"] == 0 and figures["actors"] == 1 and figures["events_dropped"] == 4
    assert figures["values_sent"] == 3
    assert figures["gpus"] == [("GPU 0 (A)", 0.5, 1, 2)]
    assert sum(figures["executors"].values()) == 3 and executors[1].state.value in figures["executors"]


def test_a_publisher_that_confirms_says_how_much() -> None:
    world = World()
    publisher: Any = FakePublisher()
    publisher.confirmed, publisher.unconfirmed = 7, 2
    figures = Figures(world.lanes, {}, (), Recorder(on=True), publisher, list, dict).read()
    assert (figures["confirmed"], figures["unconfirmed"]) == (7, 2)
