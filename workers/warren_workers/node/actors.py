"""The actors of a node: starting their hosts, handing them calls, restarting or burying them.

What is authoritative: the actor's record in Redis (`warren_broker.store.actors`). A node may trust its own memory of an
actor as long as the actor's process lives and its epoch is current; everything else is asked.

What becomes of a dead actor's queue: see `burials`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from warren.actor_client import death_record, owner_gone_cause
from warren.exceptions import ActorUnavailableError, store_error
from warren_broker import records
from warren_broker.errors import ConnectionLost, StoreError, WarrenBrokerError, is_wrong_type
from warren_broker.messages import (
    KIND_ACTOR_CREATION,
    MalformedMessage,
    Task,
    TaskHeader,
    decode_actor_spec,
    decode_frames,
    decode_header,
    encode_frame,
)
from warren_broker.queues import names
from warren_broker.resources import ResourceRequest
from warren_broker.signing import ForgedMessage
from warren_broker.store.actors import DEAD, PENDING, RESTARTING, STALE, ActorRecords
from warren_workers.channel import ACTOR, CANCEL, RUN
from warren_workers.node.burials import PREFETCH, Burials
from warren_workers.node.call_order import PATIENCE_SECONDS, Call, CallOrder
from warren_workers.node.executors import Chunk, ExecutorProcess, State
from warren_workers.node.intake import Held, Piece
from warren_workers.node.periodic import pause
from warren_workers.positions import Positions
from warren_workers.services.turns import takes_turn

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

log = logging.getLogger("warren.node")

DOUBT_SECONDS = 20.0  # after a silence: whoever found our lease ended before we spoke again has acted by then
WATCH_SECONDS = 2.0
PREFETCH_WHILE_LOST = 1000  # of an actor whose last process was lost with its node
DURABLE_ATTEMPTS = 5  # a durable actor's call that ends its process so often is failed: it never took effect
GRACEFUL = frozenset(("exit_actor",))

END_RETRY_SECONDS = 1.0  # until the next try to take in the end of an actor's process

LostCall = tuple[Chunk, Task, bool, bool]  # with: it had begun, it was running


class Hosted:
    """An actor with a process on this node."""

    def __init__(self, executor: ExecutorProcess, header: TaskHeader, held: Held, epoch: int, owner: bytes) -> None:
        self.executor = executor
        self.header = header
        self.spec = decode_actor_spec(header.extra)
        self.creation: Held | None = held
        self.epoch = epoch
        self.owner = owner
        self.detached = bool(header.lifetime)
        self.final = False
        self.cause = b""
        self.seen: dict[bytes, Positions] = {}  # caller -> calls that were handed to the process
        self.order: CallOrder | None = None  # while calls of before may still be with a lost node


class ActorManager:
    """Loop thread only, like the agent it belongs to."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.records = ActorRecords(agent.store)
        self.hosted: dict[bytes, Hosted] = {}
        self._waiting: dict[bytes, deque[Call]] = {}  # calls for actors that are being restarted
        self.burials = Burials(agent, self.records)
        self._doubted_until = 0.0

    def start(self) -> None:
        """Watch owners and dead nodes from now on."""
        self._agent.loop.call_later(WATCH_SECONDS, self._tick)

    # -- starting ----------------------------------------------------------------------------------------------------

    def host(self, executor: ExecutorProcess, piece: Piece, task: Task) -> bool:
        """Make `executor` the host of the actor that `task` creates; False if there is nothing to host."""
        agent, header = self._agent, piece.header
        actor_id = header.actor
        if actor_id in self.hosted:
            agent.settle(piece.held, 1)  # a second copy of the message
            return False
        state, epoch, restarts, owner, lost = self.records.start(actor_id, agent.node_id)
        if state in (DEAD, "", "DUPLICATE"):
            if state == "DUPLICATE":
                agent.settle(piece.held, 1)
                self._give_up(actor_id, self._waiting.pop(actor_id, ()))
            else:
                cause = self.records.cause(actor_id)
                record = records.ERROR + (cause or death_record("", actor_id, "It was killed before it started."))
                agent.commit_record(piece.held, header, task, record, outstanding=True)
                self._fail_waiting(actor_id, record)
                if actor_id not in self.burials.graves:
                    agent.consumer.abandon(names.actor_queue(actor_id))  # what comes is another node's to answer
            return False
        hosted = Hosted(executor, header, piece.held, epoch, owner)
        if lost and hosted.spec.durable and not hosted.spec.out_of_order:
            self._keep_order(actor_id, hosted)
        self.hosted[actor_id] = hosted
        executor.actor = actor_id
        executor.last_name = hosted.spec.class_name
        executor.move(State.ACTOR)
        gpus = list(executor.grant.gpu_ids) if executor.grant is not None else []
        executor.send([ACTOR, piece.header_bytes, task, gpus, epoch, restarts])
        for held, header_bytes, call_header, call in self._waiting.pop(actor_id, ()):
            left = self._first_copies(hosted, held, call_header, [call])
            if agent.cancelling.known:
                left = agent.cancelling.without_cancelled(held, call_header, left, outstanding=True)
            self._send(hosted, held, header_bytes, call_header, left)
        queue = names.actor_queue(actor_id)
        self.burials.graves.pop(actor_id, None)
        # Early calls are not acknowledged, and what they wait for must come all the same.
        prefetch = PREFETCH if hosted.order is None else PREFETCH_WHILE_LOST
        agent.consumer.subscribe(queue, prefetch=prefetch, exclusive=True)
        return True

    def _keep_order(self, actor_id: bytes, hosted: Hosted) -> None:
        try:
            hosted.order = CallOrder(self.records.applied(actor_id))
        except ForgedMessage:
            return  # the process will find out, and say so

        def end() -> None:
            order, hosted.order = hosted.order, None
            if order is not None and self.hosted.get(actor_id) is hosted:
                for call in order.clear():
                    self._send_early(hosted, call)

        self._agent.loop.call_later(PATIENCE_SECONDS, end)

    def created(self, executor: ExecutorProcess, error: bytes) -> None:
        """The constructor ended."""
        agent = self._agent
        hosted = self.hosted.get(executor.actor)
        if hosted is None:
            return
        if hosted.creation is not None:
            agent.settle(hosted.creation, 1)
            hosted.creation = None
        if error:
            hosted.cause = error
            hosted.final = True  # a constructor that raised would raise again: no restart, as in Ray
            return
        self._alive(hosted)
        running = ResourceRequest.parse(hosted.spec.running)
        if executor.grant is not None and running != executor.grant.request:
            agent.ledger.release(executor.grant)
            executor.grant = agent.ledger.force_acquire(running)
            agent.serve_all()

    def _alive(self, hosted: Hosted) -> None:
        executor = hosted.executor
        if self.hosted.get(executor.actor) is not hosted:
            return
        try:
            self.records.alive(executor.actor, hosted.epoch, executor.pid)
        except WarrenBrokerError as error:
            log.warning("cannot yet tell that actor %s is alive: %s", executor.actor.hex(), error)
            self._agent.loop.call_later(END_RETRY_SECONDS, lambda: self._alive(hosted))

    # -- calls -------------------------------------------------------------------------------------------------------

    def deliver(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Hand calls to the actor's host. HOT PATH."""
        agent = self._agent
        actor_id = header.actor
        held.outstanding += len(tasks)
        if agent.cancelling.known:
            tasks = agent.cancelling.without_cancelled(held, header, tasks, outstanding=True)
        hosted = self.hosted.get(actor_id)
        if hosted is not None:
            self._send(hosted, held, header_bytes, header, self._first_copies(hosted, held, header, tasks))
        elif actor_id in self.burials.graves:
            for task in tasks:
                agent.commit_record(held, header, task, self.burials.graves[actor_id][0], outstanding=True)
        else:
            waiting = self._waiting.setdefault(actor_id, deque())
            waiting.extend((held, header_bytes, header, task) for task in tasks)

    def _first_copies(self, hosted: Hosted, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Calls that this process of the actor has not got yet. HOT PATH.

        A publisher whose connection breaks before the confirm sends again, and RabbitMQ marks neither copy as
        redelivered. The first one answers, and is acknowledged by itself.
        """
        caller, order = header.owner, hosted.order
        seen = hosted.seen.get(caller, ())
        if order is None and not (seen and any(task[5] in seen for task in tasks)):
            return tasks
        early = order.is_early if order is not None else lambda *_: False
        first = [task for task in tasks if not (task[5] in seen or early(caller, task[5]))]
        self._agent.settle(held, len(tasks) - len(first))
        return first

    def _send(self, hosted: Hosted, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Hand calls to the process, but for those that are early. HOT PATH."""
        if hosted.order is None:
            self._send_now(hosted, held, header_bytes, header, tasks)
            return
        for task in tasks:
            call = (held, header_bytes, header, task)
            for each in hosted.order.in_turn(call):
                if each is call:
                    self._send_now(hosted, held, header_bytes, header, [task])
                else:
                    self._send_early(hosted, each)

    def _send_early(self, hosted: Hosted, call: Call) -> None:
        """Hand over a call that was early, unless it was cancelled meanwhile."""
        held, header_bytes, header, task = call
        left = self._agent.cancelling.without_cancelled(held, header, [task], outstanding=True)
        self._send_now(hosted, held, header_bytes, header, left)

    @staticmethod
    def _send_now(hosted: Hosted, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        if not tasks:
            return
        seen = hosted.seen.get(header.owner)
        if seen is None:
            seen = hosted.seen[header.owner] = Positions()
        for task in tasks:
            seen.add(task[5])
        executor = hosted.executor
        chunk = Chunk(Piece(held, header_bytes, header, deque()), executor.next_sequence, tasks)
        executor.next_sequence = chunk.end
        executor.chunks.append(chunk)
        executor.send([RUN, chunk.first, header_bytes, tasks, None])

    def redelivered(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Calls that come again: skip what is done or under way here; the rest follows its retries."""
        agent = self._agent
        hosted = self.hosted.get(header.actor)
        if hosted is not None and hosted.spec.durable:
            return agent.redelivery.not_held_here(held, header, tasks)  # its process knows which took effect
        fresh = agent.redelivery.not_held_here(held, header, tasks)
        if hosted is not None:
            seen = hosted.seen.get(header.owner)
            fresh = [task for task in fresh if seen is None or task[5] not in seen]
        (durable,) = self.records.fields(header.actor, "durable")
        if not durable:
            fresh = agent.redelivery.recheck(held, header, fresh)
            if hosted is not None and hosted.epoch > 1 and agent.heartbeat.lost_a_node():
                # The node of an earlier process died with them: they may have run.
                return self._without_lost(held, header, fresh)
        return fresh

    def _without_lost(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        if header.max_retries != 0:
            return tasks
        text = f"The actor {header.actor.hex()} lost its node while it had this call; it may have run."
        record = records.ERROR + store_error(ActorUnavailableError(text, header.actor))
        for task in tasks:
            self._agent.commit_record(held, header, task, record)
        return []

    def done(self, executor: ExecutorProcess, sequences: list[int], retries: list[Any], dependants: list[Any]) -> None:
        """These calls are committed. HOT PATH."""
        agent = self._agent
        chunks = executor.chunks
        again = {sequence: tuple(task) for sequence, task in retries}
        settled: dict[int, tuple[Held, int]] = {}
        resend: list[tuple[Chunk, Task]] = []
        for sequence in sequences:
            for chunk in chunks:
                if chunk.first <= sequence < chunk.end:
                    chunk.done.add(sequence)
                    if sequence in again:
                        resend.append((chunk, again[sequence]))
                    else:
                        held, count = settled.get(id(chunk.held), (chunk.held, 0))
                        settled[id(held)] = (held, count + 1)
                    break
        while chunks and len(chunks[0].done) == chunks[0].end - chunks[0].first:
            chunks.popleft()
        if len(chunks) > PREFETCH:
            executor.chunks = deque(chunk for chunk in chunks if len(chunk.done) < chunk.end - chunk.first)
        if dependants:
            agent.publish_dependants([held for held, _ in settled.values()], [tuple(each) for each in dependants])
        for held, count in settled.values():
            agent.settle(held, count)
        hosted = self.hosted.get(executor.actor)
        for chunk, task in resend:
            if hosted is not None:
                self._send(hosted, chunk.held, chunk.header_bytes, chunk.header, [task])

    def cancel(self, executor: ExecutorProcess, task_id: bytes) -> None:
        """Cancel a call that its host has."""
        executor.progress.cancel(task_id)
        executor.send([CANCEL, task_id])

    # -- ends --------------------------------------------------------------------------------------------------------

    def kill(self, actor_id: bytes, *, no_restart: bool, cause: bytes) -> None:
        """Somebody called `kill`."""
        hosted = self.hosted.get(actor_id)
        if hosted is None:
            return
        hosted.final = hosted.final or no_restart
        hosted.cause = hosted.cause or cause
        hosted.executor.kill()

    def gone(self, executor: ExecutorProcess) -> None:
        """An actor's process ended: what now?"""
        agent = self._agent
        actor_id = executor.actor
        hosted = self.hosted.pop(actor_id)
        reason = executor.leaving
        cause = hosted.cause or death_record(
            hosted.spec.class_name,
            actor_id,
            "It exited by itself."
            if reason in GRACEFUL
            else f"Its process ended unexpectedly ({reason or 'crashed'}).",
            pid=executor.pid,
            name=hosted.spec.name,
            node_id=agent.node_id.hex(),
        )
        hosted.final = hosted.final or reason in GRACEFUL
        started = executor.progress.started[0]
        lost = deque(
            (chunk, task, chunk.first + at < started, chunk.first + at == started - 1)
            for chunk in executor.chunks
            for at, task in enumerate(chunk.tasks)
            if chunk.first + at not in chunk.done
        )
        if hosted.order is not None:
            for held, header_bytes, header, task in hosted.order.clear():
                piece = Piece(held, header_bytes, header, deque())
                lost.append((Chunk(piece, executor.next_sequence, [task]), task, False, False))
        executor.chunks.clear()
        self._take_in_end(actor_id, hosted, cause, lost)

    def _take_in_end(self, actor_id: bytes, hosted: Hosted, cause: bytes, lost: deque[LostCall]) -> None:
        """Restart it or bury it, as its record says. Until that can be read, calls wait as for one that restarts."""
        agent = self._agent
        try:
            self._go_on(actor_id, hosted, cause, lost)
        except WarrenBrokerError as error:
            log.warning("cannot yet tell what becomes of actor %s: %s", actor_id.hex(), error)
            agent.loop.call_later(END_RETRY_SECONDS, lambda: self._take_in_end(actor_id, hosted, cause, lost))

    def _go_on(self, actor_id: bytes, hosted: Hosted, cause: bytes, lost: deque[LostCall]) -> None:
        """What it does is done once, though it is called again after an error: `lost` is what is left of the calls."""
        agent = self._agent
        still_lost = hosted.order is not None
        state, frame, queue = self._end(actor_id, final=hosted.final, cause=cause, epoch=hosted.epoch, lost=still_lost)
        if hosted.creation is not None:
            agent.settle(hosted.creation, 1)
            hosted.creation = None
        if state == RESTARTING:
            waiting = self._waiting.setdefault(actor_id, deque())
            unavailable = records.ERROR + store_error(
                ActorUnavailableError(
                    f"The actor {actor_id.hex()} is being restarted; this call may have run in part.", actor_id
                )
            )
            while lost:
                chunk, task, begun, culprit = lost[0]
                header = chunk.header
                if hosted.spec.durable:
                    attempt = task[2] + culprit
                    retry = attempt < DURABLE_ATTEMPTS
                else:
                    attempt = task[2] + begun
                    retry = not begun or header.max_retries < 0 or task[2] < header.max_retries
                if retry:
                    waiting.append(
                        (chunk.held, chunk.header_bytes, header, (task[0], task[1], attempt, task[3], task[4], task[5]))
                    )
                else:
                    agent.commit_record(chunk.held, header, task, unavailable, outstanding=True)
                lost.popleft()
            self._restart(actor_id, frame, queue)
        elif state == STALE:
            self._lose(actor_id, hosted, lost)
        else:
            record = records.ERROR + cause
            while lost:
                chunk, task, _, _ = lost[0]
                agent.commit_record(chunk.held, chunk.header, task, record, outstanding=True)
                lost.popleft()
            self._bury(actor_id, record)

    def _end(
        self, actor_id: bytes, *, final: bool, cause: bytes, epoch: int | None, lost: bool = False
    ) -> tuple[str, bytes, str]:
        keeper = self._agent.node_id
        return self.records.end(actor_id, final=final, cause=cause, epoch=epoch, keeper=keeper, lost=lost)

    def _lose(self, actor_id: bytes, hosted: Hosted, lost: deque[LostCall]) -> None:
        """Another node has the actor: what may have begun here and may begin only once fails, the rest goes there."""
        text = f"The actor {actor_id.hex()} was taken over by another node; this call may have run in part."
        record = records.ERROR + store_error(ActorUnavailableError(text, actor_id))
        left: list[Call] = []
        for each in list(lost):
            chunk, task, begun, _ = each
            if begun and not hosted.spec.durable and 0 <= chunk.header.max_retries <= task[2]:
                self._agent.commit_record(chunk.held, chunk.header, task, record, outstanding=True)
                lost.remove(each)
            else:
                left.append((chunk.held, chunk.header_bytes, chunk.header, task))
        self._give_up(actor_id, left)

    def _give_up(self, actor_id: bytes, calls: Iterable[Call]) -> None:
        """Another node has the actor: its queue takes back what it brought here, as if this node had died."""
        queue = names.actor_queue(actor_id)
        for held, header_bytes, header, call in calls:
            if held.custody:
                self._publish_again(queue, held, header_bytes, header, call)
            else:
                self._agent.custody.forget(held)
        self._agent.consumer.abandon(queue)

    def _publish_again(self, queue: str, held: Held, header_bytes: bytes, header: TaskHeader, call: Task) -> None:
        agent = self._agent
        agent.publish(
            queue,
            encode_frame(agent.signer, header_bytes, [call]),
            header.priority,
            lambda: agent.loop.add_callback(lambda: agent.settle(held, 1)),
        )

    def kept(self) -> Iterator[Call]:
        """Yield the calls that this node has and no process of an actor: they wait for one, or are early."""
        for waiting in self._waiting.values():
            yield from waiting
        for hosted in self.hosted.values():
            if hosted.order is not None:
                yield from hosted.order.waiting()

    def awaits_creation(self, actor_id: bytes) -> bool:
        """True if the actor has no process now, and is to get one."""
        ((state, _),) = self.records.states([actor_id])
        return state in (PENDING, RESTARTING)

    def _restart(self, actor_id: bytes, frame: bytes, queue: str) -> None:
        """Put the creation back into this node's lane; if another node has room sooner, it goes there."""
        agent = self._agent
        try:
            for header_bytes, tasks in decode_frames(agent.signer, frame):
                header = decode_header(header_bytes)
                held = Held(None, queue)
                held.outstanding = len(tasks)
                agent.enqueue(Piece(held, header_bytes, header, deque(tasks)))
        except MalformedMessage as error:
            agent.store.put_aside(f"actor {actor_id.hex()}", frame, str(error))

    def moved_away(self, header: TaskHeader) -> None:
        """A creation was handed back to its queue: the calls kept for it go back too."""
        if header.kind != KIND_ACTOR_CREATION:
            return
        if header.actor in self.hosted or header.actor in self.burials.graves:
            return  # it was a second copy of the message: the queue's calls are answered here
        agent = self._agent
        queue = names.actor_queue(header.actor)
        agent.consumer.unsubscribe(queue)
        for held, header_bytes, call_header, task in self._waiting.pop(header.actor, ()):
            self._publish_again(queue, held, header_bytes, call_header, task)

    def drain(self) -> None:
        """The node leaves: hosted actors finish the calls that they have, and get no more."""
        for actor_id in [*self.hosted, *self._waiting]:
            self._agent.consumer.unsubscribe(names.actor_queue(actor_id))

    def close(self) -> None:
        """The node is gone in a moment."""
        self.burials.close()

    def refuse(self, actor_id: bytes, cause: bytes) -> None:
        """An actor cannot be placed, and never will: it is dead for this cause, and calls on it fail with it."""
        state, _, _ = self._end(actor_id, final=True, cause=cause, epoch=None)
        if state == DEAD:
            self._bury(actor_id, records.ERROR + cause)

    def _bury(self, actor_id: bytes, record: bytes) -> None:
        self._fail_waiting(actor_id, record)
        self.burials.add(actor_id, record)

    def _fail_waiting(self, actor_id: bytes, record: bytes) -> None:
        waiting = self._waiting.get(actor_id)
        while waiting:
            held, _, header, task = waiting[0]
            self._agent.commit_record(held, header, task, record, outstanding=True)
            waiting.popleft()
        self._waiting.pop(actor_id, None)

    # -- watching ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        try:
            self.run_once()
        except WarrenBrokerError as error:
            log.warning("watching actors failed: %s", error)
        except Exception:
            log.exception("watching actors failed")
        finally:
            self._agent.loop.call_later(pause(self._agent, WATCH_SECONDS), self._tick)

    def doubt(self) -> None:
        """This node was silent for longer than its lease: others may be taking its actors over just now."""
        self._doubted_until = time.monotonic() + DOUBT_SECONDS
        self._end_taken_over()

    def _end_taken_over(self) -> None:
        """Kill the processes of actors that are no longer this node's, before they take more calls."""
        mine = list(self.hosted.items())
        keys = self._agent.keys
        nodes = self._agent.store.pipeline([(b"HGET", keys.actor(actor_id), "node") for actor_id, _ in mine])
        for (actor_id, hosted), node in zip(mine, nodes, strict=True):
            if node != self._agent.node_id:
                log.warning("actor %s was taken over: its process here ends", actor_id.hex())
                hosted.executor.kill()

    def run_once(self) -> None:
        """End actors whose owner is gone; take over those of dead nodes; delete queues of the dead."""
        if time.monotonic() < self._doubted_until:
            self._end_taken_over()
        if self._agent.store.trusts_leases(self._agent.config.client_lease):
            self._end_orphans()
        if self._agent.store.trusts_leases(self._agent.config.lease):
            self._recover()
        self.burials.run_once()

    def _end_orphans(self) -> None:
        mine = [(actor_id, hosted) for actor_id, hosted in self.hosted.items() if not hosted.detached]
        if not mine:
            return
        owners = list({hosted.owner for _, hosted in mine})
        store, keys = self._agent.store, self._agent.keys
        alive = dict(zip(owners, store.pipeline([(b"EXISTS", keys.client(owner)) for owner in owners]), strict=True))
        for actor_id, hosted in mine:
            if not alive[hosted.owner]:
                self.kill(actor_id, no_restart=True, cause=owner_gone_cause(actor_id))

    def _recover(self) -> None:
        """Actors whose node's lease ended: restart them somewhere, or bury them here."""
        agent = self._agent
        store, keys = agent.store, agent.keys
        if not takes_turn(store, keys.janitor + b":actors", agent.node_id, WATCH_SECONDS):
            return
        self._take_over_burials()
        ids = [actor_id for actor_id in self.records.ids() if actor_id not in self.hosted]
        if not ids:
            return
        wanted = ("state", "node", "epoch", "class", "keeper", "owner", "detached")
        try:
            facts = store.pipeline([(b"HMGET", keys.actor(each), *wanted) for each in ids])
        except StoreError as error:
            if is_wrong_type(error):
                self._clear_wrong_types(ids)
            raise
        # RESTARTING, without a node: its creation was in the memory of the keeper, or is on a queue. Of two creations
        # the second one starts nothing.
        self._end_unborn(list(zip(ids, facts, strict=True)))
        nodes = list({node or keeper for _, node, _, _, keeper, *_ in facts} - {None, b"", agent.node_id})
        living = store.pipeline([(b"EXISTS", keys.node(node)) for node in nodes])
        dead = {node for node, lives in zip(nodes, living, strict=True) if not lives}
        for actor_id, (state, node, epoch, class_name, keeper, *_) in zip(ids, facts, strict=True):
            node = node or keeper
            if not state or state == DEAD.encode() or node not in dead:
                continue
            try:
                self._lost_its_node(actor_id, node, class_name or b"", epoch or b"0")
            except ValueError as error:  # a field that nobody signs is nonsense: the others are recovered
                agent.store.put_aside(f"actor {actor_id.hex()}", b"", str(error))

    def _take_over_burials(self) -> None:
        """Bury the dead of nodes that are gone."""
        try:
            orphaned = self.burials.orphaned()
        except StoreError as error:
            if is_wrong_type(error):
                self._clear_wrong_types(self.records.burials())
            raise
        for actor_id, record in orphaned:
            self._bury(actor_id, record)

    def _end_unborn(self, actors: list[tuple[bytes, list[bytes | None]]]) -> None:
        """Bury actors that were killed, or whose owner is gone, while they had no process.

        What was to create them may never arrive anywhere.
        """
        store, keys = self._agent.store, self._agent.keys
        for actor_id, (state, *_) in actors:
            if state == DEAD.encode():
                self._bury(actor_id, self.burials.adopt(actor_id))
            elif not state:
                self.records.forget(actor_id)
        if not store.trusts_leases(self._agent.config.client_lease):
            return
        unborn = [
            (actor_id, owner)
            for actor_id, (state, node, _, _, _, owner, detached) in actors
            if state and state != DEAD.encode() and not node and owner and detached != b"1"
        ]
        alive = store.pipeline([(b"EXISTS", keys.client(owner)) for _, owner in unborn])
        for (actor_id, _), lives in zip(unborn, alive, strict=True):
            if not lives:
                self.refuse(actor_id, owner_gone_cause(actor_id))

    def _clear_wrong_types(self, actor_ids: list[bytes]) -> None:
        """Somebody else wrote in the place of an actor's record, in another type: it goes, and with it the actor."""
        store, keys = self._agent.store, self._agent.keys
        for actor_id in actor_ids:
            try:
                self.records.fields(actor_id, "state")
            except StoreError as error:
                if not is_wrong_type(error):
                    raise
                store.call(b"UNLINK", keys.actor(actor_id))
                self.records.forget(actor_id)
                store.put_aside(f"actor {actor_id.hex()}", b"", str(error))

    def _lost_its_node(self, actor_id: bytes, node: bytes, class_name: bytes, epoch: bytes) -> None:
        agent = self._agent
        name = class_name.decode("utf-8", "replace")
        cause = death_record(name, actor_id, "Its node died.", node_id=node.hex())
        try:
            now, frame, queue = self._end(actor_id, final=False, cause=cause, epoch=int(epoch), lost=True)
        except ConnectionLost:
            # This node may be its keeper now, and no other would see to it.
            again = END_RETRY_SECONDS
            agent.loop.call_later(again, lambda: self._lost_its_node(actor_id, node, class_name, epoch))
            raise
        log.warning("actor %s lost its node: %s", actor_id.hex(), now)
        if now == RESTARTING:
            agent.publish(queue, frame, 0)
        elif now == DEAD:
            self._bury(actor_id, records.ERROR + cause)
