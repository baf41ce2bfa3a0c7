"""The node: what its parts take instead of the agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.loop import Loop
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.periodic import Periodic
from rabbitry_workers.node.model.turns import Turns


@dataclass(frozen=True, slots=True)
class Node:
    """Who a node is, and the few things that all of its parts use. Loop thread only, but for what is constant.

    Attributes:
        id: of the node.
        config: what the node was told to be.
        endpoint: the cluster.
        loop: on which everything happens.
        periodic: the only timer of what is done again and again.
        store: the cluster's store, over the connection of the loop's thread.
        keys: names of keys there.
        signer: seals and opens messages.
        totals: the resources that the node has.
        slots: tasks that it may run at a time, about: its CPUs, at least one.
        turns: at what one node does for all.
    """

    id: bytes
    config: NodeConfig
    endpoint: Endpoint
    loop: Loop
    periodic: Periodic
    store: ObjectStore
    keys: Keys
    signer: Signer
    totals: ResourceRequest
    slots: int
    turns: Turns = field(default_factory=Turns)

    @classmethod
    def of(cls, config: NodeConfig, loop: Loop, store: ObjectStore, signer: Signer) -> Node:
        """Return the node that a configuration describes."""
        return cls(
            id=config.node_id,
            config=config,
            endpoint=config.endpoint,
            loop=loop,
            periodic=Periodic(loop),
            store=store,
            keys=Keys.of(config.endpoint),
            signer=signer,
            totals=ResourceRequest.from_floats(config.totals),
            slots=max(1, int(config.totals.get("CPU", 1))),
        )
