"""Copies of large values that are only in this host's shared memory: for other hosts that ask, and for afterwards.

One node of a host does that (`LargeObjects.look_after`), another one as soon as it has ended. Nothing is kept but what
is under way: which values there are, and of which there is no copy yet, is seen in the files of the host and in their
records. So a node that begins after another was killed goes on where that one was.

Copies are made on two threads: who asks does not wait for what is made for afterwards.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.records import COPY_SOON
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.store.large import LargeObjects
from rabbitry_workers.node.model.node import Node

INTERVAL_SECONDS: Final = 1.0

SOON_SECONDS: Final = 1.0
"""A result that nobody holds any more by then, like most between the stages of a program, is never copied."""

NO_ROOM_SECONDS: Final = 10.0
"""So long nothing is copied for afterwards when Redis has no room."""

LEAVE_SECONDS: Final = 8.0
"""What a node that leaves takes for copies, before its lease ends."""

LOOKED_AT_ONCE: Final = 500

_NO_COPY: Final = "no copy could be made of object %s: %s"

log = logging.getLogger("rabbitry.node")


class KnowsNeighbours(Protocol):
    """Knows which other nodes there are, and on which hosts."""

    def is_alone_on_host(self) -> bool:
        """True if no other node of this host is known to take work."""


class Copying:
    """Service on the agent's loop: `start`, `run_once`; `on_copy` hears requests.

    Args:
        node: whose host's values are copied.
        others: the other nodes.
    """

    def __init__(self, node: Node, others: KnowsNeighbours) -> None:
        self._node = node
        self._others = others
        self._asked: set[bytes] = set()  # objects that are being copied, or are to be
        self._noted: set[bytes] = set()  # those of them of which was said that it goes on
        self._soon: set[bytes] = set()  # names of values, the same
        self._settled: set[bytes] = set()  # names of values that need no copy from us any more
        self._not_before = 0.0
        # Both start with the first thing to do.
        self._for_readers = ThreadPoolExecutor(1, thread_name_prefix="rabbitry-copies-asked")
        self._for_later = ThreadPoolExecutor(1, thread_name_prefix="rabbitry-copies")

    @property
    def _large(self) -> LargeObjects:
        return self._node.store.large

    def start(self) -> None:
        """Look after the values of this host from now on."""
        self._large.look_after()
        self._node.periodic.every(INTERVAL_SECONDS, self.run_once)

    def on_copy(self, host: bytes, object_id: bytes, again: bool) -> None:
        """A reader asks for a value of some host; `again`: whose nodes had time to answer, and did not."""
        if host != self._node.config.host or object_id in self._asked:
            return
        if not self._large.look_after() and not again:
            return
        self._asked.add(object_id)
        self._for_readers.submit(self._copy_asked, object_id)

    def _copy_asked(self, object_id: bytes) -> None:
        """Body of the first thread's work."""
        try:
            self._large.copy(object_id)
        except ObjectStoreFull as full:
            self._noted.discard(object_id)  # what stands there now is the answer
            self._say(object_id, full)
        except (RabbitryBrokerError, OSError) as error:
            log.warning(_NO_COPY, object_id.hex(), error)  # the reader asks again
        except Exception as error:
            log.exception(_NO_COPY, object_id.hex(), error)
        self._node.loop.add_callback(lambda: self._ended_asked(object_id))

    def _ended_asked(self, object_id: bytes) -> None:
        self._asked.discard(object_id)
        if object_id in self._noted:
            self._noted.discard(object_id)
            try:
                self._large.copies.unnote(object_id)
            except RabbitryBrokerError as error:
                log.debug("a note stays for its seconds: %s", error)

    def _say(self, object_id: bytes, full: ObjectStoreFull) -> None:
        try:
            self._large.copies.note([object_id], full)
        except RabbitryBrokerError as error:
            log.debug("nobody hears that there is no room for a copy: %s", error)

    def run_once(self) -> None:
        """Tell those who ask that it goes on; begin to copy what is to outlive this host."""
        if self._asked:
            self._noted |= self._asked
            self._large.copies.note(list(self._asked))
        if not self._large.look_after():
            return
        names = self._large.names_here()
        self._settled.intersection_update(names)
        if time.monotonic() < self._not_before:
            return
        new = [each for each in names if each not in self._settled and each not in self._soon]
        new = [each for each in new[:LOOKED_AT_ONCE] if self._large.age(each) >= SOON_SECONDS]
        for name, known in zip(new, self._large.copies.look([each[:OBJECT_BYTES] for each in new]), strict=True):
            if known is None:
                continue  # not committed yet, or deleted
            if self._large.is_only_here(name, known[1]) and known[1].copy == COPY_SOON:
                self._soon.add(name)
                self._for_later.submit(self._copy_soon, name)
            else:
                self._settled.add(name)

    def _copy_soon(self, name: bytes) -> None:
        """Body of the second thread's work."""
        settled = False
        try:
            if time.monotonic() >= self._not_before:
                self._large.copy(name)
                settled = True
        except ObjectStoreFull as full:
            if time.monotonic() >= self._not_before:
                log.warning("values of this host have no copy elsewhere, and would be lost with it: %s", full)
            self._not_before = time.monotonic() + NO_ROOM_SECONDS
        except (RabbitryBrokerError, OSError) as error:
            log.warning(_NO_COPY, name[:OBJECT_BYTES].hex(), error)
        except Exception as error:
            log.exception(_NO_COPY, name[:OBJECT_BYTES].hex(), error)
        self._node.loop.add_callback(lambda: self._ended(name, settled=settled))

    def _ended(self, name: bytes, *, settled: bool) -> None:
        self._soon.discard(name)
        if settled:
            self._settled.add(name)

    def leave(self) -> None:
        """This node ends: if no other one of its host goes on, copy what is here only, as far as time allows."""
        for threads in (self._for_readers, self._for_later):
            threads.shutdown(wait=False, cancel_futures=True)
        if not self._large.look_after():
            return
        self._large.stop_looking_after()  # from here on, who makes values sends them to Redis at once
        if not self._others.is_alone_on_host():
            return
        left = list(self._large.on_host_only(self._large.names_here()))
        until = time.monotonic() + LEAVE_SECONDS
        while left and time.monotonic() < until:
            try:
                self._large.copy(left[-1])
            except ObjectStoreFull as full:
                log.warning("Redis has no room for what only this host has: %s", full)
                break
            left.pop()
        if left:
            log.warning(
                "%d large values are only in the shared memory of this host, which no node serves now", len(left)
            )
