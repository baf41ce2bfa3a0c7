"""The wiring of `node.intake`: what becomes of a delivery until its tasks are in a lane, and what goes back."""

from __future__ import annotations

import socket

from rabbitry_workers.node.intake.admission import Admission
from rabbitry_workers.node.intake.affinity import Affinity
from rabbitry_workers.node.intake.handback import HandBack
from rabbitry_workers.node.intake.inside import InsideGroups
from rabbitry_workers.node.intake.intake import Intake
from rabbitry_workers.node.intake.local_calls import LocalCalls
from rabbitry_workers.node.intake.locality import Locality
from rabbitry_workers.node.intake.owners import Owners
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.parts.running import RunningParts
from rabbitry_workers.node.services.drivers import Drivers


class IntakeParts(RunningParts):
    """The parts that take work in, and give it back."""

    def __init__(self, config: NodeConfig, template: tuple[int, socket.socket]) -> None:
        super().__init__(config, template)
        node, settle = self.node, self.settling.settle
        self.drivers = Drivers(node)
        self.owners = Owners(node, self.in_hand, self.lanes, self.executors, settle, self.drivers.is_silent)
        self.affinity = Affinity(node, self.lanes, self.ledger, settle, self.publishing, self.failing)
        self.inside = InsideGroups(
            node,
            self.lanes,
            self.bundles,
            self.keeping,
            settle,
            self.publishing,
            self.failing,
            self.sources.forget,
            lambda piece: self.handback.give_back(piece),
        )
        self.handback = HandBack(
            node,
            self.lanes,
            self.others,
            settle,
            self.publishing,
            self.run_times.means,
            self.life,
            self.sources.pause,
            self.nesting.holds_back,
            self.custody.update,
            self.ends.moved_away,
            self.environments.is_making,
        )
        locality = Locality(node, self.others, settle, self.publishing)
        self.admission = Admission(
            self.lanes,
            self.life,
            self.cancelling,
            self.owners,
            self.affinity,
            self.inside,
            locality,
            self.dispatcher.serve,
            self.handback.give_back_all,
        )
        self.local_calls = LocalCalls(node, self.life, self.table, self.calls, self.cancelling)
        self.intake = Intake(
            node,
            self.life,
            self.sources,
            self.owners,
            self.settling,
            self.custody,
            self.failing,
            self.calls,
            self.redelivery.take_later,
            self.admission.admit,
            self.consumer.release,
        )
