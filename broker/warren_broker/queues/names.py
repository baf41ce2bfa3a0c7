"""The names of all queues. Nobody else spells one, or takes one apart.

| queue | who consumes it |
|---|---|
| `task.<resource class>` | every node whose total resources fit |
| `task.<resource class>.(<label selector>)` | nodes whose labels match too |
| `node.<node id>` | that node |
| `bundle.<placement group id>.<index>` | the node that holds the bundle |
| `actor.<actor id>` | the node that hosts the actor |
| `dead-letter` | nobody: messages that failed authentication wait there for a person |

Names carry no cluster prefix: the engines add it.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

DEAD_LETTERS: Final = "dead-letter"

# AMQP allows a queue name 255 bytes; the rest is for the cluster's prefix.
MAX_NAME_BYTES: Final = 200

# What stays legible in a class or selector. Parentheses mark the selector; they must not occur before it.
_SAFE_IN_CLASS: Final = "=,:;@!&+ "
_SAFE_IN_SELECTOR: Final = _SAFE_IN_CLASS + "()/"
_TASK: Final = re.compile(r"task\.([^()]+?)(?:\.\((.*)\))?")
_BY_ID: Final = re.compile(r"(node|actor)\.((?:[0-9a-f]{2})+)")
_BUNDLE: Final = re.compile(r"bundle\.((?:[0-9a-f]{2})+)\.([0-9]+)")


class QueueKind(enum.Enum):
    """What a queue is for."""

    TASK = "task"
    NODE = "node"
    BUNDLE = "bundle"
    ACTOR = "actor"
    DEAD_LETTERS = "dead-letter"


class QueueName(NamedTuple):
    """A queue name taken apart.

    Attributes:
        kind: what the queue is for.
        resource_class: for TASK.
        selector: label selector in its canonical text, for TASK; "" for none.
        id: of the node, actor or placement group.
        bundle_index: of the bundle in its group.
    """

    kind: QueueKind
    resource_class: str = ""
    selector: str = ""
    id: bytes = b""
    bundle_index: int = 0


@functools.lru_cache(maxsize=4096)
def task_queue(resource_class: str, selector: str = "") -> str:
    """Return the queue of tasks that need `resource_class` on a node whose labels match `selector`.

    Args:
        resource_class: canonical, see `warren_broker.resources`.
        selector: canonical text of a label selector; "" for any node.

    Raises:
        ValueError: together they are too long for the name of a queue.

    Example:
        >>> task_queue("CPU=0.5,license=1"), task_queue("CPU=1", "zone=in(a,b)")
        ('task.CPU=0.5,license=1', 'task.CPU=1.(zone=in(a,b))')
    """
    name = "task." + _escape(resource_class, _SAFE_IN_CLASS)
    if selector:
        name += f".({_escape(selector, _SAFE_IN_SELECTOR)})"
    if len(name) > MAX_NAME_BYTES:
        what = f"resources {resource_class!r}" + (f" and label selector {selector!r}" if selector else "")
        raise ValueError(
            f"{what} make a queue name of {len(name)} bytes, {MAX_NAME_BYTES} are possible: "
            "use fewer custom resources or labels, or shorter names"
        )
    return name


def node_queue(node_id: bytes) -> str:
    """Return the queue of tasks that must run on this node.

    Example:
        >>> node_queue(bytes([1, 255]))
        'node.01ff'
    """
    return f"node.{node_id.hex()}"


def bundle_queue(group_id: bytes, index: int) -> str:
    """Return the queue of tasks that run in bundle `index` of a placement group."""
    return f"bundle.{group_id.hex()}.{index}"


def actor_queue(actor_id: bytes) -> str:
    """Return the queue of calls to this actor."""
    return f"actor.{actor_id.hex()}"


def parse(queue: str) -> QueueName:
    """Return what a queue name says.

    Raises:
        ValueError: not a name that this module makes.

    Example:
        >>> parse("task.CPU=1.(zone=eu)")[:3]
        (<QueueKind.TASK: 'task'>, 'CPU=1', 'zone=eu')
    """
    if len(queue) > MAX_NAME_BYTES or not queue.isascii():
        raise ValueError(f"{queue[:40]!r} is not the name of a queue of warren")
    if queue == DEAD_LETTERS:
        return QueueName(QueueKind.DEAD_LETTERS)
    if match := _TASK.fullmatch(queue):
        return QueueName(QueueKind.TASK, unquote(match[1]), unquote(match[2] or ""))
    if match := _BY_ID.fullmatch(queue):
        return QueueName(QueueKind(match[1]), id=bytes.fromhex(match[2]))
    if match := _BUNDLE.fullmatch(queue):
        return QueueName(QueueKind.BUNDLE, id=bytes.fromhex(match[1]), bundle_index=int(match[2]))
    raise ValueError(f"{queue!r} is not the name of a queue of warren")


def announced(members: Iterable[bytes]) -> list[str]:
    """Return the names of queues among what was announced, in order: anybody who reaches Redis may write there."""
    found = []
    for each in members:
        name = each.decode("utf-8", "replace")
        with suppress(ValueError):
            parse(name)
            found.append(name)
    return sorted(found)


def is_exclusive(queue: str) -> bool:
    """Return True if only one consumer of the cluster may receive from `queue` at a time: it is an actor's."""
    match = _BY_ID.fullmatch(queue)
    return match is not None and match[1] == QueueKind.ACTOR.value


def _escape(text: str, safe: str) -> str:
    # "%" itself is escaped by quote(), so that a class name which uses percent signs comes back as it was.
    return quote(text, safe=safe)
