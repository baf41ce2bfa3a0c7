"""The wiring of what goes on by itself: signs of life, control words, the janitor, and what watches the machine."""

from __future__ import annotations

import socket
from collections.abc import Callable

from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.waiting import Waiting
from rabbitry_workers.node.parts.intake import IntakeParts
from rabbitry_workers.node.peers.controls import Controls
from rabbitry_workers.node.peers.head import Head
from rabbitry_workers.node.peers.heartbeat import Heartbeat
from rabbitry_workers.node.peers.requests import Requests
from rabbitry_workers.node.peers.watch import ControlWatch
from rabbitry_workers.node.services.copying import Copying
from rabbitry_workers.node.services.figures import Figures
from rabbitry_workers.node.services.gpus import GpuWatch
from rabbitry_workers.node.services.janitor import Janitor
from rabbitry_workers.node.services.log_reading import LogReader
from rabbitry_workers.node.services.memory import MemoryWatch
from rabbitry_workers.node.services.peers import Peers
from rabbitry_workers.node.services.stacks import Stacks
from rabbitry_workers.node.services.submissions import SubmittedJobs, job_ttl
from rabbitry_workers.node.services.turns import turns
from rabbitry_workers.node.words import Words


class ServiceParts(IntakeParts):
    """The parts that do something time and again, and what other nodes and people ask for.

    Attributes:
        on_drain: called with the reason when somebody asks this node to leave.
    """

    on_drain: Callable[[str], None]

    def __init__(self, config: NodeConfig, template: tuple[int, socket.socket]) -> None:
        super().__init__(config, template)
        node = self.node
        self.gpus = GpuWatch(node)
        self.peers = Peers(node)
        figures = Figures(
            self.lanes,
            self.executors,
            self.table.hosted,
            self.events.recorder,
            self.publisher,
            self.gpus.read,
            self.peers.figures,
        )
        self.head = Head(node, self.ledger)
        self.heartbeat = Heartbeat(
            node,
            self.others,
            self.nesting,
            self.bundles.tokens,
            lambda: self.bundles.free_in(self.sources.shared_groups()),
            self.store.sign_of_life,
            lambda: self.life.draining,
            self.recovery.doubt,
            self.head,
            Waiting(self.lanes, self.executors, self.run_times.means),
            figures.read,
            self.peers.place,
            turns(node.keys),
        )
        answers = {**LogReader(self.log_files.path).answers(), "stack": Stacks(self.executors).answer}
        self.requests = Requests(node, answers)
        self.copying = Copying(node, self.others)
        self.words = Words(
            node,
            self.life,
            cancelling=self.cancelling,
            owners=self.owners,
            ends=self.ends,
            pool=self.pool,
            environments=self.environments,
            planner=self.planner,
            keeping=self.keeping,
            flush_output=self.output.flush,
            on_ask=self.requests.on_ask,
            on_copy=self.copying.on_copy,
            on_drain=lambda why: self.on_drain(why),
            look_again=lambda: self.watch.look_again(),
        )
        self.controls = Controls(node, self.words.handlers())
        self.watch = ControlWatch(node, self.sources, self.controls.act, self._listens_again)
        self.store.lives.on_gone = self.store.clients_gone
        self.janitor = Janitor(node, self.consumer, self.commits.orphan, self._take_over)
        self.submissions = SubmittedJobs(node, job_ttl())
        self.memory = MemoryWatch(node, self.executors, node.config.executor_memory)

    def _listens_again(self) -> None:
        """Control messages were missed, maybe: what the records say of the same is done."""
        self.recovery.listens_again()
        self.cancelling.listens_again()

    def _take_over(self, node_id: bytes) -> int:
        return self.custody.adopt(node_id) + self.continuations.publish_of(node_id)
