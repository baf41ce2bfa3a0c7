"""Work whose owner is gone is dropped: nobody could ever read its results.

An owner is a client: a driver, an executor or an actor's process. It is gone when it was cleared away or that has
begun: at once with a goodbye, and when its end was noticed (see `drivers`, `clients`). Who notices tells all nodes
(control word `clients-gone`), so that its work holds no places here any longer. One whose lease has ended, and whom
nobody has noticed, is made known as dead (`lapse.lua`) if that stays so for `CONFIRM_SECONDS`: if it came back after
its work was dropped, it would wait for that for ever. Detached work is never dropped.

Work of an owner that this node has not met waits until it is known that there is one: what an ended driver left on a
queue must not begin. That is one look at Redis for each owner, not for each message.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rabbitry_broker.messages import KIND_ACTOR_CALL, TaskHeader
from rabbitry_workers.node.model.in_hand import InHand
from rabbitry_workers.node.model.lanes import Executor, Lanes, State
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Settle

INTERVAL_SECONDS: Final = 1.0
CONFIRM_SECONDS: Final = 0.5  # so that it is seen twice; leases of which this is said are trusted
GONE_KEPT: Final = 10_000
MET_KEPT: Final = 10_000

log = logging.getLogger("rabbitry.node")


class Owners:
    """Service on the agent's loop: `start`, `run_once`.

    Args:
        node: on which the work is.
        in_hand: the work.
        lanes: in which tasks wait.
        executors: all that are alive, by the process's number.
        settle: of deliveries.
        is_silent: True for a driver that has given no sign for too long and has no connection.
        confirm: seconds until one whose lease has ended is gone.

    Attributes:
        gone: clients that are gone, the latest last.
    """

    def __init__(
        self,
        node: Node,
        in_hand: InHand,
        lanes: Lanes,
        executors: Mapping[int, Executor],
        settle: Settle,
        is_silent: Callable[[bytes], bool],
        confirm: float = CONFIRM_SECONDS,
    ) -> None:
        self._node = node
        self._in_hand = in_hand
        self._lanes = lanes
        self._executors = executors
        self._settle = settle
        self._is_silent = is_silent
        self._confirm = confirm
        self._missing: dict[bytes, float] = {}
        self.gone: dict[bytes, None] = {}
        self._met: dict[bytes, None] = {}
        self._unmet: dict[bytes, float] = {}  # whose lease had ended when their first message came, since when

    def start(self) -> None:
        """Look after owners from now on."""
        self._node.periodic.every(INTERVAL_SECONDS, self.run_once, "cannot see which clients are alive")

    def is_gone(self, header: TaskHeader) -> bool:
        """True if nobody wants the results of such tasks any more."""
        return header.owner in self.gone and not header.lifetime and header.kind != KIND_ACTOR_CALL

    def run_once(self) -> None:
        """Look which owners of work in hand are gone, and drop that work."""
        if not self._node.store.trusts_leases(self._node.config.client_lease):
            return
        wanted = [owner for owner in self._in_hand.owners() if owner not in self.gone]
        now = time.monotonic()
        standing = self._standing(wanted)
        self._missing = {owner: self._missing.get(owner, now) for owner in wanted if standing[owner] is not True}
        known = [owner for owner in self._missing if standing[owner] is False]
        lapsed = [
            owner for owner, since in self._missing.items() if standing[owner] is None and now - since >= self._confirm
        ]
        if lapsed:
            lapsed = self._node.store.lapse(lapsed)
        for owner in (*known, *lapsed):
            del self._missing[owner]
            self._is_gone_now(owner)
        for table, kept in ((self.gone, GONE_KEPT), (self._unmet, MET_KEPT)):
            while len(table) > kept:
                del table[next(iter(table))]
        if self.gone:
            self._drop_waiting()
            self._end_running()
        if lapsed:
            self._node.store.clients_gone(lapsed)

    def told(self, clients: Sequence[bytes]) -> None:
        """Somebody says that these clients are gone: look whether it is so, if there is work of theirs."""
        if not self._in_hand.owners().isdisjoint(clients):
            self.run_once()

    def has_met(self, header: TaskHeader) -> bool:
        """True if work may be taken (and dropped, if its owner is gone); False: it is not known yet, ask again soon."""
        owner = header.owner
        if owner in self._met or header.lifetime or owner in self.gone:
            return True
        standing = self._standing([owner])[owner]
        if standing and self._is_silent(owner):
            return False
        if standing is None and self._node.store.trusts_leases(self._node.config.client_lease):
            return self._has_lapsed(owner)
        if standing is False and self._node.store.trusts_leases(self._node.config.client_lease):
            self._is_gone_now(owner)
            return True
        self._met[owner] = None
        while len(self._met) > MET_KEPT:
            del self._met[next(iter(self._met))]
        return True

    def _has_lapsed(self, owner: bytes) -> bool:
        """True if an owner not met yet, whose lease has ended, is gone now: what waits here holds places meanwhile."""
        now = time.monotonic()
        if now - self._unmet.setdefault(owner, now) < self._confirm:
            return False
        del self._unmet[owner]
        if not self._node.store.lapse([owner]):
            return False
        self._is_gone_now(owner)
        self._node.store.clients_gone([owner])
        return True

    def _standing(self, owners: Sequence[bytes]) -> dict[bytes, bool | None]:
        """Return True for owners that live, False for those that count as dead, None if only their lease has ended."""
        store, keys = self._node.store, self._node.keys
        commands: list[tuple[bytes, ...]] = [(b"EXISTS", keys.client(owner)) for owner in owners]
        commands += [(b"ZSCORE", keys.clients, owner) for owner in owners]
        replies = store.pipeline(commands)
        signs, ends = replies[: len(owners)], replies[len(owners) :]
        return {
            owner: True if sign else False if end is None or end == b"-inf" else None
            for owner, sign, end in zip(owners, signs, ends, strict=True)
        }

    def _is_gone_now(self, owner: bytes) -> None:
        self.gone[owner] = None
        self._met.pop(owner, None)
        log.info("client %s is gone; its work is dropped", owner.hex())

    def _drop_waiting(self) -> None:
        for lane in list(self._lanes.values()):
            for piece in list(lane.all_pieces()):
                if self.is_gone(piece.header):
                    lane.remove(piece)
                    self._settle(piece.held, len(piece.tasks))
                    piece.tasks.clear()

    def _end_running(self) -> None:
        for executor in list(self._executors.values()):
            if executor.state is State.ACTOR or not executor.chunks or not executor.progress.started[0]:
                continue
            unwanted = [chunk for chunk in executor.chunks if self.is_gone(chunk.header)]
            if executor.chunks[0] in unwanted:
                # As for a forced cancellation: the process ends, its tasks are not run again.
                for chunk in unwanted:
                    executor.cancelled.update([task[0] for task in chunk.tasks])
                executor.dismissed = "its task's owner is gone"
                executor.kill()
