"""The head of every script: what programs use. Runs on rabbitry and on Ray, and imports nothing else.

Everything here is pickled by value with the functions that use it, since it is part of the script.
"""

import asyncio
import contextlib
import gc
import json  # noqa: F401  (the end of the script prints with it)
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile

if "ray" not in globals():
    if "ray" in sys.argv[1:]:
        import ray
    else:
        import rabbitry as ray
    where = {"address": os.environ["FUZZ_ADDRESS"]} if "FUZZ_ADDRESS" in os.environ else {}
    if "FUZZ_NAMESPACE" in os.environ:
        where = {**(where or {"num_cpus": 4, "resources": {"x": 2}}), "namespace": os.environ["FUZZ_NAMESPACE"]}
    ray.init(**(where or {"num_cpus": 4, "resources": {"x": 2}}), log_to_driver=False)

PATIENCE = float(os.environ.get("FUZZ_PATIENCE", "30"))  # seconds that a program may take
DIRECTORY = os.environ.get("FUZZ_DIRECTORY") or tempfile.mkdtemp(prefix="fuzz-")
LOG = os.path.join(DIRECTORY, "runs")
started = time.monotonic()
seen = []
refs, streams, actors, strong, groups = {}, {}, {}, {}, {}


def remote(**options):
    """Return the decorator with those options; Ray takes none only without parentheses."""
    return ray.remote(**options) if options else ray.remote


def ran(label):
    """Note that a task or call began; return the how manieth time this is."""
    line = (label + "\n").encode()
    there = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(there, line)
    finally:
        os.close(there)
    with open(LOG) as lines:
        return lines.read().split("\n").count(label)


def environment(kinds):
    """Return a runtime environment: with variables, with a working directory, or with both."""
    fields = {}
    if "vars" in kinds:
        fields["env_vars"] = {"FUZZ_X": "1000"}
    if "dir" in kinds:
        path = os.path.join(DIRECTORY, "work.zip")
        if not os.path.exists(path):
            handle, partial = tempfile.mkstemp(dir=DIRECTORY)
            os.close(handle)
            with zipfile.ZipFile(partial, "w") as archive:
                archive.writestr("work/fuzz_number", "2000")
            os.replace(partial, path)
        fields["working_dir"] = f"file://{path}"
    return fields


def environment_weight():
    """Return a number that stands for the runtime environment of this process."""
    number = int(os.environ.get("FUZZ_X", 0))
    if os.path.exists("fuzz_number"):
        with open("fuzz_number") as file:
            number += int(file.read())
    return number


def make_group(name, bundles, strategy):
    """Make a placement group."""
    groups[name] = ray.util.placement_group([{"CPU": each} for each in bundles], strategy=strategy)


def placed(name, bundle, capture):
    """Return the strategy that leads into a placement group."""
    return ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
        groups[name], placement_group_bundle_index=bundle, placement_group_capture_child_tasks=capture
    )


def remove_groups(names):
    """Remove placement groups, if they are there still."""
    for name in names:
        group = groups.pop(name, None)
        if group is not None:
            ray.util.remove_placement_group(group)


def payload(size, fill):
    """A value of so many bytes."""
    return bytes([fill % 256]) * size


def weigh(value):
    """Return a number that stands for a value; refs in it are read."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, bytes):
        assert not value or value.count(value[:1]) == len(value), "damaged bytes"
        return len(value) + (value[0] if value else 0)
    if isinstance(value, (list, tuple)):
        return sum(weigh(each) for each in value)
    if isinstance(value, dict):
        return sum(weigh(each) for each in value.values())
    if isinstance(value, ray.ObjectRef):
        return weigh(ray.get(value))
    if type(value).__name__ == "ActorHandle":
        return 0
    return sum(weigh(each) for each in value)  # what num_returns="dynamic" gives


async def weigh_async(value):
    """As `weigh`, for methods of asyncio actors."""
    if isinstance(value, (list, tuple)):
        return sum([await weigh_async(each) for each in value])
    if isinstance(value, dict):
        return sum([await weigh_async(each) for each in value.values()])
    if isinstance(value, ray.ObjectRef):
        return await weigh_async(await value)
    return weigh(value)


def end_process(how):
    """End this process."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    if how == "sys":
        sys.exit(3)
    os._exit(7)


def call_actor(handle, amount):
    """Call an actor from a task."""
    return ray.get(handle.pure.remote("", amount, 0, 0, False))


@ray.remote
class Counter:
    """An actor that a task has for itself."""

    def __init__(self):
        self.total = 0

    def add(self, amount):
        """Return the sum so far."""
        self.total += amount
        return self.total


def use_actor(amount):
    """Create an actor in a task, call it, forget it; return twice the amount."""
    counter = Counter.remote()
    first = counter.add.remote(amount)
    second = counter.add.remote(amount)
    del counter
    return ray.get([first, second])[1]


def end_driver_later(how, seconds):
    """End this process, whatever it does then: "kill", "term", or by `os._exit`."""

    def end():
        time.sleep(seconds)
        if how == "exit":
            os._exit(1)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[how])

    threading.Thread(target=end, daemon=True).start()


def kind_of(error):
    """Return what an error comes down to."""
    e = ray.exceptions
    chain, at = [], error
    while at is not None and len(chain) < 10:
        chain.append(at)
        at = getattr(at, "cause", None) or at.__cause__
    for kind, classes in (
        ("timeout", (e.GetTimeoutError, TimeoutError, asyncio.TimeoutError)),
        ("cancelled", (e.TaskCancelledError, asyncio.CancelledError)),
        ("group", (e.TaskPlacementGroupRemoved, e.TaskUnschedulableError)),
        ("crashed", (e.WorkerCrashedError, e.NodeDiedError)),
        ("actor", (e.RayActorError, e.ActorPlacementGroupRemoved, e.ActorUnschedulableError)),
        ("lost", (e.ObjectLostError,)),
        ("KeyError", (KeyError,)),
        ("ValueError", (ValueError,)),
    ):
        if any(isinstance(each, classes) for each in chain):
            return kind
    names = " ".join(type(each).__name__ for each in chain) + str(error)
    for kind, name in (
        ("cancelled", "TaskCancelledError"),
        ("group", "TaskPlacementGroupRemoved"),
        ("crashed", "WorkerCrashedError"),
        ("actor", "ActorDiedError"),
    ):
        if name in names:
            return kind
    return type(error).__name__


def left():
    """Seconds that the program may still take; few once something hung."""
    if any(entry.get("error") == "timeout" for entry in seen):
        return 0.5
    return max(0.5, PATIENCE - (time.monotonic() - started))


def observe(label, action):
    """Do something and report what came of it."""
    try:
        entry = {"label": label, "value": action()}
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        entry = {"label": label, "error": kind_of(error), "text": f"{type(error).__name__}: {error}"[:600]}
    seen.append({**entry, "at": round(time.monotonic() - started, 3)})


async def wait_and_read(awaited):
    """Await refs together."""
    return await asyncio.wait_for(asyncio.gather(*awaited), left())


def read(names, how="get"):
    """Read refs in one `get`, by their futures, or in a coroutine."""
    if how == "future":
        values = [each.result(timeout=left()) for each in [refs[name].future() for name in names]]
        return [settled(each) for each in values]
    if how == "await":
        return [settled(each) for each in asyncio.run(wait_and_read([refs[name] for name in names]))]
    if len(names) == 1:
        return [settled(ray.get(refs[names[0]], timeout=left()))]
    return [settled(each) for each in ray.get([refs[name] for name in names], timeout=left())]


def settled(value):
    """As `weigh`, but not for ever."""
    if isinstance(value, (list, tuple)):
        return sum(settled(each) for each in value)
    if isinstance(value, dict):
        return sum(settled(each) for each in value.values())
    if isinstance(value, ray.ObjectRef):
        return settled(ray.get(value, timeout=left()))
    if type(value).__name__ in ("DynamicObjectRefGenerator", "ObjectRefGenerator"):
        return sum(settled(each) for each in value)
    return weigh(value)


def wait_for(names, num_returns, timeout):
    """Call `wait`, and check what it says."""
    given = [refs[name] for name in names]
    ready, rest = ray.wait(given, num_returns=num_returns, timeout=left() if timeout is None else timeout)
    assert len(ready) <= num_returns, "more are ready than were asked for"
    assert timeout is not None or len(ready) == num_returns, "timeout: wait did not wait"
    assert sorted(each.hex() for each in [*ready, *rest]) == sorted(each.hex() for each in given), "refs got lost"
    return len(ready)


def take(stream, name):
    """Take the next ref of a stream; give up when the program's time is over."""
    outcome = []

    def body():
        try:
            refs[name] = next(streams[stream])
            outcome.append("item")
        except StopIteration:
            outcome.append("stop")
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(left())
    if not outcome:
        raise ray.exceptions.GetTimeoutError("no item came")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def look_up(name, given):
    """Use the handle of `get_actor` from now on; it does not keep the actor alive, so the first one is kept."""
    found = ray.get_actor(given)
    strong.setdefault(name, actors[name])
    actors[name] = found
    return 0


def drop(names):
    """Forget refs, streams and handles."""
    for name in names:
        for kind in (refs, streams, actors, strong):
            kind.pop(name, None)


def finish(kill):
    """Read what is left, forget everything; return what was seen."""
    for name in list(refs):
        observe(name, lambda name=name: read([name])[0])
    for name in kill:
        with contextlib.suppress(ValueError):  # it died
            ray.kill(ray.get_actor(name))
    remove_groups(list(groups))
    for kind in (refs, streams, actors, strong):
        kind.clear()
    gc.collect()
    return {"seen": seen, "seconds": round(time.monotonic() - started, 3)}


def count_runs():
    """Return how often each task and call began; for the end, when nothing runs any more."""
    lines = []
    if os.path.exists(LOG):
        with open(LOG) as log:
            lines = log.read().split()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    return {label: lines.count(label) for label in lines}
