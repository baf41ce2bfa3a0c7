"""`cancel`: tasks that wait, run, or are done."""

import tempfile
import time
from pathlib import Path

import ray
from _report import TIMEOUT, attempt, get, show, start, wait_for

directory = tempfile.TemporaryDirectory()
here = Path(directory.name)


@ray.remote
def run(started, stop=None):
    Path(started).touch()
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and not (stop and Path(stop).exists()):
        time.sleep(0.01)
    return "ran to its end"


@ray.remote
def stubborn(started, seen):
    try:
        Path(started).touch()
        time.sleep(TIMEOUT)
    except KeyboardInterrupt:
        Path(seen).touch()
        raise
    return "not interrupted"


@ray.remote
def parent(started, child_started):
    Path(started).touch()
    return ray.get(run.remote(child_started))


@ray.remote
def after(value):
    return value


@ray.remote
def one():
    return 1


start(num_cpus=1)
done = one.remote()
get(done)
ray.cancel(done)
show("done already", get(done))
ray.cancel(done, force=True)
show("done already, by force", get(done))

running = run.remote(str(here / "a"))
wait_for(here / "a")
waiting = run.remote(str(here / "b"))
dependent = after.remote(waiting)
ray.cancel(waiting)
attempt("waiting", lambda: get(waiting))
ray.cancel(running)
attempt("running", lambda: get(running))
attempt("what depends on the waiting one", lambda: get(dependent))
show("the waiting one never ran", (here / "b").exists())
show("the CPU is free again", get(one.remote()))

running = stubborn.remote(str(here / "c"), str(here / "d"))
wait_for(here / "c")
ray.cancel(running)
attempt("running, sees KeyboardInterrupt", lambda: get(running))
wait_for(here / "d")

running = run.remote(str(here / "e"))
wait_for(here / "e")
ray.cancel(running, force=True)
attempt("running, by force", lambda: get(running))
show("after force", get(one.remote()))

family = parent.remote(str(here / "f"), str(here / "g"))
wait_for(here / "g")
ray.cancel(family)
attempt("with its child", lambda: get(family))
show("after the family", get(one.remote()))

ray.cancel(running)
attempt("twice", lambda: get(running))
attempt("not a ref", lambda: ray.cancel(1))
attempt("a list", lambda: ray.cancel([running]))
attempt("of put", lambda: ray.cancel(ray.put(1)))
directory.cleanup()
