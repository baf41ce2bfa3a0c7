"""What a client knows of its own work: calls that fail half way are undone, counters come back to nothing."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import RabbitrySystemError, TaskCancelledError
from rabbitry_broker.errors import BrokerError
from tests.end_to_end.waiting import wait_until


@rabbitry.remote
def none() -> None:
    return None


@rabbitry.remote(resources={"nowhere": 1})
def never() -> None:
    return None


@rabbitry.remote(num_returns=3)
def three(_: Any) -> tuple[int, int, int]:
    return 1, 2, 3


@rabbitry.remote(num_returns="streaming")
def stream(_: Any) -> Any:
    yield 1


@rabbitry.remote(num_returns="dynamic")
def dynamic(_: Any) -> Any:
    yield 1


@rabbitry.remote
def cancel_it(refs: list[Any], which: int) -> None:
    rabbitry.cancel(refs[which])


@rabbitry.remote(max_pending_calls=2)
class Actor:
    def __init__(self, _: Any = None) -> None:
        pass

    def take(self, _: Any = None) -> int:
        return 1

    @rabbitry.method(num_returns=2)
    def two(self, _: Any) -> tuple[int, int]:
        return 1, 2

    def children(self) -> int:
        rabbitry.get(none.remote())
        return len(current.client().children)


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def test_cancel_ends_every_result(session: str) -> None:
    """Of tasks that wait for their arguments: no node knows of these."""
    blocker = never.remote()
    actor = Actor.remote()
    rabbitry.get(actor.take.remote())
    generator = stream.remote(blocker)
    waiting: dict[str, tuple[Any, list[Any]]] = {}
    for name, refs in {
        "several": three.remote(blocker),
        "several, by the last one": three.remote(blocker)[::-1],
        "dynamic": [dynamic.remote(blocker)],
        "of an actor": actor.two.remote(blocker),
        "of an actor, behind that": [actor.take.remote()],
    }.items():
        waiting[name] = (refs[0], refs)
    waiting["stream"] = (generator, [generator.completed()])
    for cancelled, _ in reversed(waiting.values()):  # what waits behind another call would run once that is cancelled
        rabbitry.cancel(cancelled)
    for _, refs in waiting.values():
        for ref in refs:
            with pytest.raises(TaskCancelledError):
                rabbitry.get(ref, timeout=20)
    assert not current.client().returns
    borrowed = three.remote(blocker)
    rabbitry.get(cancel_it.remote(borrowed, 1))
    for ref in borrowed:
        with pytest.raises(TaskCancelledError):
            rabbitry.get(ref, timeout=20)
    rabbitry.cancel(blocker)


def test_who_waits_is_woken_by_its_own_process(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads the inbox would look again after seconds only: here, never."""
    monkeypatch.setattr("rabbitry.core.resolve.inbox.KEY_POLL_SECONDS", 1000.0)
    monkeypatch.setattr("rabbitry.core.resolve.inbox.KEY_POLL_MAX_SECONDS", 25.0)
    client = current.client()
    blocker = never.remote()
    for wait in (lambda ref: rabbitry.wait([ref]), lambda ref: ref.future().exception(20)):
        ref = three.remote(blocker)[0]
        thread = threading.Thread(target=wait, args=(ref,), daemon=True)
        thread.start()
        wait_until(lambda: client.inbox._blocking)
        rabbitry.cancel(ref)
        thread.join(15)
        assert not thread.is_alive()
    rabbitry.cancel(blocker)


def test_a_callback_may_wait_for_another_object(session: str) -> None:
    first, second = none.remote(), none.remote()
    rabbitry.get(second)
    done = threading.Event()
    first.future().add_done_callback(lambda _: (rabbitry.get(none.remote()), done.set()))
    assert done.wait(20)


def test_no_callback_is_lost(session: str) -> None:
    """Some are added while the result comes."""
    client = current.client()
    for _ in range(50):
        ref = none.remote()
        called = [threading.Event() for _ in range(20)]
        for each in called:
            client.when_ready(ref._id, each.set)
        assert all(each.wait(20) for each in called)


def test_what_fails_half_way_is_undone(session: str) -> None:
    client = current.client()
    actor = Actor.remote()
    rabbitry.get(actor.take.remote())
    ref = rabbitry.put([1])
    wait_until(lambda: not client.in_flight)  # what earlier tests have cancelled holds its arguments until it ended
    pins = dict(client.references._pins)

    def refuse(*_: object, **__: object) -> None:
        raise BrokerError("no")

    bad = Unpicklable()
    for call in (actor.take.remote, none.options(num_returns=2).remote, three.remote, stream.remote, Actor.remote):
        for _ in range(3):
            with pytest.raises(TypeError):
                call(bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client.publisher, "publish", refuse)
        patch.setattr(client.store, "park", refuse)
        # What another thread is just sending is accepted, and kept for the next time: then no call would raise.
        sending = next(step for step in client._service.steps if step.name == "sending what waits")
        patch.setattr(sending, "run", lambda: None)
        for call in (actor.take.remote, three.remote, stream.remote):
            with pytest.raises(RabbitrySystemError):
                call([ref])
    assert not client.in_flight and not client.actors.tracked and not client.returns
    assert client.references._pins == pins
    wait_until(lambda: not client.streams)
    assert rabbitry.get(actor.take.remote(), timeout=20) == 1


def test_an_actor_that_was_not_created_does_not_keep_its_name(session: str) -> None:
    with pytest.raises(TypeError):
        Actor.options(name="once more").remote(Unpicklable())
    actor = Actor.options(name="once more").remote()
    assert rabbitry.get(actor.take.remote(), timeout=20) == 1


def test_in_flight_comes_back_to_nothing(session: str) -> None:
    """Several threads submit and receive at the same time; some results are found by the slow poll."""
    client = current.client()
    wait_until(lambda: not client.in_flight)

    def work() -> None:
        for _ in range(10):
            refs = [none.remote() for _ in range(60)]
            client.inbox._poll_keys([ref._id for ref in refs])
            rabbitry.get(refs)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    blocker = never.remote()
    wait_until(lambda: client.in_flight == 1)
    rabbitry.cancel(blocker)


def test_a_failing_step_stops_no_other(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = current.client()
    rabbitry.get(none.remote())
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise ValueError("of the test")

    sending = next(step for step in client._service.steps if step.name == "sending what waits")
    monkeypatch.setattr(sending, "run", fail)
    refs = [rabbitry.put(at) for at in range(50)]
    del refs
    wait_until(lambda: len(calls) >= 3 and not client.references.dropped)


def test_the_list_of_cancelled_tasks_ends_by_itself(session: str) -> None:
    client = current.client()
    key = client.keys.cancelled
    ref = none.remote()
    client.store.announce_cancel(client.keys, [ref._id[:24]], client.id, force=False, recursive=True)
    assert client.store.call(b"ZSCORE", key, ref._id[:24]) is not None
    assert client.store.call(b"TTL", key) > 0


def test_children_of_actor_calls_are_forgotten(session: str) -> None:
    actor = Actor.remote()
    counts = [rabbitry.get(actor.children.remote()) for _ in range(5)]
    assert max(counts) <= 1
