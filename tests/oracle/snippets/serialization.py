"""Values with ways of their own to be pickled."""

import datetime
import decimal
import fractions
import pathlib
import uuid

import numpy
import ray
from _report import attempt, get, show, start


class Reduces:
    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        return (Reduces, (self.x + 1,))


class State:
    def __init__(self, x):
        self.x, self.cache = x, "large"

    def __getstate__(self):
        return {"x": self.x}

    def __setstate__(self, state):
        self.x, self.cache = state["x"], "made anew"


class Slots:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Refuses:
    def __reduce__(self):
        raise RuntimeError("will not travel")


class BreaksOnArrival:
    def __reduce__(self):
        return (arrive, ())


def arrive():
    raise LookupError("broke on arrival")


@ray.remote(max_retries=0)
def same(value):
    return value


@ray.remote(max_retries=0)
def look(value):
    return "looked"


@ray.remote(max_retries=0)
def give(kind):
    return BreaksOnArrival() if kind == "arrival" else Refuses()


start()
show("__reduce__", get(ray.put(Reduces(1))).x)
show("__reduce__ there and back", get(same.remote(Reduces(1))).x)
show("__getstate__", [get(ray.put(State(1))).x, get(ray.put(State(1))).cache])
attempt("__slots__ in the main program", lambda: get(same.remote(Slots(5))).x)
for value in (
    datetime.datetime(2020, 1, 2, 3, 4, 5),  # noqa: DTZ001
    datetime.timedelta(seconds=5),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    pathlib.PurePosixPath("/a/b"),
    uuid.UUID(int=5),
    numpy.float32(1.5),
    numpy.datetime64("2020-01-01"),
):
    show(type(value).__name__, repr(get(same.remote(value))))
array = numpy.arange(6).reshape(2, 3)
back = get(same.remote(array))
show("small array", [back.tolist(), str(back.dtype)])
show("can be written to", back.flags.writeable)
show("an item of a list can be written to", get(same.remote([array]))[0].flags.writeable)
show("an array of objects can be written to", get(same.remote(numpy.array([1, None], dtype=object))).flags.writeable)
show("an empty array can be written to", get(same.remote(numpy.zeros(0))).flags.writeable)
show("fortran order", [get(same.remote(numpy.asfortranarray(array))).flags.f_contiguous])
show("structured", get(same.remote(numpy.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]))).tolist())
show("masked", get(same.remote(numpy.ma.array([1, 2], mask=[False, True]))).tolist())
show("several views of one", [each.tolist() for each in get(same.remote([array[0], array[1]]))])
big = numpy.ones(1_000_000)


@ray.remote
def writeable(array):
    return [array.flags.writeable, float(array.sum())]


show("a large argument", get(writeable.remote(big)))
show("a large argument by ref", get(writeable.remote(ray.put(big))))
show("a small argument", get(writeable.remote(numpy.ones(3))))
show("a small argument by ref", get(writeable.remote(ray.put(numpy.ones(3)))))

attempt("refuses, put", lambda: ray.put(Refuses()))
attempt("refuses, argument", lambda: same.remote(Refuses()))
attempt("refuses, result", lambda: get(give.remote("refuses")))
attempt("breaks on arrival, put", lambda: get(ray.put(BreaksOnArrival())))
attempt("breaks on arrival, argument", lambda: get(look.remote(BreaksOnArrival())))
attempt("breaks on arrival, result", lambda: get(give.remote("arrival")))
