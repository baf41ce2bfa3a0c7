"""The background of a client: see `rabbitry.core.service`."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from rabbitry.core.service import infeasible as infeasible_module
from rabbitry.core.service import thread as module
from rabbitry.core.service.doorbell import Doorbell
from rabbitry.core.service.infeasible import InfeasibleCheck
from rabbitry.core.service.thread import ServiceThread, Step
from rabbitry.core.service.tidying import Tidying
from rabbitry.nodes import why_group_infeasible
from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import RabbitryBrokerError


class Case:
    """A service, which nobody starts."""

    def __init__(self, *, executor: bool = False) -> None:
        self.urgent: Any = False
        self.in_flight = 0
        self.doorbell = Doorbell()
        self.service = ServiceThread(
            self.doorbell, at_once=lambda: self.urgent, in_flight=lambda: self.in_flight, executor=executor
        )


def fail() -> None:
    raise ValueError("of the test")


def test_a_step_that_fails_keeps_no_other_from_its_turn() -> None:
    service, ran = Case().service, []
    service.steps = (Step("failing", fail), Step("working", lambda: ran.append(1)))
    assert not service.run_once()
    assert ran == [1]
    service.steps = (Step("working", lambda: ran.append(2)),)
    assert service.run_once() and ran == [1, 2]


def test_steps_run_when_there_is_reason_and_time() -> None:
    service, ran = Case().service, []
    reason = False
    service.steps = (
        Step("with a reason", lambda: ran.append("reason"), when=lambda: reason),
        Step("now and then", lambda: ran.append("now and then"), every=1000.0),
        Step("both", lambda: ran.append("both"), when=lambda: reason, every=1000.0),
        Step("later", lambda: ran.append("later"), every=1000.0, at=time.monotonic() + 1000),
    )
    service.run_once()
    service.run_once()
    assert ran == ["now and then"]
    reason = True
    service.run_once()
    service.run_once()
    assert ran == ["now and then", "reason", "both", "reason"], "without a reason no time was lost"


def test_a_driver_looks_soon_while_there_is_something_to_watch() -> None:
    case = Case()
    assert case.service.next_pause(1.0) == module.SERVICE_IDLE_SECONDS
    case.in_flight = 1
    assert case.service.next_pause(1.0) == module.SERVICE_SECONDS
    case.in_flight, case.urgent = 0, True
    assert case.service.next_pause(1.0) == module.SERVICE_SECONDS


def test_an_executor_that_waits_looks_less_and_less_often() -> None:
    case = Case(executor=True)
    case.in_flight = 1
    assert case.service.next_pause(0.1) == 0.2
    assert case.service.next_pause(5.0) == module.EXECUTOR_IDLE_SECONDS
    case.urgent = True
    assert case.service.next_pause(5.0) == module.SERVICE_SECONDS


def test_the_first_ring_starts_the_thread_and_the_last_one_ends_it() -> None:
    case, ran = Case(), threading.Event()
    case.service.steps = (Step("working", ran.set),)
    assert not case.service.running
    case.doorbell.ring()
    assert ran.wait(20) and case.service.running
    case.doorbell.ring()
    case.service.start()
    case.service.close()
    thread: Any = case.service._thread
    assert not thread.is_alive()


def test_a_closed_service_is_not_started() -> None:
    case = Case()
    case.service.stop()
    case.doorbell.ring()
    case.service.close()
    assert not case.service.running


def test_a_ring_lasts_until_it_is_answered() -> None:
    doorbell = Doorbell()
    doorbell.ring()
    doorbell.ring()
    doorbell.wait(100)
    assert doorbell.is_rung()
    doorbell.answer()
    assert not doorbell.is_rung()


def test_failures_are_tidied_up_after_now_and_then() -> None:
    tidying = Tidying()
    assert tidying.failed()
    tidying.run_once()
    assert not tidying.failed(), "just done: somebody must come back to it"
    tidying.run_once()
    assert tidying._untidy


# -- work that nobody can run ----------------------------------------------------------------------------------------


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("rabbitry"), "propagate", True)
    monkeypatch.setattr(infeasible_module, "PATIENCE_SECONDS", 0.0)
    return caplog


NODE: dict[str, Any] = {"id": b"n" * 28, "alive": True, "totals": {"CPU": 4.0}, "labels": {"zone": "a"}}


def test_work_that_no_node_could_run_is_warned_of_once(told: pytest.LogCaptureFixture) -> None:
    check = InfeasibleCheck(lambda: [NODE])
    for queue in (
        names.task_queue("CPU=1"), names.task_queue("CPU=1,tpu=1"), names.task_queue("CPU=1", "zone=b"),
        names.node_queue(b"n" * 28),
    ):  # fmt: skip
        check.note_queue(queue)
    check.run_once()
    check.run_once()
    assert len(told.messages) == 2
    assert "need CPU=1,tpu=1 wait" in told.text and "tpu: 1 needed, no node has any" in told.text
    assert "and labels zone=b wait" in told.text and "label zone must be b, and nodes have 'a'" in told.text


def test_it_looks_at_once_at_what_is_new_and_soon_again_at_what_has_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(infeasible_module.time, "monotonic", lambda: now[0])
    check = InfeasibleCheck(lambda: [NODE])
    assert check.is_due()
    check.note_queue(names.task_queue("CPU=1"))
    check.run_once()
    assert not check.is_due()
    now[0] += infeasible_module.CHECK_SECONDS
    assert check.is_due(), "nodes may die"
    check.note_queue(names.task_queue("CPU=64"))
    check.run_once()
    assert check.is_due()
    now[0] += infeasible_module.PATIENCE_SECONDS
    check.run_once()
    assert not check.is_due(), "it was warned of"


def test_what_found_a_place_in_between_is_warned_of_again(told: pytest.LogCaptureFixture) -> None:
    nodes: list[Any] = []
    check = InfeasibleCheck(lambda: nodes)
    check.note_queue(names.task_queue("CPU=1"))
    check.run_once()
    nodes.append(NODE)
    check.run_once()
    nodes.clear()
    check.run_once()
    assert len(told.messages) == 2 and "the cluster has no node" in told.text


class BigGroup:
    def __bool__(self) -> bool:
        return True

    def unserved(self, living: Any) -> list[tuple[str, str]]:
        return [("the group 'big'", why_group_infeasible([("CPU=8", "")], "PACK", living))]


def test_other_things_that_may_wait_for_ever_are_warned_of(told: pytest.LogCaptureFixture) -> None:
    check = InfeasibleCheck(lambda: [NODE])
    check.also.append(BigGroup())
    check.run_once()
    check.run_once()
    assert [each for each in told.messages if "CPU: 8 needed, at most 4 on one node" in each] == told.messages[:1]
    assert check.unserved() == [("the group 'big'", "CPU: 8 needed, at most 4 on one node")]


@pytest.mark.parametrize(
    ("bundles", "strategy", "said"),
    [
        ([("CPU=2", "")] * 3, "STRICT_PACK", "CPU: 6 needed"),
        ([("CPU=2", "")] * 3, "PACK", ""),
        ([("CPU=2", "")] * 2, "STRICT_SPREAD", "2 bundles on a node each, and 1 nodes live"),
        ([("CPU=2", ""), ("CPU=1", "zone=b")], "SPREAD", "label zone must be b"),
    ],
)
def test_why_a_group_could_never_stand(bundles: Any, strategy: str, said: str) -> None:
    assert why_group_infeasible(bundles, strategy, [NODE]).startswith(said)
    assert bool(why_group_infeasible(bundles, strategy, [NODE])) is bool(said)


def test_work_is_not_warned_of_before_some_time_has_passed(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infeasible_module, "PATIENCE_SECONDS", 1000.0)
    nodes: list[Any] = []
    check = InfeasibleCheck(lambda: nodes)
    check.note_queue(names.task_queue("CPU=1"))
    check.run_once()
    nodes.append(NODE)
    check.run_once()
    assert not told.messages and not check._since


def test_queues_that_are_not_used_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infeasible_module, "QUEUES_KEPT", 2)
    check = InfeasibleCheck(list)
    for number in range(1, 4):
        check.note_queue(names.task_queue(f"CPU={number}"))
        check.run_once()
    assert len(check.queues_used) == 2 and len(check._since) == 2


def test_a_store_that_is_away_is_others_business() -> None:
    def away() -> list[Any]:
        raise RabbitryBrokerError("away")

    check = InfeasibleCheck(away)
    check.run_once()
    check.note_queue(names.task_queue("CPU=1"))
    check.run_once()
