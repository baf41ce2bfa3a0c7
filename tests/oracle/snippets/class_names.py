"""What actors of classes within functions and classes, and the tasks that make them, are called."""

import time

import ray
from _report import TIMEOUT, attempt, get, show, start
from ray.util.state import list_actors, list_tasks


def outer():
    @ray.remote(num_cpus=0)
    class Local:
        def call(self):
            return 1

    return Local


class Outer:
    class Inner:
        def call(self):
            return 1


Local = outer()
Inner = ray.remote(num_cpus=0)(Outer.Inner)
start(include_dashboard=True)
actors = [Local.remote(), Local.options(name="named").remote(), Inner.remote()]
get([actor.call.remote() for actor in actors])
get(actors[0].call.options(name="a call").remote())
for actor in actors:
    show("shown", repr(actor).partition(",")[0])
attempt("made without remote", lambda: Local())
wanted = {"Local.__init__", "named:Local.__init__", "Inner.__init__", "Local.call", "Inner.call", "a call"}
deadline = time.monotonic() + TIMEOUT
while {task.name for task in list_tasks()} < wanted and time.monotonic() < deadline:
    time.sleep(0.2)
show("actors", sorted([actor.class_name, actor.name] for actor in list_actors()))
show("tasks", sorted([task.type, task.name, task.func_or_class_name] for task in list_tasks(detail=True)))
