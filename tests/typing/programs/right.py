"""A typed program in which nothing is wrong; only checkers read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from typing_extensions import assert_type

import rabbitry as ray
from rabbitry.actor import ActorClass, ActorHandle, ActorProxy
from rabbitry.remote_function import RemoteFunction
from rabbitry.util import as_completed, progress


@ray.remote
def square(x: int) -> int:
    return x * x


@ray.remote
def scale(x: float, by: float = 2.0, *, label: str = "") -> float:
    return x * by


@ray.remote(num_cpus=0.5, max_retries=2)
def counts(n: int) -> Iterator[int]:
    yield from range(n)


@ray.remote(num_returns=2)
def pair(n: int) -> tuple[int, str]:
    return n, str(n)


@ray.remote
def anything(x: Any) -> Any:
    return x


@ray.remote
def total(xs: list[float]) -> float:
    return sum(xs)


settings: dict[str, Any] = {"num_cpus": 2}
ray.init("auto", namespace="n", _temp_dir="/tmp/x")
ray.init(**settings)
ref = square.remote(2)
assert_type(ref, ray.ObjectRef[int])
assert_type(ray.get(ref), int)
assert_type(ray.get([ref, square.remote(3)]), list[int])
assert_type(ray.get([ref], timeout=1), list[int])
assert_type(square.remote(ref), ray.ObjectRef[int])
assert_type(scale.remote(1, by=3.0, label="a"), ray.ObjectRef[float])
assert_type(scale.remote(1.0, 2.0), ray.ObjectRef[float])
assert_type(scale.remote(scale.remote(1.0), label="x"), ray.ObjectRef[float])
assert_type(counts.remote(3), ray.ObjectRefGenerator[int])
for item in counts.remote(ref):
    assert_type(item, ray.ObjectRef[int])
a, b = pair.remote(1)
assert_type(a, ray.ObjectRef[Any])
assert_type(anything.remote(1), ray.ObjectRef[Any])
assert_type(ray.put("x"), ray.ObjectRef[str])
ready, rest = ray.wait([ref], num_returns=1, timeout=3)
assert_type(ready, list[ray.ObjectRef[int]])
assert_type(square.options(num_cpus=2).remote(2), ray.ObjectRef[int])
assert_type(square.options(num_returns=2).remote(2), list[ray.ObjectRef[Any]])
total.remote([1.0, 2])
x, y = ray.get([ref, ray.put("s")])


async def wait_for() -> None:
    assert_type(await ref, int)
    assert_type(await ref.as_future(), int)


class Counter:
    def __init__(self, start: int = 0, *, step: int = 1) -> None:
        self.n = start

    @ray.method
    def add(self, by: int) -> int:
        assert_type(self.double(by), int)
        return self.n + by

    @ray.method(num_returns=1, max_task_retries=2)
    def double(self, by: int) -> int:
        return by

    @ray.method
    async def later(self, text: str) -> str:
        return text

    @ray.method
    async def stream(self) -> AsyncIterator[bytes]:
        yield b""

    @ray.method(num_returns=2)
    def two(self) -> tuple[int, int]:
        return 1, 2

    def plain(self) -> int:
        return 1


CounterActor = ray.remote(Counter)
c = CounterActor.remote(3, step=2)
assert_type(c.add.remote(1), ray.ObjectRef[int])
assert_type(c.add.remote(square.remote(1)), ray.ObjectRef[int])
assert_type(c.double.remote(by=1), ray.ObjectRef[int])
assert_type(c.later.remote("x"), ray.ObjectRef[str])
assert_type(c.stream.remote(), ray.ObjectRefGenerator[bytes])
assert_type(c.two.remote(), list[ray.ObjectRef[Any]])
assert_type(c.add.options(name="x").remote(1), ray.ObjectRef[int])
named = CounterActor.options(name="c", lifetime="detached").remote(ref)
strong = ray.remote(num_cpus=1)(Counter).remote()
durable = ray.remote(durable=True)(Counter).remote(1)
assert_type(durable.add.remote(1), ray.ObjectRef[int])


def use(
    h: ActorHandle[Counter],
    p: ActorProxy[Counter],
    k: ActorClass[Counter],
    f: RemoteFunction[[int], int],
    any: ActorHandle,
) -> None:
    h.add.remote(1)
    any.whatever.remote(1)
    ray.kill(h)
    assert_type(p.add.remote(1), ray.ObjectRef[int])


use(c, named, CounterActor, square, c)
ray.get_actor("x").foo.remote(1)
ray.cancel(ref)
for one in anything.remote(1):
    assert_type(one, ray.ObjectRef[Any])
scale.remote(square.remote(1))
general: ray.ObjectRef[object] = square.remote(1)
shared: ActorHandle[Counter] = c
assert_type(list(as_completed([ref])), list[int])
assert_type(list(progress([ref])), list[ray.ObjectRef[int]])
