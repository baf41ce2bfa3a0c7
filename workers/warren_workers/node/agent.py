"""The agent: one process a node. It consumes task queues, admits by its ledger, feeds executors, settles deliveries.

One loop, one thread. Broker, Redis notifications, executors and the template are all handlers on it; short Redis
commands (crash paths, heartbeats) are called in place. Who owns what:

    queues --Delivery--> intake (Held, Piece) --> Lane (resource class, job, environment) --Chunk--> ExecutorProcess
       ^                                                                                               |
       '-------------- ack, once every task is committed and every dependant published <---- DONE -----'

HOT PATH: `on_delivery`, `_serve`, `_on_done`: their cost is per batch and per chunk, not per task.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from warren.exceptions import NodeDiedError, OutOfMemoryError, TaskCancelledError, WorkerCrashedError, store_error
from warren.lifetimes import orphan_items
from warren_broker import records
from warren_broker.endpoint import Endpoint
from warren_broker.errors import StoreError, WarrenBrokerError, is_wrong_type
from warren_broker.ids import FIRST_INDEX, new_client_id, object_id, owner_of
from warren_broker.loop import Loop
from warren_broker.messages import (
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    STREAMING,
    Completion,
    MalformedMessage,
    Task,
    TaskHeader,
    as_task,
    decode,
    decode_frames,
    decode_header,
    encode,
    encode_completion,
)
from warren_broker.queues import open_consumer, open_publisher
from warren_broker.queues.names import QueueKind
from warren_broker.queues.protocol import Delivery, OnConfirm
from warren_broker.resources import ResourceRequest
from warren_broker.signing import ForgedMessage, Signer
from warren_broker.store.keys import Keys
from warren_broker.store.object_store import Dependant
from warren_workers.channel import BLOCKED, BYE, CREATED, DONE, DONE_SET, EXIT, PUBLISH, RETIRE, RUN, TAKEN, UNBLOCKED
from warren_workers.executor.calls import result_ids
from warren_workers.node.actors import ActorManager
from warren_workers.node.affinity import Affinity
from warren_workers.node.cancelling import Cancelling
from warren_workers.node.clients import ExecutorClients
from warren_workers.node.config import NodeConfig
from warren_workers.node.continuations import Continuations
from warren_workers.node.custody import Custody
from warren_workers.node.executors import CONTINUATION_NUMBERS, Chunk, ExecutorOwner, ExecutorProcess, State
from warren_workers.node.forker import Forker
from warren_workers.node.handback import HandBack
from warren_workers.node.heartbeat import Heartbeat
from warren_workers.node.intake import Held, Lane, Piece
from warren_workers.node.lease import LeasedStore
from warren_workers.node.ledger import Grant, Ledger
from warren_workers.node.memory import MemoryWatch
from warren_workers.node.output import OutputReader
from warren_workers.node.owners import Owners
from warren_workers.node.recall import Recall
from warren_workers.node.redelivery import Redelivery, lost_text
from warren_workers.node.sources import Sources
from warren_workers.node.watch import ControlWatch
from warren_workers.services.janitor import Janitor
from warren_workers.services.wrong_types import put_aside_wrong_types

log = logging.getLogger("warren.node")

CHUNK_SECONDS = 0.005  # of work in one chunk
CHUNK_TASKS_MAX = 200
QUICK_SECONDS = 0.002  # tasks shorter than this are sent ahead while a chunk still runs
SERVICE_SECONDS = 0.05
SERVICE_IDLE_SECONDS = 0.25
STUCK_SECONDS = 0.1  # a task runs so long: what was sent with it and behind it is taken back
JOBS_KEPT = 256
IDLE_SECONDS = 60.0  # an idle executor beyond nobody's need ends after this
IDLE_SURPLUS_SECONDS = 2.0  # ... and after this if there are more than the node has CPUs
MEAN_KEPT = 4096
# The agent has nobody to tell that RabbitMQ is away: what executors submit, and dependants, wait until it is back.
EMBEDDED_PATIENCE_SECONDS = 60.0
PUBLISH_PATIENCE_SECONDS = 10 * 365 * 86400.0
SERVE_AGAIN_SECONDS = 1.0  # until the next try to hand out tasks when Redis was away
LOST_RETRY_SECONDS = 1.0  # until the next try to say what became of a task whose executor died


class Agent(ExecutorOwner):
    """A node's agent. Construct, then `run()`; everything else happens on the loop's thread.

    Args:
        config: what the node is.
        template: (pid, control socket) of the template forked from this process.
        ready: called once the node takes work.
    """

    def __init__(self, config: NodeConfig, template: tuple[int, socket.socket], ready: Any = None) -> None:
        self.config = config
        self.node_id = config.node_id
        self.endpoint: Endpoint = config.endpoint
        self.loop = Loop()
        self.keys = Keys.of(self.endpoint)
        self.signer = Signer(self.endpoint.secrets)
        self.store = LeasedStore(
            self.endpoint,
            self.signer,
            ttl=config.object_ttl,
            session=config.session,
            host=config.host,
            spill_url=config.spill_url,
            memory_limit=config.memory_limit,
        )
        self.totals = ResourceRequest.from_floats(config.totals)
        self.ledger = Ledger(self.totals)
        self.slots = max(1, int(config.totals.get("CPU", 1)))
        self.lanes: dict[tuple[str, bytes, bytes], Lane] = {}
        self.executors: dict[int, ExecutorProcess] = {}
        self.idle: dict[tuple[bytes, bytes], list[ExecutorProcess]] = {}
        self.starting: dict[tuple[str, bytes, bytes], int] = {}
        self.means: dict[bytes, float] = {}
        self.jobs: dict[bytes, dict[str, Any]] = {}
        self._ended_jobs: dict[bytes, None] = {}  # the latest last
        self._serve_again: set[tuple[str, bytes, bytes]] = set()  # lanes that Redis kept from being served
        self.delayed: dict[bytes, Callable[[], None]] = {}  # tasks whose exception is retried after a while
        self.draining = False
        self._stopping = False
        self._ready = ready
        self.on_drain: Callable[[str], None] = lambda why: self.drain()
        self.publisher = open_publisher(
            self.endpoint,
            on_new_queue=self.announce_queue,
            loop=None,
            name=f"node-{config.name}",
            patience=EMBEDDED_PATIENCE_SECONDS if self.endpoint.embedded else PUBLISH_PATIENCE_SECONDS,
        )
        self.consumer = open_consumer(self.endpoint, self.loop, self.on_delivery, consumer_name=self.node_id.hex())
        self.forker = Forker(self.loop, template, self._on_forked, self._on_exited)
        self.output = OutputReader(self)
        self.heartbeat = Heartbeat(self)
        self.store.waits_for_room = True
        self.store.on_full = self.heartbeat.stay
        self.watch = ControlWatch(self)
        self.actors = ActorManager(self)
        self.affinity = Affinity(self)
        self.sources = Sources(self)
        self.handback = HandBack(self)
        self.recall = Recall(self)
        self.redelivery = Redelivery(self)
        self.owners = Owners(self)
        self.custody = Custody(self)
        self.continuations = Continuations(self)
        self.cancelling = Cancelling(self)
        self.janitor = Janitor(self)
        self.clients = ExecutorClients(self)
        self.memory = MemoryWatch(self, config.executor_memory)

    # -- life --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`."""
        put_aside_wrong_types(self.store)
        self.watch.start()
        self.heartbeat.run_once()
        self.watch.run_once()
        self.cancelling.start()
        self.heartbeat.start()
        self.actors.start()
        self.janitor.start()
        self.redelivery.start()
        self.continuations.start()
        self.owners.start()
        self.clients.start()
        self.memory.start()
        self._service()
        if self._ready is not None:
            self._ready()
        self.loop.run()
        self._close()

    def stop(self) -> None:
        """End the loop; what is held goes back to its queues."""
        self.loop.stop()

    def drain(self) -> None:
        """Take no more work, hand back what has not started, finish what runs, then stop."""
        if self.draining:
            return
        self.draining = True
        waiting = sum(lane.waiting for lane in self.lanes.values())
        running = sum(bool(executor.chunks) for executor in self.executors.values())
        log.info("no new work; %d tasks go back to their queues, %d executors are at work", waiting, running)
        try:
            self.heartbeat.run_once()
        except WarrenBrokerError as error:
            log.warning("cannot tell others that this node is leaving: %s", error)
        self.sources.close()
        self.actors.drain()
        for put in list(self.delayed.values()):
            put()
        self.handback.give_back_all()
        self.stop_if_drained()

    def stop_if_drained(self) -> None:
        """If the node is leaving and nothing is left to do, leave."""
        if not self.draining or self._stopping or self.handback.unconfirmed:
            return
        if any(executor.chunks for executor in self.executors.values()) or any(
            lane.waiting for lane in self.lanes.values()
        ):
            return
        self._stopping = True
        self.loop.add_callback(self.loop.stop)

    def _close(self) -> None:
        # First what might still commit or publish: from here on, its work is others'.
        for executor in self.executors.values():
            if executor.chunks:
                executor.kill()
            else:
                executor.send([EXIT])
        for step in (
            self.sources.close,
            self.custody.give_back,
            self.continuations.give_back,
            self.actors.close,
            self.consumer.close,
            self.heartbeat.close,
            self.publisher.close,
            self.forker.close,
            self.store.close,
        ):
            try:
                step()
            except (WarrenBrokerError, OSError) as error:
                # The servers may be away. What is left undone others do when the lease ends.
                log.warning("while leaving: %s", error)
        self.loop.close()

    def _service(self) -> None:
        try:
            self._look_after_work()
        except WarrenBrokerError as error:
            log.warning("cannot look after waiting work now: %s", error)
        finally:
            busy = any(executor.chunks for executor in self.executors.values()) or self.heartbeat.has_news()
            self.loop.call_later(SERVICE_SECONDS if busy else SERVICE_IDLE_SECONDS, self._service)

    def _look_after_work(self) -> None:
        """Every `SERVICE_SECONDS`: hand back what waits too long, retire idle executors."""
        now = time.monotonic()
        if not self.draining:
            self.heartbeat.refresh(waiting=any(lane.waiting for lane in self.lanes.values()))
            self.handback.run_once()
            self.sources.on_room()
        self.recall.run_once()
        self.redelivery.settle_shadows()
        self.custody.run_once()
        surplus = sum(map(len, self.idle.values())) - self.slots
        for line in self.idle.values():
            for executor in list(line):
                allowed = IDLE_SURPLUS_SECONDS if surplus > 0 else IDLE_SECONDS
                if now - executor.idle_since > allowed and not executor.retiring:
                    executor.retiring = True
                    executor.send([RETIRE])
                    executor.idle_since = now
                    executor.retiring = False
                    surplus -= 1

    # -- queues ------------------------------------------------------------------------------------------------------

    def announce_queue(self, queue: str) -> None:
        """A queue that this node publishes to first: every node must learn of it."""
        try:
            self.store.announce_queue(queue)
        except StoreError as error:
            if not (is_wrong_type(error) and put_aside_wrong_types(self.store)):
                raise
            self.store.announce_queue(queue)

    def waits(self, resource_class: str) -> bool:
        """True if tasks of that class wait for room here."""
        return any(lane.waiting for lane in self.lanes.values() if lane.key[0] == resource_class)

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a message apart into pieces of work. HOT PATH."""
        held = Held(delivery)
        self.sources.taken(held)
        try:
            self._take_apart(held, delivery)
        except WarrenBrokerError as error:
            log.warning("cannot take a message on %s now: %s", delivery.queue, error)
            self.loop.call_later(SERVE_AGAIN_SECONDS, lambda: self._give_up(held, delivery))

    def _give_up(self, held: Held, delivery: Delivery) -> None:
        """A message could not be looked at to its end: it comes again, and what was taken of it is recognised then."""
        self.custody.forget(held)
        self.consumer.release(delivery)
        self.sources.settled(held)

    def _take_apart(self, held: Held, delivery: Delivery) -> None:
        try:
            batches = [
                (header_bytes, decode_header(header_bytes), tasks)
                for header_bytes, tasks in decode_frames(self.signer, delivery.body)
            ]
        except MalformedMessage as error:
            log.warning("put aside a message on %s: %s", delivery.queue, error)
            self.store.put_aside(delivery.queue, delivery.body, str(error))
            self._acknowledge(held)
            return
        held.outstanding += 1  # until the whole message is looked at
        for header_bytes, header, tasks in batches:
            if header.kind == KIND_ACTOR_CALL:
                if delivery.redelivered:
                    tasks = self.actors.redelivered(held, header, tasks)
                if tasks:
                    self.actors.deliver(held, header_bytes, header, tasks)
                continue
            if delivery.redelivered:
                self.redelivery.take_later(held, header_bytes, header, tasks)
            else:
                self.admit(held, header_bytes, header, tasks)
        self.custody.watch(held)
        self.settle(held, 1)

    def admit(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Take tasks of a delivery as work for this node. HOT PATH."""
        if self.cancelling.known:
            tasks = self.cancelling.without_cancelled(held, header, tasks)
        if not tasks or (self.owners.gone and self.owners.is_gone(header)):
            return
        source = held.source
        if (
            source is not None
            and source.place.kind is QueueKind.NODE
            and not self.affinity.runs_here(held, header_bytes, header, tasks)
        ):
            return
        held.outstanding += len(tasks)
        lane = self._lane(header)
        lane.put(Piece(held, header_bytes, header, deque(tasks)))
        if self.draining:
            self.handback.give_back_all()
        else:
            self.serve(lane)

    def enqueue(self, piece: Piece) -> None:
        """Take work that did not come by a delivery."""
        lane = self._lane(piece.header)
        lane.put(piece)
        self.serve(lane)

    def _lane(self, header: TaskHeader) -> Lane:
        key = (header.resources, header.job, header.env)
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(key, ResourceRequest.parse(header.resources))
        return lane

    # -- admission and dispatch --------------------------------------------------------------------------------------

    def serve(self, lane: Lane) -> None:
        """Give a lane's waiting tasks to executors, as far as the ledger allows. HOT PATH."""
        try:
            self._serve(lane)
        except WarrenBrokerError as error:
            log.warning("cannot hand out tasks now: %s", error)
            if lane.key not in self._serve_again:
                self._serve_again.add(lane.key)
                self.loop.call_later(SERVE_AGAIN_SECONDS, lambda: self._serve_later(lane))

    def _serve_later(self, lane: Lane) -> None:
        """Redis was away when a lane was served: what waits in it gets its executors now, or gives them back."""
        self._serve_again.discard(lane.key)
        self.serve(lane)
        for executor in list(lane.executors):
            if not lane.waiting and not executor.chunks and executor.state is State.LEASED:
                self.end_lease(executor)

    def _serve(self, lane: Lane) -> None:
        while lane.waiting:
            piece = lane.first()
            if piece is None:
                return
            executor = self._free_executor(lane)
            if executor is None:
                if self._lease(lane):
                    continue
                executor = self._ahead_executor(lane, piece)
                if executor is None:
                    return
            self._send_chunk(lane, piece, executor)

    @staticmethod
    def _free_executor(lane: Lane) -> ExecutorProcess | None:
        for executor in lane.executors:
            if not (executor.chunks or executor.leaving or executor.revoked) and executor.state is State.LEASED:
                return executor
        return None

    def _ahead_executor(self, lane: Lane, piece: Piece) -> ExecutorProcess | None:
        """An executor that may be sent a chunk ahead: what it runs is known to be quick."""
        mean = self.means.get(piece.header.function)
        if mean is None or mean > QUICK_SECONDS:
            return None
        now = time.monotonic()
        for executor in lane.executors:
            if (
                len(executor.chunks) == 1
                and (self.means.get(executor.chunks[0].header.function) or 1.0) <= QUICK_SECONDS
                and executor.state is State.LEASED
                and not (executor.leaving or executor.revoked)
                and now - executor.chunks[0].sent_at < 0.1
            ):
                return executor
        return None

    def _lease(self, lane: Lane) -> bool:
        """Get one more executor for the lane; True if one is free to use at once."""
        starting = self.starting.get(lane.key, 0)
        if starting >= lane.waiting:
            return False
        job = self.job(lane.key[1])  # first of all, for it may fail
        grant = self.ledger.acquire(lane.request)
        if grant is None:
            return False
        idle = self.idle.get(lane.key[1:])
        if idle:
            executor = idle.pop()
            executor.move(State.LEASED)
            executor.lane, executor.grant = lane, grant
            lane.executors.append(executor)
            return True
        self.starting[lane.key] = starting + 1
        self._fork(lane, grant, job)
        return starting + 1 < lane.waiting and self._lease(lane)

    def _fork(self, lane: Lane, grant: Grant | None, facts: dict[str, Any]) -> None:
        _, job, env = lane.key
        client_id = new_client_id()
        config = self.config.executor_config(facts, job, env, client_id)
        self.forker.fork((lane, grant, client_id), config)

    def job(self, job: bytes) -> dict[str, Any]:
        """Return what is known of a job: its driver's sys.path, working directory, namespace."""
        known = self.jobs.get(job)
        if known is None:
            (stored,) = self.store.call(b"MGET", self.keys.job(job))  # unlike GET, not offended by another type
            try:
                known = decode(self.signer.open(b"job" + job, stored)) if stored else {}
            except ForgedMessage:
                known = {}
            if len(self.jobs) > JOBS_KEPT:
                self.jobs.clear()
            self.jobs[job] = known
        return known

    def _on_forked(self, pid: int, tag: tuple[Lane, Grant, bytes], fds: list[int]) -> None:
        lane, grant, client_id = tag
        starting = self.starting.pop(lane.key, 0) - 1
        if starting > 0:
            self.starting[lane.key] = starting
        executor = ExecutorProcess(self.loop, pid, lane.key[1:], fds, self)
        self.clients.started(executor, client_id)
        self.executors[pid] = executor
        self.output.watch(executor)
        executor.move(State.LEASED)
        executor.lane, executor.grant = lane, grant
        lane.executors.append(executor)
        if lane.waiting:
            self.serve(lane)
        if not executor.chunks and executor.state is State.LEASED:
            self.end_lease(executor)

    def _send_chunk(self, lane: Lane, piece: Piece, executor: ExecutorProcess) -> None:
        header = piece.header
        if header.kind == KIND_ACTOR_CREATION:
            self._host_actor(lane, piece, executor)
            return
        mean = self.means.get(header.function)
        size = 1
        if mean is not None and not header.max_calls and header.max_retries != 0:
            size = max(1, min(CHUNK_TASKS_MAX, int(CHUNK_SECONDS / max(mean, 1e-6))))
            size = min(size, max(1, lane.waiting // self.capacity(lane)))
        marked = piece.marked
        tasks = lane.take(piece, size)
        if header.max_retries == 0:
            try:
                tasks = self._mark_started(piece, tasks)
            except WarrenBrokerError:
                lane.untake(piece, tasks, marked)
                raise
            if not tasks:
                # Second copies, all of them. What the lane has besides, this executor gets; else it is of no use here.
                if not lane.waiting and not executor.chunks:
                    self.end_lease(executor)
                return
        chunk = Chunk(piece, executor.next_sequence, tasks)
        executor.next_sequence = chunk.end + CONTINUATION_NUMBERS
        executor.chunks.append(chunk)
        gpus = executor.grant.gpu_ids if executor.grant is not None else None
        executor.send([RUN, chunk.first, piece.header_bytes, tasks, list(gpus) if gpus is not None else None])

    def _host_actor(self, lane: Lane, piece: Piece, executor: ExecutorProcess) -> None:
        (task,) = lane.take(piece, 1)
        lane.executors.remove(executor)
        executor.lane = None
        try:
            hosts = self.actors.host(executor, piece, task)
        except WarrenBrokerError:
            lane.untake(piece, [task], piece.marked)
            lane.executors.append(executor)
            executor.lane = lane
            raise
        if not hosts:
            self.end_lease(executor)

    def capacity(self, lane: Lane) -> int:
        """Return how many tasks of a lane may run at a time, about."""
        return max(1, len(lane.executors) + self.starting.get(lane.key, 0), self.slots if lane.request else 1)

    def _mark_started(self, piece: Piece, tasks: list[Task]) -> list[Task]:
        """Tasks that may run once only get a mark before they run; one that has a mark already does not run."""
        fresh = tasks[piece.marked :]
        piece.marked = max(0, piece.marked - len(tasks))
        if not fresh:
            return tasks
        piece.token = piece.token or secrets.token_bytes(8)
        marks = self.store.start_once(self.node_id, [task[0] for task in fresh], piece.token)
        allowed = tasks[: len(tasks) - len(fresh)]
        for task, before in zip(fresh, marks, strict=True):
            if not before:
                allowed.append(task)
            elif before == self.node_id:
                self.settle(piece.held, 1)  # a second copy; the first one is here and answers for it
            elif self.heartbeat.is_alive(before):
                self.redelivery.doubt(piece.held, piece.header_bytes, piece.header, task)
            else:
                error = NodeDiedError(lost_text(piece.header, 1))
                self.commit_error(piece.held, piece.header, task, error, outstanding=True)
        return allowed

    # -- what executors say ------------------------------------------------------------------------------------------

    def on_executor_message(self, executor: ExecutorProcess, message: list[Any]) -> None:
        """Act on one message of an executor."""
        word = message[0]
        if word == DONE:
            self._on_done(executor, *message[1:])
        elif word == BLOCKED:
            self._on_blocked(executor, message[1])
        elif word == UNBLOCKED:
            if executor.state is State.BLOCKED:
                executor.move(State.LEASED)
                if executor.grant is not None:
                    self.ledger.reclaim(executor.grant)
        elif word == DONE_SET:
            self.actors.done(executor, message[1], message[4], message[5])
        elif word == CREATED:
            self.actors.created(executor, message[1])
        elif word == PUBLISH:
            self.publish(message[1], message[3], message[2])
        elif word == BYE:
            executor.leaving = message[1]
            line = self.idle.get(executor.key)
            if line and executor in line:
                line.remove(executor)
            # It takes nothing any more: what it has not started comes back when its channel ends.
            executor.send([EXIT])

    def _on_done(
        self,
        executor: ExecutorProcess,
        upto: int,
        tasks: int,
        busy: float,
        retries: list[tuple[int, Task]],
        dependants: list[Any],
        continuation: list[Any] | None,
    ) -> None:
        """Everything below `upto` is committed. HOT PATH."""
        chunks = executor.chunks
        helds: list[Held] = []
        retried: list[tuple[Chunk, Task]] = []
        for sequence, task in retries:
            for chunk in chunks:
                if chunk.first <= sequence < chunk.end:
                    retried.append((chunk, as_task(task)))
        for chunk, _ in retried:
            chunk.held.outstanding += 1
        settled: list[tuple[Held, int]] = []
        noted = False
        while chunks and chunks[0].first < upto:
            chunk = chunks[0]
            if tasks:
                function = chunk.header.function
                mean = self.means.get(function)
                if mean is None and len(self.means) > MEAN_KEPT:
                    self.means.clear()
                self.means[function] = busy / tasks if mean is None else 0.5 * mean + 0.5 * busy / tasks
            if chunk.end <= upto:
                chunks.popleft()
                count = chunk.end - chunk.first
            else:
                count = upto - chunk.first
                del chunk.tasks[:count]
                chunk.first = upto
            if chunk.clears_note:
                noted = True
                if not retried:
                    chunk.held.continues = None
            settled.append((chunk.held, count))
            helds.append(chunk.held)
        if dependants:
            self.publish_dependants(helds, [tuple(each) for each in dependants], noted=noted)
        if continuation is not None:
            self.continuations.adopt(executor, upto, continuation)
        for held, count in settled:
            self.settle(held, count)
        for chunk, task in retried:
            self._retry_later(chunk, task)
        lane = executor.lane
        if executor.leaving and not chunks:
            self._release(executor)
            executor.send([EXIT])
            if lane is not None:
                self.serve(lane)
        elif lane is not None and executor.state is State.LEASED:
            if lane.waiting:
                self.serve(lane)
            if not chunks and executor.state is State.LEASED:
                self.end_lease(executor)
        self.stop_if_drained()

    def _retry_later(self, chunk: Chunk, task: Task) -> None:
        """A task whose exception is to be retried goes back to its lane after its delay."""
        header = chunk.header
        delay = min(60.0, header.retry_delay * 2 ** max(0, task[2] - 1)) if header.retry_delay else 0.0

        def put() -> None:
            if self.delayed.pop(task[0], None) is None:
                return  # it was put back because the node leaves
            if task[0] in self.cancelling.known:
                error = TaskCancelledError(task[0].hex())
                self.commit_error(chunk.held, header, task, error, outstanding=True)
                return
            self.put_back(chunk.held, chunk.header_bytes, header, [task], marked=1)
            if self.draining:
                self.handback.give_back_all()
            else:
                self.serve(self._lane(header))

        self.delayed[task[0]] = put
        if delay and not self.draining:
            self.loop.call_later(delay, put)
        else:
            put()

    def put_back(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task], *, marked: int) -> None:
        """Put tasks to the head of their lane; the first `marked` have their start mark, if they have one at all."""
        piece = Piece(held, header_bytes, header, deque(tasks))
        piece.marked = marked if header.max_retries == 0 else 0
        self._lane(header).put(piece, front=True)

    def put_back_unstarted(self, executor: ExecutorProcess, chunk: Chunk, tasks: list[Task]) -> None:
        """Put what the executor will not begin of a chunk back to its lane, but for what is cancelled."""
        left = [task for task in tasks if task[0] not in executor.dropped]
        if left:
            self.put_back(chunk.held, chunk.header_bytes, chunk.header, left, marked=len(left))
        if len(left) < len(tasks):
            self.settle(chunk.held, len(tasks) - len(left))

    def _on_blocked(self, executor: ExecutorProcess, current: int) -> None:
        """The executor waits in get: its CPUs are free for others, what it has not started goes to others."""
        lane = executor.lane
        self.recall.take_back(executor, current)
        executor.send([TAKEN, 0])
        if executor.state is State.LEASED:
            executor.move(State.BLOCKED)
            if executor.grant is not None:
                self.ledger.lend(executor.grant)
        self.sources.allow_for_blocked(sum(each.state is State.BLOCKED for each in self.executors.values()))
        if lane is not None:
            self.serve(lane)
        self.serve_all()

    def end_lease(self, executor: ExecutorProcess) -> None:
        """An executor has nothing to do for its lane any more: it is idle, or ends."""
        self._release(executor)
        if executor.leaving or executor.key[0] in self._ended_jobs:
            executor.send([EXIT])
            return
        executor.move(State.IDLE)
        executor.idle_since = time.monotonic()
        self.idle.setdefault(executor.key, []).append(executor)
        self.serve_all()

    def _release(self, executor: ExecutorProcess) -> None:
        if executor.grant is not None:
            self.ledger.release(executor.grant)
            executor.grant = None
        if executor.lane is not None and executor in executor.lane.executors:
            executor.lane.executors.remove(executor)
        executor.lane = None

    def serve_all(self) -> None:
        """Resources became free: any lane may use them, the most urgent first; then more may come."""
        waiting = [lane for lane in self.lanes.values() if lane.waiting]
        if len(waiting) > 1:
            waiting.sort(key=lambda lane: (-max(lane.pieces), lane.waiting_since))
        for lane in waiting:
            self.serve(lane)
        self.sources.on_room()

    # -- crashes -----------------------------------------------------------------------------------------------------

    def _on_exited(self, pid: int, status: int) -> None:
        executor = self.executors.get(pid)
        if executor is None:
            return
        if os.WIFSIGNALED(status):
            executor.leaving = executor.leaving or f"killed by signal {os.WTERMSIG(status)}"
        executor.on_exit()

    def on_executor_gone(self, executor: ExecutorProcess) -> None:
        """Its channel ended: run again, or fail, what it had."""
        self.executors.pop(executor.pid, None)
        self.clients.gone(executor)
        line = self.idle.get(executor.key)
        if line and executor in line:
            line.remove(executor)
        running = executor.progress.started[0] - 1
        if executor.actor:
            self.actors.gone(executor)
        lane = executor.lane
        self._release(executor)
        executor.close()
        for chunk in reversed(executor.chunks):
            clean: list[Task] = []
            for at, task in enumerate(chunk.tasks):
                sequence = chunk.first + at
                if sequence > running:
                    clean.append(task)
                else:
                    self._on_lost_task(executor, chunk, task, culprit=sequence == running)
            if clean:
                self.put_back_unstarted(executor, chunk, clean)
        executor.chunks.clear()
        if lane is not None:
            self.serve(lane)
        self.serve_all()
        self._forget(executor.key)
        self.stop_if_drained()

    def _forget(self, key: tuple[bytes, bytes]) -> None:
        """Let go of what is kept for executors of a job and environment, if there are none any more."""
        if key in self.idle and not self.idle[key]:
            del self.idle[key]
        if any(executor.key == key for executor in self.executors.values()):
            return
        for lane in list(self.lanes.values()):
            if lane.key[1:] == key and not lane.waiting and not lane.executors and lane.key not in self.starting:
                del self.lanes[lane.key]

    def _on_lost_task(self, executor: ExecutorProcess, chunk: Chunk, task: Task, *, culprit: bool) -> None:
        try:
            self._retry_or_fail(executor, chunk, task, culprit=culprit)
        except WarrenBrokerError as error:
            log.warning("cannot yet tell what became of %s: %s", chunk.header.name, error)
            self.loop.call_later(LOST_RETRY_SECONDS, lambda: self._on_lost_task(executor, chunk, task, culprit=culprit))

    def _retry_or_fail(self, executor: ExecutorProcess, chunk: Chunk, task: Task, *, culprit: bool) -> None:
        header = chunk.header
        attempt = task[2] + (1 if culprit else 0)
        if task[0] in executor.cancelled or task[0] in executor.dropped:
            error = TaskCancelledError(task[0].hex(), f"Its worker process {executor.pid} was ended.")
            self.commit_error(chunk.held, header, task, error, outstanding=True)
        elif header.max_retries == 0 or 0 <= header.max_retries < attempt:
            text = f"The worker process {executor.pid} died while it ran {header.name}"
            crash: Exception = WorkerCrashedError(text + ".")
            if culprit and executor.over_memory:
                crash = OutOfMemoryError(f"{text}: {executor.over_memory}.")
            self.commit_error(chunk.held, header, task, crash, outstanding=True)
        else:
            # Alone, so that a task which kills its process takes no innocent ones with it again.
            self.put_back(chunk.held, chunk.header_bytes, header, [(task[0], task[1], attempt, *task[3:])], marked=1)

    # -- settling ----------------------------------------------------------------------------------------------------

    def settle(self, held: Held, count: int) -> None:
        """So many tasks (or other business) of a delivery are done; acknowledge it after the last."""
        held.outstanding -= count
        if held.outstanding <= 0:
            if held.delivery is not None:
                self._acknowledge(held)
            elif held.continues is not None:
                self.continuations.settled(held)

    def _acknowledge(self, held: Held) -> None:
        assert held.delivery is not None
        self.custody.settled(held)
        if not held.custody:
            self.consumer.ack(held.delivery)
        self.sources.settled(held)

    def commit(
        self, held: Held, header: TaskHeader, items: list[bytes], ended: list[bytes], *, stands: bool = False
    ) -> None:
        """Commit results in the name of an executor.

        Args:
            held: the delivery whose task it is.
            header: of the task.
            items: results (id, record, id, record, ...).
            ended: ids of the tasks that have ended with them.
            stands: they were committed before, and so may be what they released.
        """
        completion = Completion(b"", len(ended), 0.0, items, ended)
        entry = encode_completion(self.signer, header.owner, completion)
        owner = owner_of(items[0]) if items else header.owner
        if owner == header.owner:
            left = self.store.commit(owner, items, entry, require_owner=True, publish=not stands)
        else:
            left = self.store.commit(owner, items, b"", require_owner=False, publish=not stands)
            self.store.tell(header.owner, entry)
        self._follow_up(owner, items, left, [held], stands=stands)

    def orphan(self, object_ids: list[bytes]) -> None:
        """Objects of the dead that somebody waits for will never come: an error takes their place.

        Those who wait for them are told, and dependants run.
        """
        owner = owner_of(object_ids[0])
        items = orphan_items(object_ids)
        self._follow_up(owner, items, self.store.commit(owner, items, b"", require_owner=False), [])

    def _follow_up(
        self, owner: bytes, items: list[bytes], left: list[Any], helds: list[Held], *, stands: bool = False
    ) -> None:
        """Do what a commit leaves to do."""
        if not left or left[0] == -1:
            return
        publish, tell = self.store.dependants(owner, left)
        if stands and publish:
            publish = self.redelivery.not_ended(publish)
        known = dict(zip(items[::2], items[1::2], strict=True))
        for client, suffix in tell:
            key = owner + suffix
            note = Completion(b"", 0, 0.0, [key, known[key]])
            self.store.tell(client, encode_completion(self.signer, client, note))
        if publish:
            self.publish_dependants(helds, publish)

    def commit_error(
        self, held: Held, header: TaskHeader, task: Task, error: Exception, *, outstanding: bool = False
    ) -> None:
        """Commit the same error for every result of a task; see `commit_record`."""
        self.commit_record(held, header, task, records.ERROR + store_error(error), outstanding=outstanding)

    def commit_record(
        self, held: Held, header: TaskHeader, task: Task, record: bytes, *, outstanding: bool = False
    ) -> None:
        """Commit the same record for every result of a task; `outstanding`: it counts among what its delivery holds."""
        items: list[bytes] = []
        for key in result_ids(task[0], header.num_returns):
            items += (key, record)
        self.commit(held, header, items, [task[0]])
        if outstanding:
            self.settle(held, 1)

    def publish_dependants(self, helds: list[Held], dependants: list[Dependant], *, noted: bool = False) -> None:
        """Publish released tasks; their releasers' deliveries stay unacknowledged until the broker has them.

        Args:
            helds: what the releasers belong to.
            dependants: the released.
            noted: they may be noted as continuations, which stand for them until then.
        """
        for held in helds:
            held.outstanding += 1
        left = len(dependants)

        def confirmed() -> None:
            nonlocal left
            left -= 1
            if not left:
                self.loop.add_callback(settle)

        def settle() -> None:
            try:
                if noted:
                    self.continuations.clear(self.node_id, dependants)
                else:
                    self.store.launched(dependants)
            except WarrenBrokerError as error:
                log.warning("cannot yet forget tasks that are on their queues: %s", error)
                self.loop.call_later(LOST_RETRY_SECONDS, settle)
                return
            for held in helds:
                self.settle(held, 1)

        for _, frame, queue, priority, _, _ in dependants:
            self.publish(queue, frame, priority, confirmed)

    def publish(self, queue: str, frame: bytes, priority: int, confirmed: OnConfirm | None = None) -> None:
        """Publish what must not be lost. A queue that is new has to be announced first, and Redis may be away."""
        try:
            self.publisher.publish(queue, frame, priority=priority, on_confirm=confirmed)
        except WarrenBrokerError as error:
            log.warning("cannot yet publish to %s: %s", queue, error)
            self.loop.call_later(LOST_RETRY_SECONDS, lambda: self.publish(queue, frame, priority, confirmed))

    # -- control messages --------------------------------------------------------------------------------------------

    def on_control(self, data: bytes) -> None:
        """A control message from any client."""
        try:
            message = decode(self.signer.open(b"control", data))
        except (ForgedMessage, WarrenBrokerError) as error:
            self.store.put_aside("control", data, str(error))
            return
        if message[0] == "cancel":
            self.cancelling.cancel(message[1], message[2], force=message[3])
        elif message[0] == "kill-actor":
            self.actors.kill(message[1], no_restart=message[2], cause=message[3])
        elif message[0] == "drain" and message[1] == self.node_id:
            self.on_drain("warren stop")
        elif message[0] == "job-ended":
            self.end_job(message[1])

    def end_job(self, job: bytes) -> None:
        """A driver said goodbye: its executors are of no use any more, now or when what they run ends."""
        self.jobs.pop(job, None)
        self._ended_jobs[job] = None
        if len(self._ended_jobs) > JOBS_KEPT:
            del self._ended_jobs[next(iter(self._ended_jobs))]
        for key, line in self.idle.items():
            if key[0] == job:
                for executor in line:
                    executor.send([EXIT])
        for lane in list(self.lanes.values()):
            if lane.key[1] == job and not lane.waiting and not lane.executors and not self.starting.get(lane.key):
                del self.lanes[lane.key]


__all__ = ["FIRST_INDEX", "STREAMING", "Agent", "encode", "object_id"]
