"""What a client tells of itself, over stores that only listen."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry.core.identity import Identity
from rabbitry.core.service.reports import Reports
from rabbitry_broker.events import JOB as JOB_MARK
from rabbitry_broker.events import Recorder
from rabbitry_broker.measures import Measures
from tests.api.core.fakes import DETACHED, JOB, OURS, SIGNER


class Listener:
    """Stands for both stores: what was sent, and how."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def send(self, *what: Any) -> None:
        self.heard.append(("send", *what))

    def leave(self, *what: Any) -> None:
        self.heard.append(("leave", *what))


class World:
    """Reports, and what is around them."""

    def __init__(self) -> None:
        self.recorder, self.measures = Recorder(on=True), Measures()
        self.events, self.measured, self.registered = Listener(), Listener(), 0
        identity = Identity(OURS, JOB, DETACHED, None, SIGNER, 30.0)  # type: ignore[arg-type]
        self.reports = Reports(
            identity,
            b"node",
            self.recorder,
            self.measures,
            events=self.events,  # type: ignore[arg-type]
            measured=self.measured,  # type: ignore[arg-type]
            register=self.register,
        )

    def register(self) -> None:
        self.registered += 1


@pytest.fixture
def world() -> World:
    return World()


def test_events_say_who_recorded_them(world: World) -> None:
    world.reports.send_events()
    ((_, recorder, who),) = world.events.heard
    assert recorder is world.recorder and (who["id"], who["node"]) == (OURS, b"node") and who["pid"] > 0


def test_gauges_make_the_client_known_since_they_count_while_it_lives(world: World) -> None:
    world.measures.add("counted", (), 1.0)
    world.reports.send_measures()
    assert world.measured.heard == [("send", world.measures, JOB, OURS)] and world.registered == 0
    world.measures.set("level", (), 1.0)
    world.reports.send_measures()
    assert world.registered == 1


def test_a_process_that_measured_nothing_leaves_nothing(world: World) -> None:
    world.reports.leave_measures()
    assert not world.measured.heard
    world.measures.set("level", (), 1.0)
    world.measures.take()  # sent: the gauge itself is still there
    world.reports.leave_measures()
    assert world.measured.heard == [("leave", world.measures, JOB, OURS)]


def test_the_end_of_a_job_is_an_event(world: World) -> None:
    world.reports.job_ended()
    ((marks, _dropped),) = world.recorder.take()
    assert [(mark[0], mark[2]) for mark in marks] == [(JOB_MARK, JOB)] and marks[0][3]["ended"] > 0
