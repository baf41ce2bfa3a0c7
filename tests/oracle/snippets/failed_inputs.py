"""How the failure of an input reads at what depends on it, and how errors begin that nobody's code raised."""

import os
import re

import ray
from _report import caught, get, lines, show, start
from ray import exceptions


@ray.remote(max_retries=0)
def fail():
    raise ValueError("boom")


@ray.remote(max_retries=0)
def crash():
    os._exit(3)


@ray.remote
def take(*values, **named):
    return values, named


@ray.remote
class Taker:
    def __init__(self, bad=False):
        if bad:
            raise KeyError("not made")

    def take(self, value):
        return value


def placeless(error):
    """Return the lines of an error without where it ran: here an input's dependant ran nowhere."""
    return lines(re.sub(r" \((pid|ip)=.*\)", "", str(error)))


start()
failed = fail.remote()
taker = Taker.remote()
show("of a task", placeless(caught(take.remote(failed))))
show("of a task's named argument", placeless(caught(take.remote(named=failed))))
show("of a task's dependant", placeless(caught(take.remote(take.remote(failed)))))
show("of a task, to a method", placeless(caught(taker.take.remote(failed))))
show("of a constructor", placeless(caught(take.remote(Taker.remote(True).take.remote(1))))[:3])
show(
    "of a process that crashed",
    [line.partition(". ")[0].rstrip(".") for line in placeless(caught(take.remote(crash.remote())))[:3]],
)
get(taker.take.remote(1))
ray.kill(taker)
killed = placeless(caught(taker.take.remote(1)))
show("of a killed actor", [killed[0], killed[1], killed[-1]])
show("of a killed actor, to a task", placeless(caught(take.remote(taker.take.remote(1))))[:3])


def head(error):
    """Return the first sentence: what follows says what to do, which is each system's own."""
    return str(error).strip().partition(".")[0]


TASK = "f" * 48
OBJECT = "a" * 56
show("TaskCancelledError", head(exceptions.TaskCancelledError(TASK)))
for name in ("WorkerCrashedError", "TaskPlacementGroupRemoved", "ActorPlacementGroupRemoved", "RuntimeEnvSetupError"):
    show(name, head(getattr(exceptions, name)()))
show("RuntimeEnvSetupError, why", str(exceptions.RuntimeEnvSetupError("no such thing")))
for name in ("TaskUnschedulableError", "ActorUnschedulableError"):
    show(name, str(getattr(exceptions, name)("its node is gone")))
for name in ("RayActorError", "ActorDiedError"):
    show(name, str(getattr(exceptions, name)()))
show("ActorUnavailableError", str(exceptions.ActorUnavailableError("away", b"\1" * 16)))
for name in ("ObjectLostError", "ObjectFetchTimedOutError", "ObjectFreedError", "OwnerDiedError"):
    show(name, head(getattr(exceptions, name)(OBJECT, None, "")))
show("ObjectLostError, whose ref", str(exceptions.ObjectLostError(OBJECT, None, "here")).partition("\n")[0])
