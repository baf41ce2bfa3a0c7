"""A client keeps nothing of what is over: every collection in it is counted, whatever it is called."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from tests.end_to_end.waiting import wait_until

ROUNDS = 6
KEPT = 3  # what the limits below are set to
MODULES = ("rabbitry.", "rabbitry_broker.")


@rabbitry.remote
class Actor:
    def take(self, *refs: Any) -> list[Any]:
        return [rabbitry.put(1)]

    def fail(self) -> None:
        raise ValueError("of the test")

    def numbers(self) -> Iterator[int]:
        yield from range(3)

    def sizes(self) -> dict[str, int]:
        return sizes()


@rabbitry.remote(num_returns=2)
def two() -> tuple[int, int]:
    return 1, 2


@rabbitry.remote
def fail() -> None:
    raise ValueError("of the test")


@rabbitry.remote
def use(actor: Any, *refs: Any) -> Any:
    return rabbitry.get(actor.take.remote(*refs))


@rabbitry.remote(num_returns="streaming")
def numbers() -> Iterator[int]:
    yield from range(5)


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def one_round(turn: int) -> None:
    actor = Actor.options(name=f"actor {turn}").remote()

    def fresh() -> int:
        return turn

    function = rabbitry.remote(fresh).options(name=f"fresh {turn}")
    large = rabbitry.put(b"x" * 300_000)
    refs = [function.remote(), *two.remote(), rabbitry.put([large]), rabbitry.put(turn)]
    rabbitry.get(refs)
    rabbitry.get(use.remote(actor, *refs))
    kept = rabbitry.get(actor.take.remote(large))
    rabbitry.get(kept)
    assert [rabbitry.get(each) for each in numbers.remote()] == [0, 1, 2, 3, 4]
    next(numbers.remote())
    list(actor.numbers.options(num_returns="streaming").remote())
    for failing in (fail.remote(), actor.fail.remote()):
        with pytest.raises(ValueError, match="of the test"):
            rabbitry.get(failing)
    fail.remote()
    with pytest.raises(TypeError):
        actor.take.remote(Unpicklable())
    waiting = rabbitry.remote(fresh).options(resources={f"nowhere {turn}": 1}).remote()
    rabbitry.wait([waiting], timeout=0)
    waiting.future()
    rabbitry.cancel(waiting)
    killed = Actor.remote()
    rabbitry.get(killed.take.remote())
    rabbitry.kill(killed)
    with pytest.raises(rabbitry.exceptions.ActorDiedError):
        rabbitry.get(killed.take.remote())


def sizes() -> dict[str, int]:
    """Return the lengths of all collections that can be reached from this process's client, by path."""
    gc.collect()
    client = current.client()
    client.publisher.flush()  # some of the last messages stay unconfirmed until the next one is sent
    found: dict[str, int] = {}
    seen = {id(client)}
    todo: list[tuple[str, Any]] = [("client", client)]
    while todo:
        path, thing = todo.pop()
        attributes = dict(getattr(thing, "__dict__", {}))
        for slot in [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]:
            if hasattr(thing, slot):
                attributes[slot] = getattr(thing, slot)
        for name, value in attributes.items():
            if id(value) in seen:
                continue
            seen.add(id(value))
            if getattr(value, "maxlen", None) is not None:
                continue  # a deque that is bounded by itself
            if hasattr(value, "__len__") and not isinstance(value, (str, bytes, bytearray, memoryview, tuple)):
                found[f"{path}.{name}"] = len(value)
            elif type(value).__module__.startswith(MODULES):
                todo.append((f"{path}.{name}", value))
    return found


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return what has grown by more than what one round may have on its way."""
    return {path: (before.get(path, 0), size) for path, size in after.items() if size > before.get(path, 0) + 3}


def test_nothing_grows(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "actors.calls.LINES_KEPT",
        "actors.directory.DEAD_KEPT",
        "resolve.values.COUNTED_KEPT",
        "service.infeasible.QUEUES_KEPT",
        "unhandled.AWAITED_KEPT",
    ):
        monkeypatch.setattr(f"rabbitry.core.{name}", KEPT)
    monkeypatch.setattr("rabbitry_broker.queues.known.QUEUES_KEPT", KEPT)
    monkeypatch.setattr("rabbitry_broker.queues.rabbitmq.publisher.QUEUES_KEPT", KEPT)
    monkeypatch.setattr("rabbitry_broker.store.tags.TAGS_KEPT", KEPT)
    client = current.client()
    client.actors.calls._sweep_at = KEPT
    watcher = Actor.remote()
    for turn in range(KEPT):
        one_round(turn)
    first, first_there = sizes(), rabbitry.get(watcher.sizes.remote())
    found = {path.rpartition(".")[2] for path in first}  # several parts share some: which path is found is chance
    assert {"_dirty", "_lines", "counts", "_unheld", "_counted", "_ending", "queues_used", "unread"} <= found
    for turn in range(ROUNDS):
        one_round(KEPT + turn)
        rabbitry.get([watcher.take.remote(rabbitry.put(turn)) for _ in range(3)])
    wait_until(lambda: not client.in_flight)
    last: list[dict[str, tuple[int, int]]] = []

    def is_flat() -> bool:
        last[:] = [grown(first, sizes())]
        return not last[0]

    try:
        wait_until(is_flat)
    except AssertionError:
        raise AssertionError(f"grown in {ROUNDS} rounds: {last[0]}") from None
    assert not grown(first_there, rabbitry.get(watcher.sizes.remote()))
