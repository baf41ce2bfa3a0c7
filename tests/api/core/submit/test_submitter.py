"""`f.remote()` without a cluster: see `rabbitry.core.submit.submitter` and `arguments`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from rabbitry.core.lives.lifetimes import Lifetimes
from rabbitry.core.lives.puts import Puts
from rabbitry.core.resolve.streams import Stream, Streams, stream_pin
from rabbitry.core.submit.arguments import ARGUMENTS_INLINE_BYTES, Arguments
from rabbitry.core.submit.submitter import Submitter
from rabbitry.exceptions import ObjectStoreFullError
from rabbitry.object_ref import ObjectRef, made_here
from rabbitry.options import TaskOptions
from rabbitry_broker.errors import BrokerError
from rabbitry_broker.ids import FIRST_INDEX, INDEX_ARGUMENTS, TaskIds
from rabbitry_broker.records import COPY_ASKED
from tests.api.core.fakes import DETACHED, JOB, Surroundings, full, result_id


class FakeOutbox:
    """Accepts tasks, by way; or fails."""

    def __init__(self) -> None:
        self.ways: list[str] = []
        self.tasks: list[Any] = []
        self.fails: Exception | None = None

    def _take(self, way: str, task: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.ways.append(way)
        self.tasks.append(task)

    def add(self, plan: Any, task: Any) -> None:
        self._take("sent", task)

    def add_call(self, plan: Any, task: Any) -> None:
        self._take("called", task)

    def add_parked(self, plan: Any, task: Any) -> None:
        self._take("parked", task)


@dataclass
class Case:
    """A submitter over fakes."""

    around: Surroundings = field(default_factory=Surroundings)
    outbox: FakeOutbox = field(default_factory=FakeOutbox)
    collected: int = 0
    parent: bytes | None = None

    def __post_init__(self) -> None:
        around = self.around
        lifetimes = Lifetimes(
            around.identity, around.store, around.references, values=around.values, unsent=around.unsent, actors={},
            unread=around.unhandled, register=around.register, forget=lambda keys: None,
            actor_released=lambda actor: None, commit_errors=lambda items: None,
        )  # fmt: skip
        self.puts = Puts(
            around.ids, around.store, around.references, values=around.values, unsent=around.unsent,
            lock=lifetimes.lock, hold=around.store.hold, require_room=around.store.require, register=around.register,
            collect=self.collect, kick=around.kick, interrupts=around.store.within(None), copy=COPY_ASKED,
        )  # fmt: skip
        self.arguments = Arguments(
            self.puts, around.references, around.values, read=around.unhandled.read, register=around.register
        )
        self.streams = Streams(
            around.references, around.values, around.streams, store=around.store, keys=around.identity.keys,
            callbacks={}, unheld=lambda key, record: None, cancel=around.store.cancel,
        )  # fmt: skip
        self.submitter = Submitter(
            around.ids, TaskIds(DETACHED, JOB), around.flight, around.references, arguments=self.arguments,
            outbox=self.outbox, streams=self.streams, generator=lambda task_id, stream: stream,  # type: ignore[arg-type]
            collect=self.collect, current_task=lambda: self.parent,
        )  # fmt: skip

    def collect(self) -> None:
        self.collected += 1

    def submit(self, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        complete = TaskOptions.from_kwargs(**options or {})
        return self.submitter.submit(self.around.plans().task(b"f" * 16, print, complete), args, kwargs)

    def ref(self, number: int, record: bytes | None = None) -> ObjectRef[Any]:
        if record is not None:
            self.around.values[result_id(number)] = record
        return made_here(result_id(number), self.around.references)


@pytest.fixture
def case() -> Case:
    return Case()


def test_one_result_is_one_handle(case: Case) -> None:
    ref = case.submit()
    assert ref._id == case.outbox.tasks[0][0] + FIRST_INDEX
    assert case.around.references.counts == {ref._id: 1}
    assert case.outbox.ways == ["sent"]


def test_several_results_are_a_list_and_their_number_is_remembered(case: Case) -> None:
    refs = case.submit(options={"num_returns": 3})
    assert len({ref._id for ref in refs}) == 3
    assert list(case.around.flight.returns.values()) == [3]
    assert case.submit(options={"num_returns": 0}) is None


def test_a_stream_begins_with_its_task(case: Case) -> None:
    stream = case.submit(options={"num_returns": "streaming", "_generator_backpressure_num_objects": 2})
    assert isinstance(stream, Stream) and stream.counted
    assert list(case.around.streams) == [case.outbox.tasks[0][0]]


def test_detached_tasks_belong_to_nobody_alive(case: Case) -> None:
    assert case.submit(options={"lifetime": "detached"})._id.startswith(DETACHED)


def test_a_task_whose_dependencies_are_not_here_is_parked(case: Case) -> None:
    case.submit(case.ref(100))
    assert case.outbox.ways == ["parked"]
    assert case.outbox.tasks[0][3] == [result_id(100)]


def test_known_dependencies_travel_with_the_task(case: Case) -> None:
    ref = case.ref(100, b"N")
    case.submit(ref, ref, key=ref)
    _, _, _, dependencies, inline, _ = case.outbox.tasks[0]
    assert case.outbox.ways == ["sent"]
    assert (dependencies, inline) == ([result_id(100)], {result_id(100): b"N"})


def test_known_dependencies_that_are_large_do_not_travel(case: Case) -> None:
    case.submit(case.ref(100, b"P" + b"x" * ARGUMENTS_INLINE_BYTES))
    assert case.outbox.ways == ["parked"] and case.outbox.tasks[0][4] == {}


def test_what_arguments_refer_to_is_pinned_until_the_task_ends(case: Case) -> None:
    ref = case.ref(100, b"N")
    case.submit([ref])
    assert case.around.references.counts[result_id(100)] == 2
    case.around.references.unpin(case.outbox.tasks[0][0])
    assert list(case.around.references.dropped)[-1] == result_id(100)
    assert ("read", result_id(100)) in case.around.unhandled.heard


def test_arguments_of_streams_are_pinned_until_the_stream_ends(case: Case) -> None:
    case.submit(case.ref(100, b"N"), options={"num_returns": "streaming"})
    assert list(case.around.references._pins) == [stream_pin(case.outbox.tasks[0][0])]


def test_small_values_are_stored_before_a_ref_to_them_leaves(case: Case) -> None:
    ref = case.puts.put(1)
    assert case.around.store.records == {}
    case.submit([ref])
    assert list(case.around.store.records) == [ref._id]


def test_large_arguments_are_an_object_of_their_own(case: Case) -> None:
    case.submit(b"x" * (ARGUMENTS_INLINE_BYTES + 1))
    task = case.outbox.tasks[0]
    assert task[1] == b"O" + task[0] + INDEX_ARGUMENTS
    assert case.around.store.named("put_packed") == [(task[0] + INDEX_ARGUMENTS,)]
    assert case.around.registered


def test_large_arguments_without_room_leave_nothing_behind(case: Case) -> None:
    case.around.store.fails["put_packed"] = full()
    with pytest.raises(ObjectStoreFullError):
        case.submit(b"x" * (ARGUMENTS_INLINE_BYTES + 1), [case.ref(100, b"N")])
    assert not case.around.references._pins and not case.outbox.tasks


def test_room_is_required_for_arguments_that_count(case: Case) -> None:
    case.around.store.fails["require"] = full()
    case.submit(b"small")
    with pytest.raises(ObjectStoreFullError):
        case.submit(b"x" * 5000)


@pytest.mark.parametrize(("error", "told"), [(BrokerError("away"), BrokerError), (full(), ObjectStoreFullError)])
def test_a_task_that_is_not_accepted_is_undone(case: Case, error: Exception, told: type[Exception]) -> None:
    case.outbox.fails = error
    ref = case.ref(100, b"N")
    for options in ({}, {"num_returns": 2}, {"num_returns": "streaming"}):
        with pytest.raises(told):
            case.submit(ref, options=options)
    around = case.around
    assert not around.references._pins and not around.flight.returns
    assert all(stream.ended for stream in around.streams.values()), "there is no producer to be stopped"


def test_what_a_task_submits_is_noted_as_its_children(case: Case) -> None:
    case.submit()
    case.parent = b"parent"
    case.submit()
    assert case.around.flight.children == {b"parent": [case.outbox.tasks[1][0]]}


def test_who_submits_much_collects(case: Case) -> None:
    case.around.references.dropped.extend([b"x"] * 2001)
    case.submit()
    assert case.collected == 1
