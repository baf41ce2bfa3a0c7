"""`num_returns` as a number: shapes of results, and values that do not fit."""

import threading

import numpy
import ray
from _report import attempt, get, show, start


@ray.remote
def give(value):
    return value


@ray.remote(num_returns=2, max_retries=0)
def two(value):
    return value


@ray.remote(num_returns=0)
def none(value=None):
    return value


@ray.remote(num_returns=2)
def generated():
    yield "a"
    yield "b"


@ray.remote(num_returns=2, max_retries=0)
def generated_too_few():
    yield "a"


@ray.remote(num_returns=2, max_retries=0)
def generated_more():
    yield from range(5)


@ray.remote(num_returns=2, max_retries=0)
def generated_failing():
    yield "a"
    raise KeyError("late")


@ray.remote(num_returns=1, max_retries=0)
def one_of_many():
    yield "a"
    raise KeyError("not asked for")


@ray.remote(num_returns=1, max_retries=0)
def one_of_none():
    yield from ()


@ray.remote(num_returns=1, max_retries=0)
def one_of_failing():
    raise KeyError("at once")
    yield "a"


@ray.remote(num_returns=1, max_retries=0)
async def one_of_asynchronous():
    yield "a"


@ray.remote
class Methods:
    @ray.method(num_returns=1)
    def one_of_many(self):
        yield "a"
        yield "b"

    @ray.method(num_returns=2)
    def expression(self):
        return (each for each in "abc")


@ray.remote(num_returns=2, max_retries=0)
def half():
    return "a", threading.Lock()


@ray.remote(num_returns=2, max_retries=0)
def fail():
    raise ValueError("both")


start()
show("one is a ref", type(give.remote(1)).__name__)
refs = two.remote((1, 2))
show("two are a list", [type(refs).__name__, len(refs), get(refs)])
show("different refs of one task", [refs[0] != refs[1], refs[0].task_id() == refs[1].task_id()])
show("zero is None", none.remote())
show("zero with a value", none.remote(5))
show("num_returns=1 by options", get(two.options(num_returns=1).remote([1, 2])))
show("three by options", get(two.options(num_returns=3).remote("abc")))
show("a list", get(two.remote([3, 4])))
show("an array", [int(x) for x in get(two.remote(numpy.array([5, 6])))])
attempt("a dict", lambda: get(two.remote({"a": 1, "b": 2})))
attempt("a set", lambda: sorted(get(two.remote({1, 2}))))
attempt("too few", lambda: get(two.remote((1,))))
attempt("too many", lambda: get(two.remote((1, 2, 3))))
attempt("the first of too many", lambda: get(two.remote((1, 2, 3))[0]))
attempt("not a sequence", lambda: get(two.remote(5)))
attempt("None", lambda: get(two.remote(None)))
attempt("a generator function", lambda: get(generated.remote()))
attempt(
    "a generator that ends early, first",
    lambda: get(generated_too_few.remote()[0]),
)
attempt("a generator that ends early, second", lambda: get(generated_too_few.remote()[1]))
for outcome in (0, 1):
    attempt(f"a generator that goes on, result {outcome}", lambda: get(generated_more.remote()[outcome]))  # noqa: B023
    attempt(f"a generator that fails late, result {outcome}", lambda: get(generated_failing.remote()[outcome]))  # noqa: B023
    attempt(f"the second cannot be pickled, result {outcome}", lambda: get(half.remote()[outcome]))  # noqa: B023
first, second = fail.remote()
attempt("an error is in the first", lambda: get(first))
attempt("and in the second", lambda: get(second))
show("only one of them used", get(two.remote((7, 8))[1]))
attempt("a generator, one result", lambda: get(one_of_many.remote()))
attempt("a generator without items, one result", lambda: get(one_of_none.remote()))
attempt("a generator that fails at once, one result", lambda: get(one_of_failing.remote()))
attempt("an asynchronous generator, one result", lambda: get(one_of_asynchronous.remote()))
attempt("a generator expression, one result", lambda: get(one_of_many.options(num_returns=1).remote()))
methods = Methods.remote()
attempt("a method's generator, one result", lambda: get(methods.one_of_many.remote()))
attempt("a method's generator expression", lambda: get(methods.expression.remote()))
