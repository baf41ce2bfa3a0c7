"""How the embedded engine keeps queues in Redis: its keys, its levels and its scripts. Nobody else spells them.

A queue is one stream for each *level*. The base level holds messages of priority 0 and is all that most queues ever
have. Others come into being with the first message of their kind and go when they are empty:

| key | type | holds |
|---|---|---|
| `q:<queue>` | stream | the base level |
| `q:<queue>:p<n>` | stream | messages of priority n |
| `q:<queue>:r`, `q:<queue>:p<n>:r` | stream | messages that came back, by release or because their consumer died |
| `ql:<queue>` | set | the levels that the queue has besides its base |
| `qx:<queue>` | string | the consumer that has the queue to itself, for exclusive ones |
| `qc` | sorted set | consumers, with the time (ms of the server's clock) at which they last showed that they live |
| `qn:<consumer>` | stream | names of queues that have a new level, for this consumer to read |

Every stream has one consumer group, `nodes`. An entry is `b <body>`, and `r 1` if it was delivered before. What was
acknowledged is deleted, so a stream's length is what waits or is being worked on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from rabbitry_broker.messages import PRIORITIES

GROUP: Final = b"nodes"

# A consumer that was silent for so long is dead: what it held is given to others. Far longer than any healthy pause
# of an agent's loop, since work is then repeated; short enough that people wait for it.
DEAD_AFTER_S: Final = 5.0
HEARTBEAT_S: Final = 1.0

# What Redis answers while it cannot write but will again. Anything else is a mistake that repeating does not mend.
PASSING: Final = (
    "LOADING",
    "BUSY",
    "TRYAGAIN",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "OOM",
    "MISCONF",
    "READONLY",
    "NOREPLICAS",
    "NOSCRIPT",
)

BASE: Final = b""

_RETURNED: Final = b":r"


def _level(priority: int) -> bytes:
    return b":p%d" % priority if priority else BASE


# Levels in the order in which they are read: by priority, and what came back first.
_ORDER: Final[dict[bytes, tuple[int, int]]] = {
    _level(priority) + returned: (-priority, 0 if returned else 1)
    for priority in PRIORITIES
    for returned in (_RETURNED, b"")
}


def level_of_priority(priority: int) -> bytes:
    """Return the level of fresh messages of this priority.

    Raises:
        ValueError: not a priority.
    """
    if priority not in PRIORITIES:
        raise ValueError(f"priority {priority!r} is not possible: it must be between 0 and 9")
    return _level(priority)


def is_level(suffix: bytes) -> bool:
    """True if a stream whose name ends so, behind that of its queue's base, is a level."""
    return suffix in _ORDER


def priority_of_level(level: bytes) -> int:
    """Return the priority of the messages in this level."""
    return -_ORDER[level][0]


def in_reading_order(levels: list[bytes]) -> list[bytes]:
    """Return the levels (without the base) and the base, first what is read first."""
    return sorted((level for level in {BASE, *levels} if level in _ORDER), key=_ORDER.__getitem__)


class Keys:
    """The engine's keys under one cluster's prefix."""

    __slots__ = ("_queue", "consumers", "prefix", "script_arguments")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.encode()
        self.consumers = self.prefix + b"qc"
        self.script_arguments: tuple[bytes, bytes, int] = (self.prefix, GROUP, int(DEAD_AFTER_S * 1000))
        """What every script's arguments begin with."""
        self._queue = self.prefix + b"q:"

    def stream(self, queue: str, level: bytes = BASE) -> bytes:
        """The stream of one level of a queue."""
        return self._queue + queue.encode() + level

    def level(self, queue: str, stream: bytes) -> bytes:
        """The level of a queue that one of its streams is."""
        return stream[len(self.stream(queue)) :]

    def levels(self, queue: str) -> bytes:
        """The levels that the queue has besides its base."""
        return self.prefix + b"ql:" + queue.encode()

    def notices(self, consumer: str) -> bytes:
        """The stream in which a consumer reads that a queue has a new level."""
        return self.prefix + b"qn:" + consumer.encode()


@cache
def script(name: str) -> str:
    """Return the source of `lua/<name>.lua`, with the functions that all scripts share before it."""
    folder = Path(__file__).parent / "lua"
    return (folder / "shared.lua").read_text() + (folder / f"{name}.lua").read_text()
