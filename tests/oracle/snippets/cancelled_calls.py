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


class Calls:
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
    show(f"the actor goes on, {threads} at once", get(actor.ping.remote()))
directory.cleanup()
