"""`cancel` of calls of synchronous actors that run: what they had submitted, and what they return or raise."""

import tempfile
import time
from pathlib import Path

import ray
from _report import TIMEOUT, attempt, get, show, start, wait_for

directory = tempfile.TemporaryDirectory()
here = Path(directory.name)


@ray.remote(num_cpus=0)
def child(began, stopped):
    Path(began).touch()
    try:
        time.sleep(TIMEOUT)
    except KeyboardInterrupt:
        Path(stopped).touch()
        raise


def is_cancelled(ref):
    """Return whether a call counts as cancelled: on Ray by itself or by its child, whichever it hears of first."""
    try:
        get(ref)
    except ray.exceptions.TaskCancelledError:
        return True
    return False


@ray.remote(num_cpus=0)
def never(path):
    while not Path(path).exists():
        time.sleep(0.05)


class Calls:
    def __init__(self):
        self.seen = []

    def waits(self, began, how, refs):
        Path(began).touch()
        try:
            if how == "get":
                ray.get(refs[0])
            else:
                ray.wait(refs)
        except BaseException as error:
            self.seen.append(type(error).__name__)
            raise

    def take_seen(self):
        seen, self.seen = self.seen, []
        return seen

    def blocked(self, began, stopped):
        return ray.get(child.remote(began, stopped))

    def until_told(self, began, how):
        Path(began).touch()
        while not ray.get_runtime_context().is_canceled():
            time.sleep(0.01)
        if how == "raises":
            raise KeyError("told to stop")
        return (1, 2) if how == "two" else 1

    def ping(self):
        return "there"


start(num_cpus=2)
for threads in (1, 2):
    actor = ray.remote(max_concurrency=threads)(Calls).remote()
    call = actor.blocked.remote(str(here / f"began{threads}"), str(here / f"stopped{threads}"))
    wait_for(here / f"began{threads}")
    ray.cancel(call)
    show(f"waits for a child, {threads} at once", is_cancelled(call))
    wait_for(here / f"stopped{threads}")
    for how, results in (("returns", 1), ("two", 2), ("raises", 1)):
        began = here / f"{how}{threads}"
        refs = actor.until_told.options(num_returns=results).remote(str(began), how)
        refs = refs if isinstance(refs, list) else [refs]
        wait_for(began)
        ray.cancel(refs[0])
        for ref in refs:
            attempt(f"{how}, {threads} at once", lambda ref=ref: get(ref))
    for how in ("get", "wait"):
        began = here / f"{how}{threads}"
        another = never.remote(str(here / "never"))
        call = actor.waits.remote(str(began), how, [another])
        wait_for(began)
        ray.cancel(call)
        show(f"waits for another's task by {how}, {threads} at once", is_cancelled(call))
        show(f"what it sees, {threads} at once", get(actor.take_seen.remote()))
    show(f"the actor goes on, {threads} at once", get(actor.ping.remote()))
(here / "never").touch()
get(another)
directory.cleanup()
