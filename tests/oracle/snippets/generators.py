"""Streaming generators: refs come while the task runs."""

import pickle
import tempfile
from pathlib import Path

import ray
from _report import TIMEOUT, attempt, get, show, start, wait_for


@ray.remote
def count(n):
    for i in range(n):  # noqa: UP028  see `delegates`
        yield i


@ray.remote(max_retries=0)
def fails_at(n):
    for i in range(n):  # noqa: UP028
        yield i
    raise ValueError("after some")


@ray.remote(max_retries=0)
def delegates(n):
    yield from range(n)


@ray.remote(num_returns="streaming")
def explicit():
    yield "a"


@ray.remote
def step(directory):
    yield 1
    wait_for(Path(directory, "go"))
    yield 2


@ray.remote
async def asynchronous(n):
    for i in range(n):
        yield i


@ray.remote
def total(*numbers):
    return sum(numbers)


start()
generator = count.remote(3)
show("kind", type(generator).__name__)
refs = list(generator)
show("refs in order", [type(refs[0]).__name__, get(refs)])
attempt("at its end", lambda: next(generator))
show("empty", list(count.remote(0)))
show("explicitly streaming", [get(ref) for ref in explicit.remote()])
attempt(
    "async generator",
    lambda: [get(ref) for ref in asynchronous.remote(3)],
    differs="Ray takes async generators as tasks, but fails to run them",
)
attempt(
    "yield from an iterator",
    lambda: [get(ref) for ref in delegates.remote(2)],
    differs="Ray sends into the iterator, which not all can take",
)
show("refs as arguments", get(total.remote(*count.remote(4))))

with tempfile.TemporaryDirectory() as directory:
    generator = step.remote(directory)
    show("the first before the task ends", get(next(generator)))
    show("wait: the second is not there", [len(part) for part in ray.wait([generator], timeout=0.1)])
    show("not finished", generator.is_finished())
    Path(directory, "go").touch()
    ready, rest = ray.wait([generator], timeout=TIMEOUT)
    show("wait: now it is", [ready == [generator], rest])
    show("the second", get(next(generator)))
    attempt("then the end", lambda: next(generator))
    show("finished", generator.is_finished())

generator = count.remote(2)
get(generator.completed())
show("completed", [get(ref) for ref in generator])

generator = fails_at.remote(2)
outcomes = []
for ref in generator:
    try:
        outcomes.append(get(ref))
    except ValueError as error:
        outcomes.append(type(error.cause).__name__)
show("an error is the last item", outcomes)
kept = count.remote(1), fails_at.remote(1)  # who drops a generator cancels its task
attempt("completed gives None", lambda: get(kept[0].completed()))
attempt("completed of a failed one", lambda: get(kept[1].completed()))

generator = count.remote(1)
attempt("pickled", lambda: len(pickle.dumps(generator)))
attempt("as an argument", lambda: total.remote(generator))
attempt("send", lambda: generator.send(1))
attempt("throw", lambda: generator.throw(ValueError()))
attempt("close", lambda: generator.close())
attempt("len", lambda: len(generator))
attempt("streaming of a plain function", lambda: ray.remote(num_returns="streaming")(lambda: 1))
attempt("an unknown form", lambda: ray.remote(num_returns="other")(lambda: 1))
show("iter is itself", iter(generator) is generator)

generator = count.remote(2)
get(generator.completed())
steps = []
for _ in range(2):
    steps.append([generator.next_ready(), generator.is_finished(), get(next(generator))])
attempt("the end", lambda: next(generator))
show("ready and finished on the way and at the end", [*steps, generator.next_ready(), generator.is_finished()])
show("members", [name for name in ("asend", "athrow", "aclose", "_generator_ref") if hasattr(generator, name)])
