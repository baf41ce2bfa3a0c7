"""Servers that are restarted come back, also on a machine where that takes its time; else nobody is judged."""

from __future__ import annotations

import random
import threading

import pytest

from tests.fuzz import restarts
from tests.fuzz.programs import Program
from tests.fuzz.restarts import LATE, TRIES, Restarts
from tests.fuzz.run import judge_report
from tests.servers import ServerError


class FakeServer:
    """Starts after some vain tries."""

    def __init__(self, vain: int) -> None:
        self.vain = vain
        self.starts = 0
        self.ended = threading.Event()
        self.up = threading.Event()

    def kill(self) -> None:
        self.ended.set()

    stop = kill

    def start(self) -> None:
        self.starts += 1
        if self.starts <= self.vain:
            raise ServerError("it did not answer")
        self.up.set()


def restart(server: FakeServer) -> Restarts:
    return Restarts({"broker": server}, random.Random(1), 0.01)  # type: ignore[dict-item]


def test_a_server_that_takes_its_time_is_started_again() -> None:
    server = FakeServer(2)
    with restart(server) as running:
        assert server.up.wait(20)
        assert running.take()[0] == "broker"
    assert server.starts >= 3


def test_what_ran_without_its_servers_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "LATE_SECONDS", -1.0)
    server = FakeServer(0)
    with restart(server) as running:
        assert server.up.wait(20)
    assert LATE in running.take()
    report = {"seen": [], "runs": {}, "left": {"handles": {"a": 1}}}
    assert judge_report(Program("a"), report)
    assert not judge_report(Program("a"), {**report, "struck": [LATE]})


def test_one_that_never_comes_back_is_told_of() -> None:
    server = FakeServer(10**6)
    running = restart(server)
    running.__enter__()
    assert server.ended.wait(20)
    with pytest.raises(ServerError):
        running.__exit__()
    assert server.starts == TRIES
    assert LATE in running.take()
