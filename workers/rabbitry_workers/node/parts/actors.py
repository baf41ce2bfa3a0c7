"""The wiring of `node.actors`: actors that this node hosts, their calls and their ends."""

from __future__ import annotations

from rabbitry_workers.node.actors.burials import Burials
from rabbitry_workers.node.actors.calls import ActorCalls
from rabbitry_workers.node.actors.ends import Ends
from rabbitry_workers.node.actors.hosted import ActorTable
from rabbitry_workers.node.actors.hosting import Hosting
from rabbitry_workers.node.actors.recovery import Recovery
from rabbitry_workers.node.dispatch.dispatcher import Dispatcher
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.parts.room import RoomParts


class ActorParts(RoomParts):
    """The parts that host actors."""

    # Of parts above, looked up when they are called.
    dispatcher: Dispatcher

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        node, settle = self.node, self.settling.settle
        self.table = ActorTable()
        self.burials = Burials(node, self.consumer, self.records)
        self.ends = Ends(
            node,
            self.table,
            self.records,
            self.burials,
            self.consumer,
            settle,
            self.commits,
            self.publishing,
            self.failing,
            lambda piece: self.dispatcher.enqueue(piece),
            self.custody.forget,
            self.output.last_words,
        )
        self.calls = ActorCalls(
            self.table,
            self.records,
            self.burials.graves,
            settle,
            self.commits,
            self.publishing,
            self.failing,
            self.cancelling,
            self.shadows,
            self.redelivery,
            self.others.lost_a_node,
            self.ends.refuse,
            self.consumer,
            self.loop,
            self.events if self.events.recorder.on else None,
        )
        self.hosting = Hosting(
            node,
            self.table,
            self.records,
            self.burials,
            self.consumer,
            settle,
            self.cancelling,
            self.calls,
            self.ends,
            lambda: self.dispatcher.serve_all(),
        )
        self.recovery = Recovery(node, self.table, self.records, self.burials, self.ends, self.publishing)
