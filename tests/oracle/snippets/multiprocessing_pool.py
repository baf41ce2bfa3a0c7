"""`ray.util.multiprocessing.Pool`: what the standard library's does, on actors."""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import ray
import ray.util.multiprocessing
from _report import TIMEOUT, attempt, show, start, wait_for
from ray.util.multiprocessing import JoinableQueue, Pool, TimeoutError

directory = tempfile.TemporaryDirectory()
here = Path(directory.name)


def square(x):
    return x * x


def add(x, y=0, *, z=0):
    return x + y + z


def fail(x):
    raise ValueError(x)


def fail_on_two(x):
    if x == 2:
        raise KeyError(x)
    return x


def fail_on_odd(x):
    if x % 2:
        raise ValueError(x)
    return x


def wait_then(path):
    wait_for(Path(path))
    return path[-1]


def pid(_):
    return os.getpid()


value = "not set"


def initialize(given, path=None):
    global value
    value = given
    if path:
        with open(path, "a") as file:
            file.write("x")


def initialized(_):
    return value


def broken():
    raise RuntimeError("no")


@ray.remote
def remote_square(x):
    return x * x


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def fail_oddly(x):
    raise Odd(x, 2)


def error_of(action):
    try:
        return action()
    except Exception as error:
        return [type(error).__name__, list(map(str, error.args))]


def collect(iterator):
    found = []
    while True:
        try:
            given = next(iterator)
            found.append(given if isinstance(given, int) else repr(given))
        except StopIteration:
            return found
        except Exception as error:
            found.append(type(error).__name__)


start()
show("TimeoutError", [TimeoutError is multiprocessing.TimeoutError])
show("JoinableQueue", getattr(JoinableQueue, "__name__", ""))
pool = Pool(2)

show("apply", pool.apply(add, (1, 2), {"z": 3}))
show("apply of nothing else", pool.apply(os.getcwd) == os.getcwd() or "elsewhere")
show("apply with None", pool.apply(add, (1,), None))
show("apply a builtin", pool.apply(pow, (2, 5)))
show("apply a lambda", pool.apply(lambda x: x + 1, (1,)))
show("apply fails", error_of(lambda: pool.apply(fail, (1,))))
attempt("apply what cannot be called", lambda: pool.apply(5, (1,)))
attempt("apply with wrong arguments", lambda: pool.apply(square, (1, 2)))
show("map", pool.map(square, range(10)))
show("map a generator", pool.map(square, (i for i in range(4))))
show("map nothing", pool.map(square, []))
show("map one", pool.map(square, [3]))
show("map with chunks", pool.map(square, range(10), chunksize=3))
show("map with a large chunk", pool.map(square, range(3), chunksize=100))
refuses = "a ValueError here, as imap of the standard library raises"
attempt("map with chunks of 0", lambda: pool.map(square, range(3), chunksize=0), differs=refuses)
attempt("map with chunks of -1", lambda: pool.map(square, range(3), chunksize=-1), differs=refuses)
attempt("map a number", lambda: pool.map(square, 5))
show("map a string", pool.map(ord, "abc"))
attempt("map a remote function", lambda: pool.map(remote_square, [1, 2, 3]))
show("map fails", error_of(lambda: pool.map(fail_on_two, range(5))))
show("map fails on several: which", error_of(lambda: pool.map(fail_on_odd, [1, 3, 5], chunksize=1)))
show(
    "map fails oddly",
    error_of(lambda: pool.map(fail_oddly, [1]))[0],
    differs="its class cannot be made again from its pickle: here that is told by the error that was raised",
)
show("map uses all", len(set(pool.map(pid, range(20), chunksize=1))))
show("starmap", pool.starmap(add, [(1, 2), (3, 4), (5,)]))
show("starmap with chunks", pool.starmap(add, [(1, 2), (3, 4), [5, 6]], 1))
attempt("starmap of what is no tuple", lambda: pool.starmap(square, [1, 2]))
show("starmap fails", error_of(lambda: pool.starmap(fail, [(1,)])))

result = pool.apply_async(square, (5,))
show("apply_async", [result.get(TIMEOUT), result.ready(), result.successful()])
result = pool.apply_async(fail, (1,))
show("apply_async fails", [error_of(result.get), result.ready(), result.successful()])
result = pool.apply_async(wait_then, (str(here / "a"),))
show("not ready", [result.ready(), result.wait(0.05), result.ready()])
attempt("successful before it is ready", result.successful)
show("get in time", error_of(lambda: result.get(timeout=0.05))[0])
show("get in no time", error_of(lambda: result.get(timeout=0))[0])
(here / "a").touch()
show("then", [result.get(timeout=TIMEOUT), result.get(), result.ready()])
result = pool.map_async(square, range(5))
show("map_async", [result.get(TIMEOUT), result.successful()])
result = pool.map_async(fail_on_two, range(5))
show("map_async fails", [error_of(result.get), result.successful()])
show("map_async of nothing", [pool.map_async(square, []).get(TIMEOUT)])
show("starmap_async", pool.starmap_async(add, [(1, 2), (3, 4)]).get(TIMEOUT))

called = []
pool.apply_async(square, (3,), callback=called.append).wait(TIMEOUT)
pool.apply_async(fail, (3,), callback=called.append, error_callback=lambda e: called.append(repr(e))).wait(TIMEOUT)
pool.map_async(square, [1, 2], callback=called.append).wait(TIMEOUT)
pool.map_async(fail_on_two, [1, 2], error_callback=lambda e: called.append(repr(e))).wait(TIMEOUT)
pool.starmap_async(add, [(1, 2)], callback=called.append).wait(TIMEOUT)
deadline = time.monotonic() + TIMEOUT
while len(called) < 5 and time.monotonic() < deadline:
    time.sleep(0.01)
show(
    "callbacks",
    called,
    differs="Ray hands over a wrapper of the error, here it is the error, as in the standard library",
)

show("imap", list(pool.imap(square, range(10))))
show("imap with chunks", list(pool.imap(square, range(10), chunksize=3)))
show("imap of nothing", list(pool.imap(square, [])))
show("imap_unordered", sorted(pool.imap_unordered(square, range(10), 2)))
returns = "Ray returns a wrapper of the error, here it is raised, as in the standard library"
show("imap fails in between", collect(pool.imap(fail_on_two, range(5))), differs=returns)
show(
    "imap_unordered fails in between",
    sorted(map(str, collect(pool.imap_unordered(fail_on_two, range(5))))),
    differs=returns,
)
show("imap with chunks fails in between", collect(pool.imap(fail_on_odd, range(5), chunksize=2)), differs=returns)
iterator = pool.imap(wait_then, [str(here / "b"), str(here / "a")])
show("imap, next in time", error_of(lambda: iterator.next(timeout=0.05))[0])
show("imap, next in no time", error_of(lambda: iterator.next(timeout=0))[0])
(here / "b").touch()
show("imap, next", [iterator.next(timeout=TIMEOUT), iterator.next()])
attempt("imap, no next", iterator.next)
show("imap iterates over itself", iter(iterator) is iterator)
iterator = pool.imap_unordered(wait_then, [str(here / "c"), str(here / "a")])
show("imap_unordered, what is ready", iterator.next(timeout=TIMEOUT))
show("imap_unordered, next in time", error_of(lambda: iterator.next(timeout=0.05))[0])
(here / "c").touch()
show("imap_unordered, next", [next(iterator), list(iterator)])
drawn = []


def draws():
    for each in range(100):
        drawn.append(each)
        yield each


iterator = pool.imap(square, draws())
show("imap of a generator begins", next(iterator))
show("and ends", sum(iterator))
attempt("imap with chunks of 0", lambda: list(pool.imap(square, [1], chunksize=0)), differs=refuses)
attempt("imap a number", lambda: pool.imap(square, 5))

attempt("join before close", pool.join)
pool.close()
attempt("close twice", pool.close)
attempt("apply after close", lambda: pool.apply(square, (1,)))
attempt("map after close", lambda: pool.map(square, [1]))
attempt("imap after close", lambda: pool.imap(square, [1]))
attempt("apply_async after close", lambda: pool.apply_async(square, (1,)))
attempt("join", pool.join)
attempt("join twice", pool.join)
attempt("enter after close", pool.__enter__)

pool = Pool(2)
late = pool.map_async(square, range(10))
pool.close()
pool.join()
show("what was sent before close", late.get(TIMEOUT))
pool = Pool(1)
pool.terminate()
attempt("apply after terminate", lambda: pool.apply(square, (1,)))
attempt("join after terminate", pool.join)
with Pool(1) as pool:
    show("with", pool.map(square, [1, 2]))
attempt("after with", lambda: pool.map(square, [1]))

with Pool(2, initializer=initialize, initargs=("set", str(here / "initialized"))) as pool:
    show(
        "initializer",
        pool.map(initialized, range(4), chunksize=1),
        differs="code of the program brings its own globals; here those are among them that the initializer set",
    )
show("once a process", (here / "initialized").read_text())
attempt("an initializer that fails", lambda: Pool(1, initializer=broken).map(square, [1]))
attempt("an initializer that is none", lambda: Pool(1, initializer=5))

with Pool(1) as pool:
    show("without maxtasksperchild", len(set(pool.map(pid, range(6), chunksize=1))))
with Pool(1, maxtasksperchild=2) as pool:
    show("maxtasksperchild", len(set(pool.map(pid, range(6), chunksize=1))))
    show("counts chunks", len(set(pool.map(pid, range(6), chunksize=3))))
attempt(
    "maxtasksperchild of 0",
    lambda: Pool(1, maxtasksperchild=0) is not None,
    differs="refused, as by the standard library",
)
with Pool(1, maxtasksperchild=1, initializer=initialize, initargs=("again",)) as pool:
    show(
        "each child is initialized",
        pool.map(initialized, range(3), chunksize=1),
        differs="as with the initializer above",
    )

attempt("no processes", lambda: Pool(0))
attempt("-1 processes", lambda: Pool(-1))
attempt("more than there are CPUs", lambda: Pool(3))
with Pool() as pool:
    show("default number", len(set(pool.map(pid, range(40), chunksize=1))))
with Pool(1, ray_remote_args={"num_cpus": 0.5}) as pool:
    show("ray_remote_args", pool.apply(lambda: ray.get_runtime_context().get_assigned_resources().get("CPU")))
with Pool(context="ignored", processes=1) as pool:
    show("context", pool.apply(square, (2,)))
ray.shutdown()
with Pool(1) as pool:
    show("starts a session", [pool.apply(square, (2,)), ray.is_initialized()])
ray.shutdown()
directory.cleanup()
