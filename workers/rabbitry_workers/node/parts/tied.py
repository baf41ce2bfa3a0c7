"""What parts tell those above them: with this, all parts of a node are ready to run."""

from __future__ import annotations

import socket

from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.parts.services import ServiceParts


class Parts(ServiceParts):
    """All parts of one node, ready to run. Loop thread only.

    Args:
        config: what the node is.
        template: (pid, control socket) of the template forked from this process.
    """

    def __init__(self, config: NodeConfig, template: tuple[int, socket.socket]) -> None:
        super().__init__(config, template)
        self._tie()

    def _tie(self) -> None:
        """Give the parts below what they call of those above."""
        self.store.waits_for_room = True
        self.store.on_full = self.heartbeat.stay
        self.settling.on_settled = self.custody.settled
        self.settling.on_released = self.sources.settled
        self.settling.on_continued = self.continuations.settled
        self.commits.not_ended = self.redelivery.not_ended
        self.commits.on_failed = self.events.failed
        self.crashes.on_lost = self.events.lost
        self.crashes.on_ended = self.events.worker
        self.hosting.on_named = self.output.named
        self.hosting.on_creation = lambda hosted, error: self.events.creation(
            hosted.executor, hosted.header, hosted.task, error
        )
        self.cancelling.calls = self.calls
        self.pool.dispatcher = self.dispatcher
        self.keeping.keep, self.keeping.drop = self.holding.keep, self.holding.drop
        self.keeping.on_change = self.sources.reconsider
        self.keeping.on_room = self.dispatcher.serve_all
        self.keeping.clear_lanes = self.inside.clear_lanes
        self.planner.heartbeat = self.heartbeat
        self.head.on_change = self._on_totals
        self.heartbeat.on_queues = self.watch.told
        self.heartbeat.on_planning_free = self.planner.look_soon
        self.heartbeat.on_silent = self.drivers.look_soon
        self.others.on_gone = self.watch.look_again
        for elsewhere in (self.retries.task_ids, self.failing.task_ids, self.table.kept_ids):
            self.in_hand.watch(elsewhere)
        for busy in (
            lambda: self.handback.unconfirmed,
            lambda: self.failing,
            self.in_hand.is_at_work,
            self.in_hand.has_waiting,
        ):
            self.life.lasts_while(busy)

    def _on_totals(self) -> None:
        """The node has more or less than before: what it cannot run goes back, what it can is looked for."""
        self.sources.forget_unserved()
        self.handback.give_back_unserved(self.ledger.can_ever)
        self.watch.look_soon()
