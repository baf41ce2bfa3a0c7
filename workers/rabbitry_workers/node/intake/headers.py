"""What an agent checks before it acts on a task: clients check too, but a node must not depend on that.

A header whose fields a node could not work with (and would stumble over again and again, as would the next node) is
found out here, once for each distinct header; its tasks fail with the reason.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import msgspec

from rabbitry_broker import queue_names as names
from rabbitry_broker.ids import ACTOR_BYTES, CLIENT_BYTES, JOB_BYTES
from rabbitry_broker.messages import (
    DYNAMIC,
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    KIND_TASK,
    MAX_RETURNS,
    TaskHeader,
    decode_actor_spec,
    decode_header,
)
from rabbitry_broker.queue_names import QueueKind
from rabbitry_broker.resources import ResourceRequest

_KINDS: Final = (KIND_TASK, KIND_ACTOR_CREATION, KIND_ACTOR_CALL)


@lru_cache(maxsize=4096)
def fault_of(header_bytes: bytes, queue: str) -> str:
    """Return why no node can act on tasks with this header from this queue; "" if they can."""
    header = decode_header(header_bytes)
    try:
        _check(header)
        _check_place(header, queue)
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError, msgspec.MsgspecError) as error:
        return str(error) or repr(error)
    return ""


def is_answerable(header: TaskHeader) -> bool:
    """True if there is somebody to be told of such tasks, and a number of results that can be filled."""
    if header.kind == KIND_ACTOR_CREATION and len(header.actor) != ACTOR_BYTES:
        return False
    return len(header.owner) == CLIENT_BYTES and DYNAMIC <= header.num_returns <= MAX_RETURNS


def _check(header: TaskHeader) -> None:
    if header.kind not in _KINDS:
        raise ValueError(f"kind {header.kind} is none of tasks")
    if len(header.job) != JOB_BYTES:
        raise ValueError(f"{header.job!r} is not the id of a job")
    if not DYNAMIC <= header.num_returns <= MAX_RETURNS:
        raise ValueError(f"num_returns={header.num_returns} is not between {DYNAMIC} and {MAX_RETURNS}")
    if not 0 <= header.priority <= 9:
        raise ValueError(f"priority {header.priority} is not between 0 and 9")
    if not (math.isfinite(header.retry_delay) and header.retry_delay >= 0):
        raise ValueError(f"retry_delay={header.retry_delay} is not a number of seconds")
    if header.kind != KIND_TASK and len(header.actor) != ACTOR_BYTES:
        raise ValueError(f"{header.actor!r} is not the id of an actor")
    if header.kind == KIND_ACTOR_CALL:
        return
    request = ResourceRequest.parse(header.resources)
    if header.bundle and names.parse(header.bundle).kind is not QueueKind.BUNDLE:
        raise ValueError(f"bundle={header.bundle!r} is not the queue of a bundle")
    if header.elsewhere and names.parse(header.elsewhere).kind is not QueueKind.TASK:
        raise ValueError(f"elsewhere={header.elsewhere!r} is not a queue for tasks")
    if header.kind == KIND_ACTOR_CREATION:
        running = decode_actor_spec(header.extra).running
        if not ResourceRequest.parse(running).fits_in(request):  # else the node would be in debt while it lives
            raise ValueError(f"an actor that is placed with {header.resources} would hold {running}")


def _check_place(header: TaskHeader, queue: str) -> None:
    """Work is on a queue whose consumers can do it.

    A call that is not on its actor's queue would wait for ever on a node that never gets the actor; a task that needs
    more than its queue says, on a node that serves the queue and has not so much. Each would take up a part of the
    window of what is in order. A node's own queue has all kinds of tasks: see `affinity`.
    """
    if header.kind == KIND_ACTOR_CALL:
        if queue != names.actor_queue(header.actor):
            raise ValueError(f"a call to actor {header.actor.hex()} is on the queue {queue}")
        return
    place = names.parse(queue)
    if place.kind is QueueKind.ACTOR:
        raise ValueError(f"a task that is no call is on the queue {queue}")
    if header.bundle != (queue if place.kind is QueueKind.BUNDLE else ""):
        raise ValueError(f"a task for the bundle {header.bundle!r} is on the queue {queue}")
    if place.kind is QueueKind.TASK:
        request = ResourceRequest.parse(header.resources)
        if not request.fits_in(ResourceRequest.parse(place.resource_class)):
            raise ValueError(f"a task that needs {header.resources} is on the queue {queue}")
