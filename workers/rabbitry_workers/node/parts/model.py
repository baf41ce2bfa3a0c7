"""What all parts of a node share: its store and loop, its room, and the ways in and out."""

from __future__ import annotations

from rabbitry_broker.loop import Loop
from rabbitry_broker.queues import open_consumer, open_publisher
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_workers.node.groups.bundles import Bundles
from rabbitry_workers.node.intake.intake import Intake
from rabbitry_workers.node.intake.sources import GONE_SECONDS, Sources
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.in_hand import InHand
from rabbitry_workers.node.model.lanes import Executor, Lanes
from rabbitry_workers.node.model.lease import LeasedStore
from rabbitry_workers.node.model.ledger import Ledger, gpu_names
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.outcome.custody import Custody
from rabbitry_workers.node.outcome.publishing import announce_queue
from rabbitry_workers.node.peers.others import Others
from rabbitry_workers.node.peers.watch import ControlWatch
from rabbitry_workers.node.services.events import NodeEvents


class ModelParts:
    """What is there before any part."""

    # Of parts above, looked up when they are called.
    sources: Sources
    custody: Custody
    intake: Intake
    watch: ControlWatch

    def __init__(self, config: NodeConfig) -> None:
        signer = Signer(config.endpoint.secrets)
        self.store = LeasedStore(
            config.endpoint,
            signer,
            ttl=config.object_ttl,
            session=config.session,
            host=config.host,
            spill_url=config.spill_url,
            memory_limit=config.memory_limit,
        )
        self.loop = Loop()
        self.node = node = Node.of(config, self.loop, self.store, signer)
        self.life = Life(lambda: self.loop.add_callback(self.loop.stop))
        self.ledger = Ledger(node.totals, gpu_names(node.totals))
        self.lanes = Lanes(self.ledger)
        self.bundles = Bundles(self.ledger)
        self.lanes.account_of = self.bundles.account_of
        self.executors: dict[int, Executor] = {}
        self.in_hand = InHand(self.lanes, self.executors)
        self.events = NodeEvents(node, self.lanes, self.executors)
        self.others = Others(node)
        self.records = ActorRecords(node.store)
        self.publisher = open_publisher(
            node.endpoint,
            on_new_queue=lambda queue: announce_queue(node, queue),
            loop=None,
            name=f"node-{config.name}",
            patience=node.endpoint.traits.node_patience,
        )
        self.consumer = open_consumer(
            node.endpoint,
            self.loop,
            self._on_delivery,
            consumer_name=node.id.hex(),
            on_gone=self._on_queue_gone,
        )

    def _on_delivery(self, delivery: Delivery) -> None:
        self.intake.on_delivery(delivery)

    def _on_queue_gone(self, queue: str) -> None:
        self.sources.gone(queue)
        self.custody.take_from(queue)
        # It is still on record if it was not the janitor who deleted it.
        self.loop.call_later(GONE_SECONDS + 0.1, self.watch.look_soon)
