"""Fields of runtime environments that nobody knows; and what is said of values that cannot be pickled."""

import os
import threading

import ray
from _report import attempt, get, show, start
from ray.runtime_env import RuntimeEnv

lock = threading.Lock()


class Holder:
    def __init__(self):
        self.held = threading.Lock()


@ray.remote
def look():
    return os.environ.get("OF_TEST"), dict(ray.get_runtime_context().runtime_env)


@ray.remote
def uses_global():
    return lock


@ray.remote
def identity(value):
    return value


def told(action):
    """Return the class of an error, how it begins, and which variables it names."""
    try:
        action()
    except Exception as error:
        text = str(error)
        return [
            type(error).__name__,
            text[:20],
            "thread.lock" in text,
            [name for name in ("lock", "held") if name in text],
        ]
    return None


env = RuntimeEnv(of_mine={"a": [1]}, env_vars={"OF_TEST": "1"})
show("RuntimeEnv", sorted(env))
env["other"] = 1
env.set("third", 2)
show("set", sorted(env))
start(num_cpus=2, runtime_env={"of_mine": 1, "env_vars": {"OF_TEST": "1"}})
show("init", get(look.remote()))
show("options", get(look.options(runtime_env={"of_task": 2}).remote()))
show("options, an object", get(look.options(runtime_env=RuntimeEnv(of_mine=3)).remote()))
attempt("not for JSON", lambda: look.options(runtime_env={"of_mine": {1}}).remote())
attempt("no text", lambda: look.options(runtime_env={5: 1}).remote())

show("a global", told(lambda: uses_global.remote()))
show("an argument", told(lambda: identity.remote(Holder())))
show("put", told(lambda: ray.put(Holder())))
