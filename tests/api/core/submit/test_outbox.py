"""What waits to be sent: see `rabbitry.core.submit.outbox`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from rabbitry.core.submit import outbox as module
from rabbitry.core.submit.outbox import BATCH_UNSEEN, FLUSH_AT, Outbox
from rabbitry.core.submit.plan import Line, Plan, Timings
from rabbitry_broker.errors import BrokerError
from rabbitry_broker.messages import TaskHeader, decode_frames
from tests.api.core.fakes import JOB, OURS, SIGNER, Surroundings, full, result_id, task_id


def plan(name: str = "f", **options: Any) -> Plan:
    header = TaskHeader(function=name.encode(), name=name, owner=OURS, job=JOB, resources="CPU=1")
    return Plan(header, f"queue of {name}", **options)


def task(number: int, payload: bytes = b"", dependencies: list[bytes] | None = None) -> Any:
    return (task_id(number), payload, 0, dependencies or [], {}, 0)


@dataclass
class Case:
    """An outbox and what is around it."""

    around: Surroundings = field(default_factory=Surroundings)
    puts: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        around = self.around
        self.outbox = Outbox(
            around.identity,
            around.job,
            around.flight,
            publisher=around.publisher,
            store=around.store,
            unsent=around.unsent,
            flush_puts=self.flush_puts,
            register=around.register,
            kick=around.kick,
        )

    def flush_puts(self, *, wait: bool = True) -> None:
        self.puts.append(wait)

    def sent(self) -> list[list[bytes]]:
        return self.around.publisher.tasks()


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_lone_task_is_sent_at_once(case: Case) -> None:
    case.outbox.add(plan(), task(1))
    assert case.sent() == [[task_id(1)]]
    assert case.around.flight.count == 1
    assert case.around.registered, "results of a dead owner would be dropped"


def test_tasks_gather_while_others_are_in_flight_and_the_service_is_rung_for_once(case: Case) -> None:
    case.around.flight.count = 1
    each = plan()
    for number in range(3):
        case.outbox.add(each, task(number))
    assert case.sent() == []
    assert (case.around.kicks, case.outbox.waiting, case.around.flight.count) == (1, 3, 4)
    case.outbox.flush()
    assert [id for message in case.sent() for id in message] == [task_id(number) for number in range(3)]
    assert case.outbox.waiting == 0


def test_who_fills_the_outbox_sends_it(case: Case) -> None:
    case.around.flight.count = 1
    each = plan()
    for number in range(FLUSH_AT):
        case.outbox.add(each, task(number))
    assert case.outbox.waiting == 0
    assert sum(map(len, case.sent())) == FLUSH_AT


def test_batches_follow_the_run_time_of_the_function(case: Case) -> None:
    case.around.flight.count = 10_000
    timings = Timings()
    each = plan(timing=timings.of(b"f"))
    assert case.outbox.batch_size(each, 100) == BATCH_UNSEEN
    timings.learn(b"f", 1.0)
    assert case.outbox.batch_size(each, 100) == 1
    for _ in range(50):
        timings.learn(b"f", 1e-6)
    assert case.outbox.batch_size(each, 100) == module.BATCH_TASKS_MAX
    assert case.outbox.batch_size(plan(single=True), 100) == 1
    case.around.flight.count = 8
    assert case.outbox.batch_size(each, 100) == module.BATCH_TASKS_MAX, "so little is not worth sharing"
    for _ in range(50):
        timings.learn(b"f", 0.0015)
    assert case.outbox.batch_size(each, 100) == 2, "enough for everybody"
    case.around.flight.count = 1000
    assert case.outbox.batch_size(each, 100) == 6


def test_a_batch_that_is_large_travels_in_pieces(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 10)
    case.around.flight.count = 1000
    each = plan()
    for number in range(2):
        case.outbox.add(each, task(number, b"x" * 8))
    case.outbox.flush()
    assert case.sent() == [[task_id(0)], [task_id(1)]]


def test_values_that_come_along_count_as_part_of_a_batch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 10)
    case.around.flight.count = 1000
    each = plan()
    for number in range(2):
        case.outbox.add(each, (*task(number)[:4], {result_id(9): b"x" * 8}, 0))
    case.outbox.flush()
    assert case.sent() == [[task_id(0)], [task_id(1)]]


@pytest.mark.parametrize("along", [False, True])
def test_calls_that_are_large_travel_in_several_messages(case: Case, along: bool) -> None:
    """200 calls with 100 KB each are more than RabbitMQ 4 takes in one."""
    case.around.flight.count = 1
    case.outbox._sent_at = float("inf")
    line = Line("queue of the actor")
    first, second = plan("first", line=line), plan("second", line=line)
    for number in range(FLUSH_AT):
        payload, values = (b"", {result_id(9): bytes(100_000)}) if along else (bytes(100_000), {})
        call = (task_id(number), payload, 0, [], values, 0)
        case.outbox.add_call(second if number % 50 == 7 else first, call)
    case.outbox.flush()
    sizes = [len(body) for _, body, _ in case.around.publisher.published]
    assert max(sizes) <= module.BATCH_BYTES_MAX + 110_000 and len(sizes) < 8
    sent = [
        each
        for _, body, _ in case.around.publisher.published
        for _, tasks in decode_frames(SIGNER, body)
        for each in tasks
    ]
    assert [(each[0], each[5]) for each in sent] == [(task_id(number), number + 1) for number in range(FLUSH_AT)]


def test_headers_count_as_part_of_a_message_of_calls(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 10_000)
    case.around.flight.count = 1
    case.outbox._sent_at = float("inf")
    line = Line("queue of the actor")
    plans = [plan(letter * 3000, line=line) for letter in "ab"]
    for number in range(20):
        case.outbox.add_call(plans[number % 2], task(number))
    case.outbox.flush()
    assert max(len(body) for _, body, _ in case.around.publisher.published) < 20_000


def test_options_that_are_too_large_to_travel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the options of 'nnnn.* take 10.* bytes, and 4194304 at most travel"):
        plan("n" * 5_000_000)


def test_a_call_beside_others_is_sent_at_once_unless_something_was_sent_just_now(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    case.around.flight.count = 1  # a long poll, say
    each = plan("call", line=Line("queue of the actor"))
    case.outbox.add_call(each, task(1))
    assert case.sent() == [[task_id(1)]], "nothing was sent for long: it is not one of many"
    assert case.around.kicks == 0
    now += module.ALONE_SECONDS / 2
    case.outbox.add_call(each, task(2))
    assert (len(case.sent()), case.around.kicks) == (1, 1), "it is: others may join it"
    now += module.ALONE_SECONDS
    case.outbox.add_call(each, task(3))
    assert (len(case.sent()), case.around.kicks) == (1, 1), "the one before it waits for the service"
    case.outbox.flush()
    assert case.sent() == [[task_id(1)], [task_id(2), task_id(3)]]


def test_a_call_does_not_wait_for_a_thread_that_is_sending(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.around.flight.count = 1
    each = plan("call", line=Line("queue of the actor"))
    publish = case.around.publisher.publish

    def publish_slowly(*args: Any, **kwargs: Any) -> Any:
        publish(*args, **kwargs)
        if case.outbox._sent_at < 0:
            case.outbox.add_call(each, task(2))

    monkeypatch.setattr(case.around.publisher, "publish", publish_slowly)
    case.outbox._sent_at = -1.0
    case.outbox.add_call(each, task(1))
    assert case.sent() == [[task_id(1)]]
    assert (case.outbox.waiting, case.around.kicks) == (1, 1)


def test_calls_to_one_actor_leave_in_order_with_a_frame_for_each_run_of_equal_methods(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALONE_SECONDS", float("inf"))
    case.around.flight.count = 1
    line = Line("queue of the actor")
    first, second = plan("first", line=line), plan("second", line=line)
    for number, each in enumerate((first, first, second, first)):
        case.outbox.add_call(each, task(number))
    case.outbox.flush()
    ((queue, body, _),) = case.around.publisher.published
    assert queue == "queue of the actor"
    frames = [[each[0] for each in tasks] for _, tasks in decode_frames(SIGNER, body)]
    assert frames == [[task_id(0), task_id(1)], [task_id(2)], [task_id(3)]]
    assert [each[5] for _, tasks in decode_frames(SIGNER, body) for each in tasks] == [1, 2, 3, 4]


@pytest.mark.parametrize("ready", [True, False])
def test_a_task_with_dependencies_is_parked_and_sent_if_they_are_there_already(case: Case, ready: bool) -> None:
    case.around.store.ready = ready
    case.outbox.add_parked(plan(), task(1, dependencies=[result_id(9)]))
    assert case.around.kicks == 1
    case.outbox.flush()
    ((specs,),) = case.around.store.named("park")
    assert specs[0][0] == task_id(1) and specs[0][4] == [result_id(9)]
    assert case.sent() == ([[task_id(1)]] if ready else [])


def test_a_task_that_cannot_be_sent_is_told_to_its_submitter_and_forgotten(case: Case) -> None:
    case.around.publisher.fails = BrokerError("away")
    with pytest.raises(BrokerError):
        case.outbox.add(plan(), task(1))
    assert (case.outbox.waiting, case.around.flight.count) == (0, 0)


def test_what_was_accepted_before_is_kept_in_its_order(case: Case) -> None:
    case.around.flight.count = 1
    line = Line("actor")
    each, call = plan(), plan("call", line=line)
    for number in range(2):
        case.outbox.add(each, task(number))
        case.outbox.add_call(call, task(10 + number))
    case.outbox.add_parked(each, task(20))
    case.around.publisher.fails = BrokerError("away")
    with pytest.raises(BrokerError):
        case.outbox.flush()
    assert case.outbox.waiting == 5
    case.around.publisher.fails = None
    case.outbox.add(each, task(2))
    case.outbox.flush()
    sent = [id for message in case.sent() for id in message]
    assert [id for id in sent if id < task_id(10)] == [task_id(0), task_id(1), task_id(2)]
    assert [id for id in sent if task_id(10) <= id < task_id(20)] == [task_id(10), task_id(11)]
    assert task_id(20) in sent


def test_a_task_can_be_taken_back_until_it_is_sent(case: Case) -> None:
    case.around.flight.count = 1
    case.outbox.add(plan(), task(1))
    case.outbox.add_call(plan(line=Line("actor")), task(2))
    case.outbox.add_parked(plan(), task(3))
    assert all(case.outbox.withdraw(task_id(number)) for number in (1, 2, 3))
    assert not case.outbox.withdraw(task_id(1))
    case.outbox.flush()
    assert case.sent() == [] and case.outbox.waiting == 0


def test_small_values_are_sent_before_tasks_and_do_not_hold_them_up(case: Case) -> None:
    def no_room(*, wait: bool = True) -> None:
        raise full()

    case.outbox._flush_puts = no_room
    case.outbox.add(plan(), task(1))
    assert case.sent() == [[task_id(1)]]


def test_nothing_is_done_when_nothing_waits(case: Case) -> None:
    case.outbox.flush()
    assert not case.around.registered and not case.puts


def test_timings_last_as_long_as_plans() -> None:
    timings = Timings()
    timings.learn(b"unknown", 1.0)
    timing = timings.of(b"f")
    assert timings.of(b"f") is timing
    assert plan(timing=timing).mean is None
    timings.learn(b"f", 2.0)
    timings.learn(b"f", 1.0)
    assert plan(timing=timing).mean == pytest.approx(1.7)
