"""What errors are called and how they read: the names of classes, the first and the last lines."""

import re
import traceback

import ray
from _report import caught, get, lines, show, start


class Sad(Exception):
    pass


@ray.remote(max_retries=0)
def fail(kind):
    if kind == "value":
        raise ValueError("boom")
    if kind == "own":
        raise Sad
    return get(fail.remote("value"))


@ray.remote
class lower:  # noqa: N801  a name that looks like a function's
    def __init__(self, bad=False):
        if bad:
            raise KeyError("not made")

    def __repr__(self):
        return "shown(so)"

    def fail(self):
        raise ValueError("in a method")


@ray.remote
class Plain:
    async def fail(self):
        raise ValueError("in a coroutine")


def normal(text):
    """Leave out where it ran, too, and addresses of objects."""
    text = re.sub(r"pid=\d+", "pid=N", text)
    text = re.sub(r"ip=[\d.]+", "ip=N", text)
    text = re.sub(r"\b[0-9a-f]{32,}\b", "ID", text)
    return lines(re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>", "<object>", text))


def describe(label, error, *, of_actor=False):
    first, *_, last = normal(str(error))
    show(label, [type(error).__name__, type(error).__module__, type(error).__qualname__, first, last])
    show(f"{label}, as Python shows it", normal(traceback.format_exception_only(error)[0])[0])


start()
describe("a task", caught(fail.remote("value")))
describe("a class of the program", caught(fail.remote("own")))
describe("a task in a task", caught(fail.remote("nested")))
actor = lower.remote()
describe("a method", caught(actor.fail.remote()))
describe("a method of an asyncio actor", caught(Plain.remote().fail.remote()))
error = caught(lower.remote(True).fail.remote())
show("a constructor", [type(error).__name__, normal(str(error))[0], normal(str(error))[-1]])


@ray.remote
class Bare:
    def __init__(self):
        raise KeyError("not made")


show("a constructor of a class without a repr", normal(str(caught(Bare.remote().__ray_ready__.remote())))[0])
actor_id = actor._actor_id.hex()
show("the actor's id is told", f"actor_id={actor_id}" in str(caught(actor.fail.remote())))
show("lines", normal(str(caught(fail.remote("value")))))
for name in ("RayError", "RayTaskError", "RayActorError", "RaySystemError", "GetTimeoutError", "WorkerCrashedError"):
    cls = getattr(ray.exceptions, name)
    show(name, [cls.__module__, cls.__name__, cls.__qualname__])


def outer():
    @ray.remote
    def inner():
        context = ray.get_runtime_context()
        return [context.get_task_name(), context.get_task_function_name().rpartition(".")[2]]

    return inner


show("the name of a function in a function", get(outer().remote()))
