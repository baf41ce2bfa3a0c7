"""The names of all queues. Nobody else spells one, or takes one apart.

| queue | who consumes it |
|---|---|
| `task.<resource class>` | every node whose total resources fit |
| `task.<resource class>.(<label selector>)` | nodes whose labels match too |
| `job.<job>.<resource class>`, with a selector as above | the same nodes: a job's own, beside the common one |
| `node.<node id>` | that node |
| `bundle.<placement group id>.<index>` | the node that holds the bundle |
| `bundle.<placement group id>.any` | the nodes that hold bundles of the group |
| `bundle.<placement group id>.any.<bits>` | the nodes that hold one of those bundles: bit i, in hex, for bundle i |
| `actor.<actor id>` | the node that hosts the actor |
| `dead-letter` | nobody: messages that failed authentication wait there for a person |

Names carry no cluster prefix: the engines add it. A name says all there is to know of its queue, so one for a hundred
resources is long; RabbitMQ, which allows 255 bytes, knows such a queue by a digest (`amqp_name`).
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

DEAD_LETTERS: Final = "dead-letter"
NODE_PREFIX: Final = "node."
"""What the names of all nodes' queues begin with."""

MAX_NAME_BYTES: Final = 256 * 1024
"""Longer names are no accident: ten thousand resources need no more."""

_AMQP_NAME_BYTES: Final = 255
_DIGEST_BYTES: Final = 16
_LEGIBLE_BYTES: Final = 60  # of a name that has become a digest, for people who look at the server

# What stays legible in a class or selector. Parentheses mark the selector; they must not occur before it.
_SAFE_IN_CLASS: Final = "=,:;@!&+ "
_SAFE_IN_SELECTOR: Final = _SAFE_IN_CLASS + "()/"
_TASK: Final = re.compile(r"(?:task|job\.((?:[0-9a-f]{2})+))\.([^()]+?)(?:\.\((.*)\))?")
_OF_ACTOR: Final = "actor."
_BY_ID: Final = re.compile(r"(node|actor)\.((?:[0-9a-f]{2})+)")
_BUNDLE: Final = re.compile(r"bundle\.((?:[0-9a-f]{2})+)\.(?:([0-9]+)|any(?:\.([1-9a-f][0-9a-f]*))?)")

ANY_BUNDLE: Final = -1
"""The index of what may run in any bundle of its group."""


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
        bundle_index: of the bundle in its group; `ANY_BUNDLE` for any.
        job: whose own queue it is, for TASK; b"" for that which jobs share.
        among: which bundles will do, bit i for bundle i, if the index is `ANY_BUNDLE`; 0 if all will.
    """

    kind: QueueKind
    resource_class: str = ""
    selector: str = ""
    id: bytes = b""
    bundle_index: int = 0
    job: bytes = b""
    among: int = 0

    def has_bundle(self, index: int) -> bool:
        """Return True if bundle `index` is one of those that the queue is for."""
        if self.bundle_index != ANY_BUNDLE:
            return index == self.bundle_index
        return not self.among or bool(self.among >> index & 1)


@functools.lru_cache(maxsize=4096)
def task_queue(resource_class: str, selector: str = "", job: bytes = b"") -> str:
    """Return the queue of tasks that need `resource_class` on a node whose labels match `selector`.

    Args:
        resource_class: canonical, see `rabbitry_broker.resources`.
        selector: canonical text of a label selector; "" for any node.
        job: whose own queue it is to be; b"" for the common one.

    Raises:
        ValueError: together they are too long for the name of a queue.

    Example:
        >>> task_queue("CPU=0.5,license=1"), task_queue("CPU=1", "zone=in(a,b)")
        ('task.CPU=0.5,license=1', 'task.CPU=1.(zone=in(a,b))')
        >>> task_queue("CPU=1", job=bytes([1, 255]))
        'job.01ff.CPU=1'
    """
    name = (f"job.{job.hex()}." if job else "task.") + _escape(resource_class, _SAFE_IN_CLASS)
    if selector:
        name += f".({_escape(selector, _SAFE_IN_SELECTOR)})"
    if len(name) > MAX_NAME_BYTES:
        begin = resource_class[:_LEGIBLE_BYTES]
        what = f"resources {begin!r}..." + (f" and label selector {selector[:_LEGIBLE_BYTES]!r}..." if selector else "")
        raise ValueError(
            f"{what} make a queue name of {len(name)} bytes, {MAX_NAME_BYTES} are possible: "
            "use fewer custom resources or labels, or shorter names"
        )
    return name


@functools.lru_cache(maxsize=4096)
def amqp_name(prefix: str, queue: str) -> str:
    """Return what RabbitMQ calls a queue of the cluster with this prefix.

    That is the name itself, or if AMQP cannot carry it, its beginning and a digest. `#` is in no other name.

    Example:
        >>> amqp_name("rabbitry:", "task.CPU=1")
        'rabbitry:task.CPU=1'
        >>> len(amqp_name("rabbitry:", task_queue(",".join(f"r{at}=1" for at in range(100)))))
        102
    """
    name = prefix + queue
    if len(name.encode()) <= _AMQP_NAME_BYTES:
        return name
    digest = hashlib.blake2b(queue.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{prefix}{queue[:_LEGIBLE_BYTES]}#{digest}"


def node_queue(node_id: bytes) -> str:
    """Return the queue of tasks that must run on this node.

    Example:
        >>> node_queue(bytes([1, 255]))
        'node.01ff'
    """
    return f"{NODE_PREFIX}{node_id.hex()}"


def bundle_queue(group_id: bytes, index: int, among: Iterable[int] = ()) -> str:
    """Return the queue of tasks that run in bundle `index` of a placement group, or in any of them.

    Args:
        group_id: of the group.
        index: of the bundle, or `ANY_BUNDLE`.
        among: with `ANY_BUNDLE`, those that will do if not all will.

    Example:
        >>> bundle_queue(b"g", 2), bundle_queue(b"g", ANY_BUNDLE), bundle_queue(b"g", ANY_BUNDLE, [1, 4])
        ('bundle.67.2', 'bundle.67.any', 'bundle.67.any.12')
    """
    bits = sum(1 << each for each in set(among))
    which = str(index) if index != ANY_BUNDLE else f"any.{bits:x}" if bits else "any"
    return f"bundle.{group_id.hex()}.{which}"


def actor_queue(actor_id: bytes) -> str:
    """Return the queue of calls to this actor."""
    return f"{_OF_ACTOR}{actor_id.hex()}"


def actor_of(queue: str) -> bytes:
    """Return whose queue this is, b"" if it is none of an actor. Quicker than `parse`."""
    try:
        return bytes.fromhex(queue.removeprefix(_OF_ACTOR)) if queue.startswith(_OF_ACTOR) else b""
    except ValueError:
        return b""


def parse(queue: str) -> QueueName:
    """Return what a queue name says.

    Raises:
        ValueError: not a name that this module makes.

    Example:
        >>> parse("task.CPU=1.(zone=eu)")[:3]
        (<QueueKind.TASK: 'task'>, 'CPU=1', 'zone=eu')
    """
    if len(queue) > MAX_NAME_BYTES or not queue.isascii():
        raise ValueError(f"{queue[:40]!r} is not the name of a queue of rabbitry")
    if queue == DEAD_LETTERS:
        return QueueName(QueueKind.DEAD_LETTERS)
    if match := _TASK.fullmatch(queue):
        return QueueName(
            QueueKind.TASK, unquote(match[2]), unquote(match[3] or ""), job=bytes.fromhex(match[1]) if match[1] else b""
        )
    if match := _BY_ID.fullmatch(queue):
        return QueueName(QueueKind(match[1]), id=bytes.fromhex(match[2]))
    if match := _BUNDLE.fullmatch(queue):
        index = int(match[2]) if match[2] else ANY_BUNDLE
        among = int(match[3], 16) if match[3] else 0
        return QueueName(QueueKind.BUNDLE, id=bytes.fromhex(match[1]), bundle_index=index, among=among)
    raise ValueError(f"{queue!r} is not the name of a queue of rabbitry")


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


def is_of_class(queue: str) -> bool:
    """Return True for the queues of a class of resources: the common one, and the jobs' own."""
    return queue.startswith(("task.", "job."))


def _escape(text: str, safe: str) -> str:
    # "%" itself is escaped by quote(), so that a class name which uses percent signs comes back as it was.
    return quote(text, safe=safe)
