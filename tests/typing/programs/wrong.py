"""A typed program with an error in each line marked so; only checkers read it."""

from __future__ import annotations

import rabbitry as ray


@ray.remote
def square(x: int) -> int:
    return x * x


class Counter:
    def __init__(self, start: int = 0) -> None: ...
    @ray.method
    def add(self, by: int) -> int:
        return by


CounterActor = ray.remote(Counter)
c = CounterActor.remote(1)
r = ray.put("s")
ray.init(adress="auto")  # E
ray.init(num_cpus="2")  # E
square.remote("a")  # E
square.remote()  # E
square.remote(1, 2)  # E
square.remote(y=1)  # E
square.remote(r)  # E
square.options(num_cpu=1)  # E
square.options(num_cpus="1")  # E
square.options(durable=True)  # E
ray.remote(num_cpu=1)  # E
ray.remote(priority="high")  # E
CounterActor.remote("x")  # E
CounterActor.remote(1, 2)  # E
CounterActor.remote(begin=2)  # E
CounterActor.options(max_retries=1)  # E
c.add.remote("x")  # E
c.add.remote()  # E
c.add.remote(1, 2)  # E
c.add.options(num_cpus=1)  # E
c.ad.remote(1)  # E
x: str = ray.get(square.remote(1))  # E
y: ray.ObjectRef[str] = square.remote(1)  # E
ray.get(square.remote(1), timeout="x")  # E
square(1) + 1  # E
ray.wait(r)  # E
ray.get(1)  # E
ray.kill(r)  # E
r + 1  # E
len(r)  # E
for _ in square.remote(1):  # E
    pass


@ray.method(num_cpus=1)  # E
def m(self: Counter) -> None: ...
