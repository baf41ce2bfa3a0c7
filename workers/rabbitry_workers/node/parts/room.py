"""The wiring of what says where and when something may run: queues, placement groups, turns, executors."""

from __future__ import annotations

from collections.abc import Iterator

from rabbitry_broker.store.groups import GroupRecords
from rabbitry_workers.node.actors.ends import Ends
from rabbitry_workers.node.dispatch.dispatcher import Dispatcher
from rabbitry_workers.node.dispatch.ending import Ending
from rabbitry_workers.node.dispatch.environments import Environments
from rabbitry_workers.node.dispatch.executors import ExecutorProcess
from rabbitry_workers.node.dispatch.holding import Holding
from rabbitry_workers.node.dispatch.jobs import Jobs
from rabbitry_workers.node.dispatch.messages import ExecutorMessages
from rabbitry_workers.node.dispatch.nesting import Nesting
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.dispatch.recall import Recall
from rabbitry_workers.node.dispatch.run_times import RunTimes
from rabbitry_workers.node.dispatch.templates import Templates
from rabbitry_workers.node.dispatch.turns import Turns
from rabbitry_workers.node.groups.keeping import Keeping
from rabbitry_workers.node.groups.planner import Planner
from rabbitry_workers.node.intake.sources import Sources
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.lanes import Executor, State
from rabbitry_workers.node.model.ledger import Grant
from rabbitry_workers.node.parts.outcome import OutcomeParts
from rabbitry_workers.node.services.clients import ExecutorClients
from rabbitry_workers.node.services.log_files import LogFiles
from rabbitry_workers.node.services.output import OutputReader


class RoomParts(OutcomeParts):
    """The parts that know of room, and of who may have it."""

    # Of parts above, looked up when they are called.
    ends: Ends
    dispatcher: Dispatcher
    ending: Ending
    templates: Templates
    clients: ExecutorClients
    messages: ExecutorMessages

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        node = self.node
        self.log_files = LogFiles(node.id, passing=node.endpoint.traits.kills_at_end)
        self.output = OutputReader(node, self.log_files)
        self.group_records = GroupRecords(node.store)
        self.keeping = Keeping(
            node,
            self.bundles,
            self.group_records,
            self.executors,
            self.commits.tell,
            lambda actor, no_restart, cause: self.ends.kill(actor, no_restart=no_restart, cause=cause),
        )
        self.sources = Sources(node, self.consumer, self.lanes, self.ledger, self.others, self.keeping)
        self.run_times = RunTimes()
        self.nesting = Nesting(
            self.lanes,
            self.executors,
            self.ledger,
            self.sources,
            lambda lane: self.dispatcher.serve(lane),
        )
        self.planner = Planner(
            node, self.group_records, self.keeping, self.others, self.nesting, lambda: self.life.draining
        )
        self.jobs = Jobs(node)
        self.holding = Holding(
            self.ledger,
            self._lasting,
            self.nesting.waits_for,
            lambda: self.loop.add_callback(self.dispatcher.serve_all),
        )
        self.turns = Turns(self.lanes, self.jobs.share, self.holding.gives_way)
        self.environments = Environments(
            node,
            self.lanes,
            self.executors,
            lambda lane: self.dispatcher.serve(lane),
            lambda key, error: self.ending.fail_waiting(key, error),
            self.sources.take_more,
            lambda key, setup: self.templates.warm(key, setup),
            lambda key: self.templates.cool(key),
        )
        self.pool = ExecutorPool(
            node,
            self.lanes,
            self.executors,
            self.jobs,
            self.environments.setup,
            self.nesting.startable,
            lambda tag, config: self.templates.fork(tag, config),
            self._adopt,
            self.holding.allows,
            self.holding.took,
        )
        self.recall = Recall(
            self.lanes, self.executors, self.settling.settle, self.pool, self.cancelling.interrupt_dropped
        )

    def _lasting(self) -> Iterator[Grant]:
        """Yield what actors and bundles hold of this node."""
        for executor in self.executors.values():
            if executor.state is State.ACTOR and executor.grant is not None and executor.grant.ledger is self.ledger:
                yield executor.grant
        for bundle in self.bundles:
            yield bundle.grant

    def _adopt(self, pid: int, key: tuple[bytes, bytes], fds: list[int], client_id: bytes) -> Executor:
        executor = ExecutorProcess(self.loop, pid, key, fds, self.messages)
        self.clients.started(executor, client_id)
        self.output.watch(executor)
        self.events.worker(executor)
        return executor
