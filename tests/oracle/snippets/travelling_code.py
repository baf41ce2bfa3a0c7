"""What travels with a function: closures, globals, classes, modules."""

import collections
import dataclasses
import enum
import functools
import threading

import ray
from _report import attempt, get, show, start

FACTOR = 2


class Base:
    kind = "base"

    def describe(self):
        return f"{self.kind} {type(self).__name__}"


class Derived(Base):
    kind = "derived"

    def describe(self):
        return super().describe() + "!"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Color(enum.Enum):
    RED = 1


Pair = collections.namedtuple("Pair", "left right")


def helper(x):
    return x * FACTOR


@ray.remote
def uses_globals(x):
    return helper(x)


@ray.remote
def make(cls):
    return cls().describe()


@ray.remote
def same(value):
    return value


@ray.remote
def which(value):
    return value is Color.RED


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return ["wrapped", function(*args)]

    return wrapper


@ray.remote
@decorated
def wrapped(x):
    return x


start()
show("a global and a function", get(uses_globals.remote(3)))
FACTOR = 100
show("as it was at the first call", get(uses_globals.remote(3)))
show("classes", [get(make.remote(Base)), get(make.remote(Derived))])
show(
    "isinstance after the way", [isinstance(get(same.remote(Derived())), Base), get(same.remote(Point(1))) == Point(1)]
)
show("enum", [get(same.remote(Color.RED)) is Color.RED, get(which.remote(Color.RED))])
show("namedtuple", [get(same.remote(Pair(1, 2))) == Pair(1, 2), type(get(same.remote(Pair(1, 2)))) is Pair])
show("a decorator under it", get(wrapped.remote(1)))
functions = [ray.remote(lambda x, i=i: x + i) for i in range(3)]
show("lambdas", get([function.remote(10) for function in functions]))
offsets = []
for i in range(3):

    @ray.remote
    def closure():
        return i  # noqa: B023  is what is tested

    offsets.append(closure.remote())
show("closures in a loop", get(offsets))
show("partial", get(same.remote(functools.partial(helper, 3)))() in (6, 300))
show("a function of a module", get(same.remote(functools.reduce)) is functools.reduce)
show("builtins and types", [get(same.remote(len)) is len, get(same.remote(int)) is int])
show("a generator expression's list", get(same.remote([x * x for x in range(4)])))
attempt("a generator", lambda: get(same.remote(x for x in range(4))))
attempt("an open file", lambda: type(get(same.remote(open(__file__)))).__name__)  # noqa: SIM115
captured = threading.Lock()
attempt("a lock captured", lambda: ray.remote(lambda: captured.locked()).remote())
