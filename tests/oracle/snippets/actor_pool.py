"""`ray.util.ActorPool`: order, limits, time-outs, failures, dead actors."""

import tempfile
from pathlib import Path

import ray
from _report import TIMEOUT, attempt, show, start, wait_for
from ray.util import ActorPool

directory = tempfile.TemporaryDirectory()
here = Path(directory.name)


@ray.remote(num_cpus=0)
class Worker:
    def double(self, x):
        return 2 * x

    def after(self, path, x):
        wait_for(Path(path))
        return x

    def fail(self, x):
        raise ValueError(x)

    def fail_if_odd(self, x):
        if x % 2:
            raise ValueError(x)
        return x

    def die(self, x):
        raise SystemExit(x)

    def note(self, path):
        Path(path).touch()
        return path


def double(actor, x):
    return actor.double.remote(x)


def fail(actor, x):
    return actor.fail.remote(x)


def go(name):
    (here / name).touch()


def after(actor, given):
    return actor.after.remote(str(here / given[0]), given[1])


def drain(pool):
    left = []
    while pool.has_next():
        left.append(pool.get_next_unordered(TIMEOUT))
    return sorted(left)


start()
workers = [Worker.remote() for _ in range(3)]
pool = ActorPool(workers[:2])

show("map", list(pool.map(double, [1, 2, 3, 4, 5])))
show("map of nothing", list(pool.map(double, [])))
show("map of a generator", list(pool.map(double, (i for i in range(5)))))
show("map_unordered", sorted(pool.map_unordered(double, range(5))))
show("map is lazy in its results only", type(pool.map(double, [1])).__name__)
show("what it had sent is dropped by the next map", list(pool.map(double, [7, 8])))
attempt("map of a number", lambda: pool.map(double, 5))
attempt("map with what returns no ref", lambda: list(pool.map(lambda actor, x: x, [1])))
pool = ActorPool(workers[:2])

show("at first", [pool.has_next(), pool.has_free()])
attempt("get_next of nothing", lambda: pool.get_next())
attempt("get_next_unordered of nothing", lambda: pool.get_next_unordered())
show("submit", pool.submit(double, 1))
show("one submitted", [pool.has_next(), pool.has_free()])
pool.submit(double, 2)
show("two submitted", [pool.has_next(), pool.has_free(), pool.pop_idle()])
pool.submit(double, 3)
show("in order", [pool.get_next() for _ in range(3)])
show("after all", [pool.has_next(), pool.has_free()])

pool.submit(after, ("slow", 1))
pool.submit(after, ("quick", 2))
pool.submit(after, ("quick", 3))
go("quick")
show("unordered: what is ready first", sorted([pool.get_next_unordered(TIMEOUT), pool.get_next_unordered(TIMEOUT)]))
attempt("unordered, time-out", lambda: pool.get_next_unordered(timeout=0.05))
attempt("unordered, no time", lambda: pool.get_next_unordered(timeout=0))
show("it is still there", pool.has_next())
go("slow")
show("and comes", pool.get_next_unordered(TIMEOUT))

pool.submit(after, ("ordered", 1))
attempt("ordered, time-out", lambda: pool.get_next(timeout=0.05))
attempt("ordered, no time", lambda: pool.get_next(timeout=0))
show("still there", pool.has_next())
go("ordered")
show("comes", pool.get_next(TIMEOUT))

pool.submit(after, ("ignored", 1))
pool.submit(double, 2)
attempt("ignore_if_timedout", lambda: pool.get_next(timeout=0.05, ignore_if_timedout=True))
show("the next one", pool.get_next(TIMEOUT))
show("none left", [pool.has_next(), pool.has_free()])
go("ignored")
pool.submit(after, ("ignored too", 1))
attempt(
    "ignore_if_timedout, unordered",
    lambda: pool.get_next_unordered(timeout=0.05, ignore_if_timedout=True),
    differs="Ray trips over a name of its own; here it does what it says",
)
show("none left either", [pool.has_next(), pool.has_free()], differs="Ray trips over a name of its own")
go("ignored too")

pool = ActorPool(workers[:2])
for each in range(4):
    pool.submit(double, each)
first = pool.get_next()
rest = sorted([pool.get_next_unordered(TIMEOUT) for _ in range(3)])
show("ordered, then unordered", [first, rest])
pool = ActorPool(workers[:1])
pool.submit(double, 1)
pool.get_next_unordered()
attempt("unordered, then ordered, nothing there", lambda: pool.get_next())
pool.submit(double, 2)
attempt("unordered, then ordered", lambda: pool.get_next())
pool = ActorPool(workers[:2])
pool.submit(after, ("mixed", 1))
pool.submit(double, 2)
show("second first", pool.get_next_unordered(TIMEOUT))
attempt("then ordered", lambda: pool.get_next(timeout=0.05))
go("mixed")
attempt("then unordered", lambda: pool.get_next_unordered(TIMEOUT))
pool = ActorPool(workers[:2])
pool.submit(after, ("mixed again", 1))
pool.submit(double, 2)
pool.submit(double, 3)
pool.submit(double, 4)
show("second first again", pool.get_next_unordered(TIMEOUT))
attempt("then in order", lambda: pool.get_next(TIMEOUT))
go("mixed again")
attempt("the rest", lambda: drain(pool))

pool = ActorPool(workers[:2])
pool.submit(fail, 1)
pool.submit(double, 2)
attempt("a call that fails", lambda: pool.get_next())
show("the next one after it", pool.get_next())
show("both actors are back", [pool.has_free(), pool.pop_idle() is not None, pool.pop_idle() is not None])
pool = ActorPool(workers[:2])
pool.submit(fail, 1)
attempt("a call that fails, unordered", lambda: pool.get_next_unordered())
show("it is back", pool.has_free())
iterator = pool.map(lambda actor, x: actor.fail_if_odd.remote(x), range(4))
show("map with failures begins", next(iterator))
attempt("map with failures fails", lambda: next(iterator))
attempt("and is over", lambda: next(iterator))
attempt("what it left", lambda: pool.get_next(TIMEOUT))

pool = ActorPool([workers[0]])
attempt("push one of its own", lambda: pool.push(workers[0]))
pool.push(workers[1])
pool.submit(double, 1)
pool.submit(double, 2)
attempt("push a busy one", lambda: pool.push(workers[1]))
pool.submit(double, 3)
show("push starts what waits", [pool.push(workers[2]), pool.has_free()])
show("all three", [pool.get_next() for _ in range(3)])
show("pop_idle", sorted(workers.index(pool.pop_idle()) for _ in range(3)))
show("pop_idle of none", [pool.pop_idle(), pool.has_free()])
pool.push(workers[0])
show("pushed back", pool.has_free())
show("order of idle ones", workers.index(ActorPool(workers).pop_idle()))
attempt("the same actor twice", lambda: sorted(ActorPool([workers[0], workers[0]]).map(double, range(4))))

empty = ActorPool([])
show("an empty pool", [empty.has_next(), empty.has_free(), empty.pop_idle()])
show("takes work", empty.submit(double, 1))
show("has none under way", empty.has_next())
empty.push(workers[0])
attempt("until an actor comes", lambda: empty.get_next(TIMEOUT))

mortal = Worker.remote()
pool = ActorPool([mortal, workers[0]])
pool.submit(lambda actor, x: actor.double.remote(x), 1)
ray.get(mortal.double.remote(1))
ray.kill(mortal)
pool.submit(double, 2)
pool.submit(double, 3)
outcomes = []
while pool.has_next():
    try:
        outcomes.append(pool.get_next(TIMEOUT))
    except ray.exceptions.RayActorError:
        outcomes.append("dead")
show("an actor that died", outcomes)
show("it is dropped", [pool.has_free(), pool.pop_idle() == workers[0], pool.pop_idle()])

pool = ActorPool(workers[:2])
pool.submit(fail, 1)
ray.wait([workers[1].double.remote(1)])
attempt("map after a call that failed", lambda: list(pool.map(double, [1, 2])))
pool = ActorPool(workers[:2])
for each in (1, 2, 3, 4):
    pool.submit(double, each)
show("map after calls that nobody asked for", list(pool.map(double, [5])))

path = here / "noted"
pool = ActorPool(workers[:2])
pool.map(lambda actor, x: actor.note.remote(str(path)), [1])
wait_for(path)
show("map starts at once", path.exists())
directory.cleanup()
