"""Tasks that submit tasks and wait for them, on fewer CPUs than there are tasks waiting."""

import ray
from _report import attempt, get, show, start


@ray.remote
def fib(n):
    return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))


@ray.remote
def depth(n):
    return 0 if n == 0 else 1 + ray.get(depth.remote(n - 1))


@ray.remote
def even(n):
    return True if n == 0 else ray.get(odd.remote(n - 1))


@ray.remote
def odd(n):
    return False if n == 0 else ray.get(even.remote(n - 1))


@ray.remote
def square(x):
    return x * x


@ray.remote
def waits(count):
    waiting = [square.remote(i) for i in range(count)]
    total = 0
    while waiting:
        ready, waiting = ray.wait(waiting)
        total += ray.get(ready[0])
    return total


@ray.remote(max_retries=0)
def fails_below(n):
    if n == 0:
        raise LookupError("bottom")
    return ray.get(fails_below.remote(n - 1))


@ray.remote
def catches():
    try:
        ray.get(fails_below.remote(0))
    except LookupError:
        return "caught"


@ray.remote
def local_function(x):
    @ray.remote
    def inner(y):
        return x + y

    return ray.get(inner.remote(1))


start(num_cpus=1)
show("recursive", get(fib.remote(6)))
show("deep on one CPU", get(depth.remote(10)))
show("mutually recursive", get(even.remote(5)))
show("wait inside", get(waits.remote(5)))
show("side by side", get([waits.remote(3) for _ in range(3)]))
attempt("an error from below", lambda: get(fails_below.remote(3)))
show("caught in the task", get(catches.remote()))
show("defined inside of a task", get(local_function.remote(41)))
show("a remote function as an argument", get(ray.remote(lambda f, x: ray.get(f.remote(x))).remote(square, 7)))
