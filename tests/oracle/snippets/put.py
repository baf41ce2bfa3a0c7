"""`put`: values go in and copies come out."""

import threading

import numpy
import ray
from _report import attempt, get, show, start


@ray.remote
def change(values):
    values.append("changed")
    return values


class Point:
    def __init__(self, x):
        self.x = x


start()
for value in (None, 0, True, 1.5, "text", [], {"a": [1, 2]}, 2**100, [None, [None]]):
    show(f"{value!r}", get(ray.put(value)))
for value in (b"bytes", (1, 2), {3}, 1j, float("inf"), frozenset([1]), range(3), Ellipsis, NotImplemented):
    show(f"{value!r}", repr(get(ray.put(value))))
show("type kept", type(get(ray.put((1, 2)))).__name__)
show("own class", [type(get(ray.put(Point(3)))) is Point, get(ray.put(Point(3))).x])
show("two puts, two refs", ray.put(1) != ray.put(1))

original = [1]
ref = ray.put(original)
original.append(2)
show("a copy at the time of put", get(ref))
first = get(ref)
first.append(3)
show("a copy for each get", get(ref))
show("a copy for each task", [get(change.remote(ref)), get(change.remote(ref)), get(ref)])

cycle = []
cycle.append(cycle)
back = get(ray.put(cycle))
show("a cycle", back[0] is back)
shared = [1]
pair = get(ray.put([shared, shared]))
show("shared parts stay shared", pair[0] is pair[1], differs="Ray makes two of them")

array = numpy.arange(100_000, dtype=numpy.int64)
back = get(ray.put(array))
show("large array", [bool((back == array).all()), str(back.dtype), back.shape, back.flags.writeable])
back = get(ray.put({"a": array, "b": [array[::2]]}))
show("arrays inside", [back["a"].flags.writeable, int(back["b"][0].sum())])
show("large bytes", len(get(ray.put(bytes(5_000_000)))))
show("large bytearray", type(get(ray.put(bytearray(5_000_000)))).__name__, differs="Ray gives bytes")
show("empty array", list(get(ray.put(numpy.zeros(0))).shape))
show("object array", get(ray.put(numpy.array([{"a": 1}, None], dtype=object))).tolist())

attempt("a ref", lambda: ray.put(ref))
attempt("a lock", lambda: ray.put(threading.Lock()))
attempt("a lock deep inside", lambda: ray.put({"a": [threading.Lock()]}))
attempt("a generator", lambda: ray.put(i for i in range(3)))
show("a ref inside a list", get(get(ray.put([ref]))[0]))
show("a lambda", get(ray.put(lambda x: x + 1))(1))
show("a class of this file", get(ray.put(Point))(4).x)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


attempt("900 lists in each other", lambda: type(get(ray.put(nested(900)))).__name__)
attempt("100,000 lists in each other", lambda: type(get(ray.put(nested(100_000)))).__name__)
attempt("with an owner", lambda: ray.put(1, _owner=3))
