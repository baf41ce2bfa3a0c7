"""The parts of a node, and who is told what by whom: the only place that knows all of them.

What a part takes from below it is handed to it when it is built; what it says to one above it is a callback, set in
`_tie`. A new part: its file, and the lines here that build it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from rabbitry_broker.loop import Loop
from rabbitry_broker.queues import open_consumer, open_publisher
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_broker.store.groups import GroupRecords
from rabbitry_workers import channel
from rabbitry_workers.environments.making import Setup
from rabbitry_workers.node.actors.burials import Burials
from rabbitry_workers.node.actors.calls import ActorCalls
from rabbitry_workers.node.actors.ends import Ends
from rabbitry_workers.node.actors.hosted import ActorTable
from rabbitry_workers.node.actors.hosting import Hosting
from rabbitry_workers.node.actors.recovery import Recovery
from rabbitry_workers.node.dispatch.blocking import Blocking
from rabbitry_workers.node.dispatch.completions import Completions
from rabbitry_workers.node.dispatch.crashes import Crashes
from rabbitry_workers.node.dispatch.dispatcher import Dispatcher
from rabbitry_workers.node.dispatch.ending import Ending
from rabbitry_workers.node.dispatch.environments import Environments
from rabbitry_workers.node.dispatch.executors import ExecutorProcess
from rabbitry_workers.node.dispatch.forker import Forker
from rabbitry_workers.node.dispatch.holding import Holding
from rabbitry_workers.node.dispatch.jobs import Jobs
from rabbitry_workers.node.dispatch.messages import ExecutorMessages
from rabbitry_workers.node.dispatch.nesting import Nesting
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.dispatch.recall import Recall
from rabbitry_workers.node.dispatch.retries import Retries
from rabbitry_workers.node.dispatch.run_times import RunTimes
from rabbitry_workers.node.dispatch.start_marks import StartMarks
from rabbitry_workers.node.dispatch.templates import Templates
from rabbitry_workers.node.dispatch.turns import Turns
from rabbitry_workers.node.groups.bundles import Bundles
from rabbitry_workers.node.groups.keeping import Keeping
from rabbitry_workers.node.groups.planner import Planner
from rabbitry_workers.node.intake.admission import Admission
from rabbitry_workers.node.intake.affinity import Affinity
from rabbitry_workers.node.intake.cancelling import Cancelling
from rabbitry_workers.node.intake.handback import HandBack
from rabbitry_workers.node.intake.inside import InsideGroups
from rabbitry_workers.node.intake.intake import Intake
from rabbitry_workers.node.intake.locality import Locality
from rabbitry_workers.node.intake.owners import Owners
from rabbitry_workers.node.intake.sources import GONE_SECONDS, Sources
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.in_hand import InHand
from rabbitry_workers.node.model.lanes import Executor, Lanes, State
from rabbitry_workers.node.model.lease import LeasedStore
from rabbitry_workers.node.model.ledger import Grant, Ledger, gpu_names
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.waiting import Waiting
from rabbitry_workers.node.outcome.commits import Commits
from rabbitry_workers.node.outcome.continuations import Continuations
from rabbitry_workers.node.outcome.custody import Custody
from rabbitry_workers.node.outcome.doubts import Doubts
from rabbitry_workers.node.outcome.failing import Failing
from rabbitry_workers.node.outcome.publishing import Publishing, announce_queue
from rabbitry_workers.node.outcome.redelivery import Redelivery
from rabbitry_workers.node.outcome.settling import Settling
from rabbitry_workers.node.outcome.shadows import ShadowDeliveries
from rabbitry_workers.node.peers.controls import Controls
from rabbitry_workers.node.peers.head import Head
from rabbitry_workers.node.peers.heartbeat import Heartbeat
from rabbitry_workers.node.peers.others import Others
from rabbitry_workers.node.peers.requests import Requests
from rabbitry_workers.node.peers.watch import ControlWatch
from rabbitry_workers.node.services.clients import ExecutorClients
from rabbitry_workers.node.services.copying import Copying
from rabbitry_workers.node.services.drivers import Drivers
from rabbitry_workers.node.services.events import NodeEvents
from rabbitry_workers.node.services.figures import Figures
from rabbitry_workers.node.services.gpus import GpuWatch
from rabbitry_workers.node.services.janitor import Janitor
from rabbitry_workers.node.services.log_files import LogFiles
from rabbitry_workers.node.services.log_reading import LogReader
from rabbitry_workers.node.services.memory import MemoryWatch
from rabbitry_workers.node.services.output import OutputReader
from rabbitry_workers.node.services.peers import Peers
from rabbitry_workers.node.services.stacks import Stacks
from rabbitry_workers.node.services.submissions import SubmittedJobs, job_ttl
from rabbitry_workers.node.services.turns import turns
from rabbitry_workers.node.words import Words


class Parts:
    """All parts of one node, ready to run. Loop thread only.

    Args:
        config: what the node is.
        template: (pid, control socket) of the template forked from this process.

    Attributes:
        on_drain: called with the reason when somebody asks this node to leave.
    """

    on_drain: Callable[[str], None]

    def __init__(self, config: NodeConfig, template: tuple[int, socket.socket]) -> None:
        self._build_model(config)
        self._build_outcome()
        self._build_dispatch()
        self._build_actors()
        self._build_running(template)
        self._build_intake()
        self._build_services()
        self._tie()

    def _build_model(self, config: NodeConfig) -> None:
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

    def _build_outcome(self) -> None:
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
        self.cancelling = Cancelling(node, self.in_hand, settle, self.commits, self.failing)
        self.continuations = Continuations(node, self.publishing, self.redelivery, self.cancelling)

    def _build_dispatch(self) -> None:
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

    def _build_actors(self) -> None:
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

    def _build_running(self, template: tuple[int, socket.socket]) -> None:
        node, settle = self.node, self.settling.settle
        marks = StartMarks(node, settle, self.commits, self.others.is_alive, self.doubts.add)
        self.dispatcher = Dispatcher(
            node,
            self.lanes,
            self.pool,
            self.nesting,
            self.turns,
            self.run_times,
            marks,
            self.hosting,
            self.failing,
            self._on_room,
            self.holding.keep,
        )
        self.retries = Retries(
            node,
            self.lanes,
            self.commits,
            self.cancelling,
            self.dispatcher.serve,
            lambda: self.handback.give_back_all(),
            self.life,
        )
        self.completions = Completions(
            settle,
            self.publishing,
            self.run_times,
            self.turns,
            self.pool,
            self.dispatcher.serve,
            self.continuations.adopt,
            self.retries.retry_later,
            self.life,
            self.events if self.events.recorder.on else None,
        )
        self.clients = ExecutorClients(node, self.commits.orphan)
        self.crashes = Crashes(
            node,
            self.lanes,
            self.executors,
            self.pool,
            self.nesting,
            self.recall,
            self.commits,
            self.dispatcher,
            self.life,
            self.ends.gone,
            self.clients.gone,
            self.output,
        )
        self.forker = Forker(self.loop, template, self.pool.on_forked, self.crashes.on_exited)
        self.templates = Templates(
            self.loop,
            self.forker,
            self.pool.on_forked,
            self.crashes.on_exited,
            self.pool.not_forked,
            self.environments.broken,
            self.environments.log_of,
            self._config_of,
            self.environments.is_up,
            [os.path.dirname(urlsplit(each).path) for each in (node.endpoint.store_url,) if each.startswith("unix:")],
        )
        blocking = Blocking(self.nesting, self.recall, self.dispatcher, self.sources.allow_for_blocked)
        ending = self.ending = Ending(
            self.lanes, self.pool, self.recall, self.dispatcher, self.failing, self.hosting.created, self.life
        )
        self.messages = ExecutorMessages(
            {
                channel.DONE: self.completions.on_done,
                channel.DONE_SET: self.calls.on_done,
                channel.BLOCKED: blocking.on_blocked,
                channel.UNBLOCKED: blocking.on_unblocked,
                channel.CREATED: self.hosting.on_created,
                channel.PUBLISH: self._publish_for,
                channel.BROKEN: ending.on_broken,
                channel.BYE: ending.on_bye,
                channel.LEAVING: ending.on_leaving,
            },
            self.crashes.on_gone,
        )

    def _build_intake(self) -> None:
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

    def _build_services(self) -> None:
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
        self.watch = ControlWatch(node, self.sources, self.controls.act)
        self.janitor = Janitor(node, self.consumer, self.commits.orphan, self._take_over)
        self.submissions = SubmittedJobs(node, job_ttl())
        self.memory = MemoryWatch(node, self.executors, node.config.executor_memory)

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

    def _lasting(self) -> Iterator[Grant]:
        """Yield what actors and bundles hold of this node."""
        for executor in self.executors.values():
            if executor.state is State.ACTOR and executor.grant is not None and executor.grant.ledger is self.ledger:
                yield executor.grant
        for bundle in self.bundles:
            yield bundle.grant

    def _on_room(self) -> None:
        self.sources.on_room()
        self.planner.on_room()

    def _config_of(self, key: tuple[bytes, bytes], setup: Setup) -> dict[str, Any]:
        job, code = key
        return self.node.config.executor_config(self.jobs.facts(job), job, code, b"", setup.pack())

    def _on_queue_gone(self, queue: str) -> None:
        self.sources.gone(queue)
        self.custody.take_from(queue)
        # It is still on record if it was not the janitor who deleted it.
        self.loop.call_later(GONE_SECONDS + 0.1, self.watch.look_soon)

    def _on_totals(self) -> None:
        """The node has more or less than before: what it cannot run goes back, what it can is looked for."""
        self.sources.forget_unserved()
        self.handback.give_back_unserved(self.ledger.can_ever)
        self.watch.look_soon()

    def _on_delivery(self, delivery: Delivery) -> None:
        self.intake.on_delivery(delivery)

    def _adopt(self, pid: int, key: tuple[bytes, bytes], fds: list[int], client_id: bytes) -> Executor:
        executor = ExecutorProcess(self.loop, pid, key, fds, self.messages)
        self.clients.started(executor, client_id)
        self.output.watch(executor)
        self.events.worker(executor)
        return executor

    def _publish_for(self, executor: Executor, queue: str, priority: int, frame: bytes) -> None:
        self.publishing.publish(queue, frame, priority)

    def _take_over(self, node_id: bytes) -> int:
        return self.custody.adopt(node_id) + self.continuations.publish_of(node_id)
