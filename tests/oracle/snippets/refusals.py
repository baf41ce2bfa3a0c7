"""What programs for Ray look for in the texts of errors: beginnings, and words inside."""

import ray
from _report import show, start


def function():
    return 1


def generator():
    yield 1


async def coroutine():
    return 1


class Actor:
    def method(self):
        return 1


def text(action):
    try:
        action()
    except Exception as error:
        return str(error)
    return ""


def look(label, action, *words):
    said = text(action)
    show(label, [word for word in words if word not in said])


def subclass():
    class Sub(A):
        pass

    return Sub


start()
f, A = ray.remote(function), ray.remote(Actor)
for keyword in ("num_returns", "max_retries", "max_calls"):
    look(
        keyword,
        lambda keyword=keyword: ray.remote(**{keyword: 0.5})(function),
        f"The type of keyword '{keyword}' must be",
    )
for keyword in ("max_restarts", "max_task_retries", "num_cpus", "name"):
    wrong = b"x" if keyword == "name" else "x"
    look(keyword, lambda keyword=keyword, wrong=wrong: ray.remote(**{keyword: wrong})(Actor), "but received type")
infinite = "only accepts None, 0, -1 or a positive integer, where -1 represents infinity"
look("max_retries -2", lambda: ray.remote(max_retries=-2)(function), "The keyword 'max_retries'", infinite)
look("max_restarts -2", lambda: ray.remote(max_restarts=-2)(Actor), "The keyword 'max_restarts'", infinite)
look(
    "max_calls -1", lambda: ray.remote(max_calls=-1)(function), "'max_calls' only accepts None, 0 or a positive integer"
)
look("num_returns -1", lambda: ray.remote(num_returns=-1)(function), "only accepts None, a non-negative integer")
look("num_cpus -1", lambda: ray.remote(num_cpus=-1)(function), "The quantity of resource num_cpus cannot be negative")
fine = "The precision of the fractional quantity of resource num_gpus cannot go beyond 0.0001"
look("num_gpus too fine", lambda: ray.remote(num_gpus=0.0000001)(function), fine)
look("unknown, task", lambda: ray.remote(bogus=1)(function), "Invalid option keyword bogus for remote functions. ")
look("unknown, actor", lambda: ray.remote(bogus=1)(Actor), "Invalid option keyword bogus for actors. Valid ones are [")
look("max_calls later", lambda: f.options(max_calls=1), "Setting 'max_calls' is not supported in '.options()'")
later = "Setting 'concurrency_groups' is not supported in '.options()'"
look("groups later", lambda: A.options(concurrency_groups={"a": 1}), later)
look("async def", lambda: ray.remote(coroutine), "'async def' should not be used for remote tasks")
streams = "num_returns='streaming' can only be used with generator functions"
look("streaming", lambda: ray.remote(num_returns="streaming")(function), streams)
look("a call", lambda: f(), "Remote functions cannot be called directly. Instead of running '__main__.function()'")
look("a subclass", subclass, "Inheriting from actor classes is not currently supported.")
look("exit_actor", ray.actor.exit_actor, "exit_actor API is called on a non-actor worker")
look(
    "get a number",
    lambda: ray.get(1),
    "Invalid type of object refs, <class 'int'>, is given. 'object_refs' must either",
)
look("get numbers", lambda: ray.get([1]), "Attempting to call `get` on the value 1, which is not an ray.ObjectRef.")
ref = ray.put(1)
look(
    "wait for a number",
    lambda: ray.wait(1),
    "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got <c",
)
look("wait for numbers", lambda: ray.wait([1]), "got list containing <class 'int'>")
look("wait for one twice", lambda: ray.wait([ref, ref]), "Wait requires a list of unique")
look("wait for more", lambda: ray.wait([ref], num_returns=2), "num_returns cannot be greater than the number of")
look("wait, negative", lambda: ray.wait([ref], timeout=-1), "The 'timeout' argument must be nonnegative")
look("put a ref", lambda: ray.put(ref), "Calling 'put' on an ray.ObjectRef is not allowed")
look("kill a number", lambda: ray.kill(1), "ray.kill() only supported for actors")
look("cancel a number", lambda: ray.cancel(1), "ray.cancel() only supported for object refs")
look("no name", lambda: ray.get_actor(""), "Please supply a non-empty value to get_actor")
look("no such actor", lambda: ray.get_actor("none"), "Failed to look up actor with name 'none'")
look("an empty name", lambda: A.options(name="").remote(), "Actor name cannot be an empty string")
look("get_if_exists", lambda: A.options(get_if_exists=True).remote(), "The actor name must be specified to use `get_if")
look(
    "a lifetime",
    lambda: A.options(lifetime="x").remote(),
    "argument must be one of 'detached', 'non_detached' and 'None'",
)
taken = A.options(name="taken").remote()
look("a name that is taken", lambda: A.options(name="taken").remote(), "is already taken")
look("init again", lambda: ray.init(), "Maybe you called ray.init twice by accident?")


def returned(count, made):
    ref = ray.remote(num_returns=count)(lambda: tuple(range(made))).remote()[0]
    return text(lambda: ray.get(ref, timeout=20))


show("a wrong number of values", "Task returned 3 objects, but num_returns=2" in returned(2, 3))
ray.shutdown()
for name in ("nodes", "cluster_resources", "available_resources", "timeline"):
    look(f"{name} without a session", getattr(ray, name), "Ray has not been started yet.")
