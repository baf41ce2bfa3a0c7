"""`get` and `wait` without a cluster: see `rabbitry.core.resolve.waiting`, `loading`, `reading` and `notes`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.core.ports import Executing
from rabbitry.core.resolve.loading import Loader
from rabbitry.core.resolve.notes import NoteHandler
from rabbitry.core.resolve.reading import Reading
from rabbitry.core.resolve.remainder import LEAST
from rabbitry.core.resolve.streams import Streams
from rabbitry.core.resolve.waiting import Waiting
from rabbitry.exceptions import GetTimeoutError, ObjectLostError, RabbitrySystemError, TaskError, store_error
from rabbitry.generators import ObjectRefGenerator, _Arrivals
from rabbitry.object_ref import ObjectRef, made_here, process
from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import object_id
from rabbitry_broker.messages import Completion
from rabbitry_broker.serialization import pack
from rabbitry_broker.store.large import ObjectLost
from tests.api.core.fakes import Surroundings, full, result_id, task_id

ERROR = records.ERROR + store_error(TaskError("f", "a traceback", ValueError("no")))


def plain(value: Any) -> bytes:
    return records.plain(pack(value).data)


class FakeInbox:
    """What is waited for comes at once, or not at all."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = values
        self.coming: dict[bytes, bytes] = {}
        self.accept: Callable[[dict[bytes, bytes]], None] = values.update
        self.heard: list[str] = []
        self.wanted: list[bytes] = []

    def wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], deadline: float | None) -> bool:
        self.heard.append("wait")
        self.wanted = wanted()
        self.accept(self.coming)
        return done()

    def subscribe(self, object_ids: list[bytes], deadline: float | None = None) -> None:
        self.heard.append("subscribe")

    def drain(self) -> None:
        self.heard.append("drain")
        self.accept(self.coming)

    def make_known(self, items: list[bytes]) -> None:
        self.values.update(zip(items[::2], items[1::2], strict=True))


@dataclass
class Case:
    """Waiting over fakes."""

    around: Surroundings = field(default_factory=Surroundings)
    executor: bool = False
    unsent: bool = False
    flushes: Any = None
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        around = self.around
        self.known = around.known()
        self.inbox = FakeInbox(around.values)
        self.loader = Loader(
            around.store, around.references, around.values, read=around.unhandled.read,
            settle=lambda: self.heard.append("settle"), bring_here=around.store.bring_here,
        )  # fmt: skip
        unblocked = lambda: self.heard.append("unblocked")  # noqa: E731
        self.waiting = Waiting(
            around.references, self.known, self.inbox, unread=around.unhandled, load=self.loader.load,
            flush=self.flush, unsent=lambda: self.unsent, within=around.store.within, kick=around.kick,
            executing=Executing(lambda: None, self.blocked, unblocked, nullcontext()) if self.executor else None,
        )  # fmt: skip

    def blocked(self, in_wait: bool) -> None:
        self.heard.append("blocked in wait" if in_wait else "blocked")

    def flush(self) -> None:
        self.heard.append("flush")
        if self.flushes is not None:
            raise self.flushes

    def ref(self, number: int, record: bytes | None = None) -> ObjectRef[Any]:
        ref: ObjectRef[Any] = made_here(result_id(number), self.around.references)
        if record is not None:
            self.around.values[ref._id] = record
        return ref


@pytest.fixture
def case() -> Case:
    return Case()


def test_what_is_here_is_returned_at_once(case: Case) -> None:
    assert case.waiting.get_one(case.ref(1, b"N"), 0) is None
    assert case.waiting.get_many([case.ref(1, b"N"), case.ref(2, plain("two"))], 0) == [None, "two"]
    assert case.inbox.heard == []


def test_what_is_not_here_is_sent_for_and_waited_for(case: Case) -> None:
    case.unsent = True
    case.inbox.coming = {result_id(1): plain(1)}
    assert case.waiting.get_one(case.ref(1), None) == 1
    assert (case.heard, case.inbox.heard) == (["flush"], ["subscribe", "wait"])


def test_a_get_that_takes_too_long_says_what_is_missing(case: Case) -> None:
    refs = [case.ref(1, b"N"), case.ref(2), case.ref(3)]
    with pytest.raises(
        GetTimeoutError, match=r"^Get timed out: some object\(s\) not ready\. After 0 s, 2 of 3 are missing\.$"
    ):
        case.waiting.get_many(refs, 0)
    assert case.inbox.wanted == [result_id(2), result_id(3)]


def test_the_first_error_ends_a_get_of_many(case: Case) -> None:
    case.inbox.accept = lambda coming: case.known.accept(Completion(b"", 0, 0.0, [result_id(2), ERROR]))
    with pytest.raises(ValueError, match="a traceback"):
        case.waiting.get_many([case.ref(1), case.ref(2)], None)
    assert case.known.error_listeners == []


def test_an_error_that_came_before_the_wait_ends_it_too(case: Case) -> None:
    def came(object_ids: list[bytes], deadline: float | None = None) -> None:
        case.around.values[result_id(2)] = ERROR

    case.inbox.subscribe = came  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="a traceback"):
        case.waiting.get_many([case.ref(1), case.ref(2)], None)
    assert case.inbox.heard == []


def test_refs_of_an_earlier_session_are_refused(case: Case) -> None:
    old = made_here(result_id(1), Surroundings().references)
    for get in (lambda: case.waiting.get_one(old, 0), lambda: case.waiting.get_many([old], 0)):
        with pytest.raises(ValueError, match="shut down"):
            get()


def test_what_is_left_over_is_known_the_next_time_in_drivers_only(case: Case) -> None:
    for each in (case, Case(executor=True)):
        refs = [each.ref(number, b"N") for number in range(LEAST + 1)]
        ready, rest = each.waiting.wait(refs, 1, 0)
        assert (ready, rest) == (refs[:1], refs[1:])
        assert each.waiting.remainder.knows(rest) == (each is case)
        assert each.waiting.wait(rest, LEAST, 0) == (rest, [])


def test_an_executor_is_told_of_waits_that_block() -> None:
    case = Case(executor=True)
    refs = [case.ref(1)]
    case.waiting.wait(refs, 1, 0)
    assert case.heard == [], "it does not block"
    case.waiting.wait(refs, 1, 5)
    with pytest.raises(GetTimeoutError):
        case.waiting.get_one(refs[0], 0.001)
    assert case.heard == ["blocked in wait", "unblocked", "blocked", "unblocked"]


def test_wait_splits_in_the_order_given(case: Case) -> None:
    refs = [case.ref(1), case.ref(2, b"N"), case.ref(3, b"N"), case.ref(4, b"N")]
    assert case.waiting.wait(refs, 2, None) == ([refs[1], refs[2]], [refs[0], refs[3]])
    assert case.waiting.wait(refs, 4, 1) == (refs[1:], refs[:1])


def test_who_waits_for_a_failure_has_learnt_of_it(case: Case) -> None:
    case.around.unhandled.unread = {result_id(1)}
    case.waiting.wait([case.ref(1, ERROR)], 1, None)
    assert case.around.unhandled.heard == [("read", result_id(1))]


@pytest.mark.parametrize("deadline", [None, 1e12])
def test_what_finds_no_room_is_sent_later(case: Case, deadline: float | None) -> None:
    case.unsent, case.flushes = True, full()
    case.waiting.send_waiting(deadline)
    assert case.around.kicks == 1


def test_what_cannot_be_sent_in_time_is_sent_later(case: Case) -> None:
    case.unsent, case.flushes = True, RabbitryBrokerError("away")
    case.waiting.send_waiting(time.monotonic() - 1)
    assert case.around.kicks == 1
    with pytest.raises(RabbitryBrokerError):
        case.waiting.send_waiting()


# -- loading ---------------------------------------------------------------------------------------------------------


def test_values_with_refs_settle_them(case: Case) -> None:
    packed = pack([1])
    record = records.containing((result_id(9),), packed.data)
    assert case.loader.load(result_id(1), record) == [1]
    assert case.loader.load(result_id(1), record, settle=False) == [1]
    assert case.heard == ["settle"]
    assert case.loader.load(result_id(1), b"N") is None


def test_a_failure_is_raised_and_counts_as_read(case: Case) -> None:
    with pytest.raises(ValueError, match="a traceback"):
        case.loader.load(result_id(1), ERROR)
    assert case.around.unhandled.heard == [("read", result_id(1))]


def test_nonsense_is_an_error_of_its_own(case: Case) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        case.loader.load(result_id(1), b"?")
    with pytest.raises(RabbitrySystemError):
        case.loader.load(result_id(1), b"Pnonsense")


class Lost:
    """A store whose large values are lost."""

    def __init__(self, stands: bytes | None) -> None:
        self.stands = stands

    def read_large(self, key: bytes, manifest: Any) -> Any:
        raise ObjectLost(key.hex())

    def fetch(self, keys: Any) -> list[bytes | None]:
        return [self.stands]


@pytest.mark.parametrize("stands", [None, plain("another")])
def test_a_large_value_that_is_gone_is_lost_or_was_replaced(
    case: Case, stands: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "read_manifest", lambda record: record)
    case.loader._store = Lost(stands)
    key = result_id(1)
    case.around.values[key] = b"L..."
    if stands is None:
        with pytest.raises(ObjectLostError):
            case.loader.load(key, b"L...")
    else:
        assert case.loader.load(key, b"L...") == "another"
        assert case.around.values[key] == stands


def test_only_large_values_are_brought_here(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "read_manifest", lambda record: record)
    case.around.values.update({result_id(1): b"N", result_id(2): b"L..."})
    case.loader.bring_here([result_id(1), result_id(2), result_id(3)])
    assert case.around.store.named("bring_here") == [(result_id(2), b"L...")]


# -- generators ------------------------------------------------------------------------------------------------------


class NoThreads(ThreadPoolExecutor):
    """Refuses to lend a thread."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a thread is asked for")


class CaseOfGenerator(Case):
    """A generator over fakes."""

    def generator(self, *, counted: bool = False) -> ObjectRefGenerator:
        around = self.around
        self.streams = Streams(
            around.references, around.values, around.streams, store=around.store, keys=around.identity.keys,
            callbacks=self.known.callbacks, unheld=lambda key, record: None, cancel=around.store.cancel,
        )  # fmt: skip
        reader = Reading(
            around.references, around.values, self.streams, waiting=self.waiting, inbox=self.inbox,
            when_ready=self.when_ready, store=around.store, flush=self.flush, kick=around.kick,
        )  # fmt: skip
        return ObjectRefGenerator(reader, task_id(1), self.streams.open(task_id(1), counted=counted))

    def item(self, number: int) -> bytes:
        return object_id(task_id(1), number)

    def when_ready(self, key: bytes, callback: Callable[[], None]) -> None:
        if key in self.around.values:
            callback()
        else:
            self.known.callbacks.setdefault(key, []).append(callback)

    def bring(self, number: int, record: bytes = b"N") -> None:
        """An item comes, and what waited for it is called."""
        self.known.accept(Completion(b"", 0, 0.0, [self.item(number), record]))
        while self.known.due:
            self.known.due.popleft()()


def test_a_generator_hands_out_items_as_they_come_and_ends() -> None:
    case = CaseOfGenerator()
    generator = case.generator(counted=True)
    case.inbox.coming = {case.item(1): b"N"}
    assert generator.next_ready()
    assert next(generator)._id == case.item(1)
    assert [call[0] for call in case.around.store.named("call")] == [b"INCR"]
    assert case.around.references.counts[case.item(1)] == 1
    assert generator._next_sync(0).is_nil(), "no item came in time"
    case.inbox.coming = {case.item(0): records.counted(1)}
    assert not generator.is_finished()
    assert list(generator) == [] and generator.is_finished()
    assert case.around.streams[task_id(1)].ended and list(case.streams.abandoned) == [task_id(1)]
    del generator
    assert len(case.streams.abandoned) == 2


def test_a_producer_that_broke_down_at_the_end_tells_it_in_one_more_item() -> None:
    case = CaseOfGenerator()
    generator = case.generator()
    case.inbox.coming = {case.item(0): ERROR}
    ref = next(generator)
    assert ref._id == case.item(1) and case.around.store.records[case.item(1)] == ERROR
    assert list(generator) == []


@pytest.mark.parametrize("how", ["consumed", "handed out"])
def test_a_ref_on_an_item_that_was_looked_at_before_keeps_it(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CaseOfGenerator()
    home: Any = SimpleNamespace(on_ready=lambda ref, callback: None)
    monkeypatch.setattr(process, "start", lambda: home)
    generator = case.generator()
    ahead = generator._get_next_ref_n(1)
    case.inbox.coming = {case.item(1): b"N"}
    if how == "consumed":
        generator._consume_next_ref_n(1)  # hands a ref out that nobody takes
    else:
        assert next(generator) == ahead[0]
    assert case.around.references.collect(case.around.values) == []
    assert case.around.values[case.item(1)] == b"N"
    ahead.clear()
    assert case.around.references.collect(case.around.values) == [(case.item(1), b"N")]


@pytest.fixture
def case_of_generator(monkeypatch: pytest.MonkeyPatch) -> CaseOfGenerator:
    case = CaseOfGenerator()
    home: Any = SimpleNamespace(
        on_ready=lambda ref, callback: case.when_ready(ref._id, callback),
        is_resolved=lambda ref: ref._id in case.around.values,
    )
    monkeypatch.setattr(process, "start", lambda: home)
    return case


def test_coroutines_wait_for_items_without_threads(case_of_generator: CaseOfGenerator) -> None:
    case = case_of_generator
    generator = case.generator()
    callbacks = case.known.callbacks

    async def read() -> None:
        asyncio.get_running_loop().set_default_executor(NoThreads())
        given_up = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        first = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)
        assert {key: len(waiting) for key, waiting in callbacks.items()} == {case.item(0): 1, case.item(1): 1}
        case.bring(1)
        assert (await first)._id == case.item(1)
        case.bring(2)
        assert (await anext(generator))._id == case.item(2)
        last = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)
        case.bring(0, records.counted(3))
        await asyncio.sleep(0)
        assert not last.done(), "the end was noticed before the item"
        case.bring(3)
        assert (await last)._id == case.item(3)
        assert [item async for item in generator] == []
        assert not callbacks

    asyncio.run(read())


def test_a_coroutine_that_waits_for_an_item_learns_of_the_end(case_of_generator: CaseOfGenerator) -> None:
    case = case_of_generator

    async def read() -> None:
        last = asyncio.ensure_future(anext(case.generator()))
        await asyncio.sleep(0)
        case.bring(0, records.counted(0))
        with pytest.raises(StopAsyncIteration):
            await last

    asyncio.run(read())


def test_who_looks_ahead_again_and_again_waits_once_for_the_end(case_of_generator: CaseOfGenerator) -> None:
    case = case_of_generator
    generator = case.generator()
    for number in range(1, 20):
        ahead = generator._get_next_ref_n(2)
        case.bring(number)
        assert next(generator)._id == case.item(number)
    assert {key: len(waiting) for key, waiting in case.known.callbacks.items()} == {case.item(0): 1}
    case.bring(0, records.counted(19))
    assert ahead[1]._id == case.item(20) and case.around.values[case.item(20)][:1] == records.ERROR
    assert generator._get_next_ref_n(3)[2]._id in case.around.values, (
        "what is looked at behind the end is answered at once"
    )


def test_a_generator_that_was_looked_ahead_of_can_be_dropped(case_of_generator: CaseOfGenerator) -> None:
    """Its producer is to end then, and refs on what never comes are answered all the same."""
    case = case_of_generator
    generator = case.generator()
    (ahead,) = generator._get_next_ref_n(1)
    del generator
    assert list(case.streams.abandoned) == [task_id(1)]
    case.bring(0, ERROR)
    assert case.around.values[ahead._id] == ERROR


def test_wait_takes_generators_for_their_next_item() -> None:
    case = CaseOfGenerator()
    generator, ref = case.generator(), case.ref(7)
    assert case.waiting.wait([generator, ref], 1, 0) == ([], [generator, ref])
    assert set(case.inbox.wanted) == {case.item(0), case.item(1), result_id(7)}
    case.inbox.coming = {case.item(1): b"N"}
    assert case.waiting.wait([generator, ref], 1, None) == ([generator], [ref])


# -- notes -----------------------------------------------------------------------------------------------------------


def test_notes_cancel_claim_and_warn(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("rabbitry"), "propagate", True)
    heard: list[Any] = []
    notes = NoteHandler(
        lambda task, *, force, recursive: heard.append((task, force, recursive)),
        heard.append,
        lambda node, tasks: heard.append((node, *tasks)),
    )
    notes.handle(Completion(b"", 0, 0.0, [b"force"], [task_id(1)], "cancel"))
    notes.handle(Completion(b"", 0, 0.0, [], [task_id(2)], "cancel-claimed"))
    notes.handle(Completion(b"", 0, 0.0, [b"node"], [task_id(3), task_id(4)], "cancel-passed"))
    notes.handle(Completion(b"", 0, 0.0, [b"mind the gap"], [], "warning"))
    notes.handle(Completion(b"", 0, 0.0, [b"of a newer node"], [], "unknown"))
    assert heard == [(task_id(1), True, False), task_id(2), (b"node", task_id(3), task_id(4))]
    assert caplog.messages == ["mind the gap"]


def test_a_coroutine_that_waits_for_an_item_is_woken_once_by_the_item_and_the_end() -> None:
    nobody: Any = SimpleNamespace(when_ready=lambda *_: None, _on_ready=lambda *_: None)
    woken: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        soon = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given: (woken.append(given), soon(*given))[1]  # type: ignore[assignment]
        arrivals = _Arrivals()
        for _ in range(2):
            waiting = asyncio.ensure_future(arrivals.wait(nobody, b"item", nobody, lambda: False))
            await asyncio.sleep(0)
            arrivals._wake()
            arrivals._wake()
            await waiting
        waiting = asyncio.ensure_future(arrivals.wait(nobody, b"item", nobody, lambda: False))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        arrivals._wake()

    asyncio.run(main())
    assert len(woken) == 2, "and who waits no more is not woken"
