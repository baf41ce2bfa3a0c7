"""The wiring of `node.outcome`, and of what cancels: how tasks end, and what is told of it."""

from __future__ import annotations

from rabbitry_workers.node.actors.ends import Ends
from rabbitry_workers.node.actors.hosting import Hosting
from rabbitry_workers.node.intake.admission import Admission
from rabbitry_workers.node.intake.cancelling import Cancelling
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.outcome.commits import Commits
from rabbitry_workers.node.outcome.continuations import Continuations
from rabbitry_workers.node.outcome.custody import Custody
from rabbitry_workers.node.outcome.doubts import Doubts
from rabbitry_workers.node.outcome.failing import Failing
from rabbitry_workers.node.outcome.publishing import Publishing
from rabbitry_workers.node.outcome.redelivery import Redelivery
from rabbitry_workers.node.outcome.settling import Settling
from rabbitry_workers.node.outcome.shadows import ShadowDeliveries
from rabbitry_workers.node.parts.model import ModelParts


class OutcomeParts(ModelParts):
    """The parts that settle, commit, publish and fail."""

    # Of parts above, looked up when they are called.
    ends: Ends
    hosting: Hosting
    admission: Admission

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        node = self.node
        self.settling = Settling(self.consumer.ack)
        settle = self.settling.settle
        self.publishing = Publishing(node, self.publisher, settle, self.others.may_be_abandoned)
        self.commits = Commits(node, self.publishing, settle)
        self.shadows = ShadowDeliveries(self.in_hand, settle)
        self.failing = Failing(
            node,
            settle,
            self.commits,
            lambda *creation: self.ends.refuse_creation(*creation),
            self.life.stop_if_drained,
        )
        self.redelivery = Redelivery(
            node,
            settle,
            self.commits,
            self.shadows,
            self.others,
            lambda *work: self.admission.admit(*work),
            lambda actor_id: self.hosting.awaits_creation(actor_id),
        )
        self.doubts = Doubts(
            node, settle, self.commits, self.others.is_alive, lambda *work: self.admission.admit(*work)
        )
        self.custody = Custody(node, self.settling, self.commits, self.publishing, self.redelivery, self.records)
        self.cancelling = Cancelling(node, self.in_hand, self.commits, self.failing, lambda: self.others.count)
        self.continuations = Continuations(node, self.publishing, self.redelivery, self.cancelling)
