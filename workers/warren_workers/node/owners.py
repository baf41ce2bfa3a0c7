"""Work whose owner is gone is dropped: nobody could ever read its results.

An owner is a client: a driver, an executor or an actor's process. It is gone when its sign of life is: at once with a
goodbye, else with its lease. That is believed when it was missing in two looks `CONFIRM_SECONDS` apart, so that a Redis
that lost its keys, until the clients write them again, does no harm. Detached work is never dropped.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from warren_broker.messages import KIND_ACTOR_CALL, TaskHeader
from warren_workers.node.executors import State
from warren_workers.node.periodic import every

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

INTERVAL_SECONDS: Final = 1.0
CONFIRM_SECONDS: Final = 5.0  # more than the pause between two renewals of a client's lease
GONE_KEPT: Final = 10_000

log = logging.getLogger("warren.node")


class Owners:
    """Service on the agent's loop: `start`, `run_once`.

    Attributes:
        gone: clients that are gone, the latest last.
    """

    def __init__(self, agent: Agent, confirm: float = CONFIRM_SECONDS) -> None:
        self._agent = agent
        self._confirm = confirm
        self._missing: dict[bytes, float] = {}
        self.gone: dict[bytes, None] = {}

    def start(self) -> None:
        """Look after owners from now on."""
        every(self._agent, INTERVAL_SECONDS, self.run_once, "cannot see which clients are alive")

    def is_gone(self, header: TaskHeader) -> bool:
        """True if nobody wants the results of such tasks any more."""
        return header.owner in self.gone and not header.lifetime and header.kind != KIND_ACTOR_CALL

    def run_once(self) -> None:
        """Look which owners of work in hand are gone, and drop that work."""
        agent = self._agent
        if not agent.store.trusts_leases(agent.config.client_lease):
            return
        owners = {piece.header.owner for lane in agent.lanes.values() for piece in lane.all_pieces()}
        for executor in agent.executors.values():
            if executor.state is not State.ACTOR:
                owners.update([chunk.header.owner for chunk in executor.chunks])
        wanted = [owner for owner in owners if owner not in self.gone]
        now = time.monotonic()
        found = agent.store.pipeline([(b"EXISTS", agent.keys.client(owner)) for owner in wanted])
        missing = {owner for owner, alive in zip(wanted, found, strict=True) if not alive}
        self._missing = {owner: self._missing.get(owner, now) for owner in missing}
        for owner, since in list(self._missing.items()):
            if now - since >= self._confirm:
                del self._missing[owner]
                self.gone[owner] = None
                log.info("client %s is gone; its work is dropped", owner.hex())
        while len(self.gone) > GONE_KEPT:
            del self.gone[next(iter(self.gone))]
        if self.gone:
            self._drop_waiting()
            self._end_running()

    def _drop_waiting(self) -> None:
        agent = self._agent
        for lane in list(agent.lanes.values()):
            for piece in list(lane.all_pieces()):
                if self.is_gone(piece.header):
                    lane.remove(piece)
                    agent.settle(piece.held, len(piece.tasks))
                    piece.tasks.clear()

    def _end_running(self) -> None:
        for executor in list(self._agent.executors.values()):
            if executor.state is State.ACTOR or not executor.chunks or not executor.progress.started[0]:
                continue
            unwanted = [chunk for chunk in executor.chunks if self.is_gone(chunk.header)]
            if executor.chunks[0] in unwanted:
                # As for a forced cancellation: the process ends, its tasks are not run again.
                for chunk in unwanted:
                    executor.cancelled.update([task[0] for task in chunk.tasks])
                executor.kill()
