"""The parts of a client, and who is told what by whom: the only place that knows all of them.

What a part takes from below it is handed to it when it is built; what goes up is a callback, looked up late where its
part is made further down.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from rabbitry import environment
from rabbitry.core.actors.actors import Actors
from rabbitry.core.actors.calls import ActorCalls
from rabbitry.core.actors.creating import ActorCreating
from rabbitry.core.actors.directory import ActorDirectory
from rabbitry.core.actors.ends import ActorEnds
from rabbitry.core.ends import Ends
from rabbitry.core.failures import orphan_items
from rabbitry.core.flight import Flight
from rabbitry.core.groups import Groups
from rabbitry.core.holding_back import hold_back
from rabbitry.core.identity import Identity, Job
from rabbitry.core.lives.collecting import Collecting
from rabbitry.core.lives.lifetimes import Lifetimes
from rabbitry.core.lives.liveness import Liveness
from rabbitry.core.lives.puts import Puts
from rabbitry.core.lives.references import References
from rabbitry.core.ports import Executing, in_no_group
from rabbitry.core.resolve.callbacks import Callbacks
from rabbitry.core.resolve.inbox import Inbox
from rabbitry.core.resolve.loading import Loader
from rabbitry.core.resolve.notes import NoteHandler
from rabbitry.core.resolve.reading import Reading
from rabbitry.core.resolve.streams import Stream, Streams
from rabbitry.core.resolve.values import Values
from rabbitry.core.resolve.waiting import Waiting
from rabbitry.core.service.doorbell import Doorbell
from rabbitry.core.service.infeasible import InfeasibleCheck
from rabbitry.core.service.reports import Reports
from rabbitry.core.service.thread import ServiceThread, Step
from rabbitry.core.service.tidying import Tidying
from rabbitry.core.submit.arguments import Arguments
from rabbitry.core.submit.cancelling import Cancelling
from rabbitry.core.submit.class_queues import ClassQueues
from rabbitry.core.submit.environments import Environments
from rabbitry.core.submit.exports import Exports
from rabbitry.core.submit.inside import Inside
from rabbitry.core.submit.kept_job import KeptJob
from rabbitry.core.submit.library_modules import LibraryModules
from rabbitry.core.submit.outbox import Outbox
from rabbitry.core.submit.placement import Placements
from rabbitry.core.submit.plan import Timings
from rabbitry.core.submit.plans import Plans
from rabbitry.core.submit.submitter import Submitter
from rabbitry.core.unhandled import UnhandledErrors
from rabbitry.generators import ObjectRefGenerator
from rabbitry.nodes import read_nodes
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.events import Recorder
from rabbitry_broker.ids import TaskIds
from rabbitry_broker.measures import measures
from rabbitry_broker.queues.protocol import Publisher
from rabbitry_broker.records import COPY_ASKED, COPY_SOON
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_broker.store.clients import CLIENT_LEASE_SECONDS
from rabbitry_broker.store.groups import GroupRecords
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.store import ObjectStore

log = logging.getLogger("rabbitry")

Traced = tuple[Callable[..., Any], Callable[..., Any]]


class Parts(ABC):
    """All parts of one client, ready to be used.

    Args:
        endpoint: where the cluster is.
        publisher: sends task batches.
        client_id: its 12-byte id.
        job: the 4-byte id of the job it belongs to.
        detached_id: the pseudo owner of the job's detached tasks.
        namespace: where its named actors live.
        slots: tasks that the cluster can run at once, a first guess.
        driver: True if it must keep its own lease (executors are kept by their agent).
        object_ttl: seconds after which an object is deleted whoever holds it; 0 for never.
        spill_url: directory or URL that large values go to when the store is full; "" for none.
        memory_limit: bytes that objects may take of this host's shared memory; None for what there is.
        session: name of the shared-memory session of this host and cluster.
        host: id of this host.
        lease: seconds without a sign of life after which this client counts as dead.
        by_connection: True if it lives as long as its connection to Redis does, however silent it is, and no longer.
        executing: what it has to know of its executor; None in drivers.
        events: False if nothing is to be recorded of what becomes of its tasks.
        node: the node that this process belongs to; b"" for drivers.
        traced: wrap what submits tasks, and what makes the plans of actors' creations, in spans; None for no traces.
        ahead: it is made for whoever it will `become`, in a process forked from this one.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        publisher: Publisher,
        *,
        client_id: bytes,
        job: bytes,
        detached_id: bytes,
        namespace: str,
        slots: int = 1,
        driver: bool = False,
        object_ttl: float = 0.0,
        spill_url: str = "",
        memory_limit: int | None = None,
        session: str = "",
        host: bytes = b"",
        lease: float = CLIENT_LEASE_SECONDS,
        by_connection: bool = False,
        executing: Executing | None = None,
        events: bool = True,
        node: bytes = b"",
        traced: Traced | None = None,
        ahead: bool = False,
    ) -> None:
        self.events = Recorder(on=events)
        self.endpoint = endpoint
        self.publisher = publisher
        self.session = session
        keys, signer = Keys.of(endpoint), Signer(endpoint.secrets)
        self.identity = Identity(
            id=client_id,
            job=job,
            detached_id=detached_id,
            keys=keys,
            signer=signer,
            lease=lease,
            driver=driver,
            by_connection=by_connection,
        )
        self.id, self.job, self.detached_id, self.keys, self.signer = client_id, job, detached_id, keys, signer
        self._job = Job(namespace, slots=max(1, slots))
        store = self.store = ObjectStore(
            endpoint,
            signer,
            ttl=object_ttl,
            session=session,
            host=host,
            spill_url=spill_url,
            memory_limit=memory_limit,
            join=not ahead,
        )
        if by_connection:
            store.known_by_connection(client_id)
        self._records = ActorRecords(store)
        self._group_records = GroupRecords(store)
        self._executing = executing
        self._closed = False

        # What parts share: each of these is changed by several of them.
        self._values: dict[bytes, bytes] = {}
        self._unsent: dict[bytes, bytes] = {}
        self.streams: dict[bytes, Stream] = {}
        self._ending: deque[bytes] = deque()
        self._lingering: set[bytes] = set()
        flight = self.flight = Flight(self.events)
        self.references = References(frozenset((client_id, detached_id)))
        self._doorbell = Doorbell()
        self.kick = self._doorbell.ring
        self._kick_later = self._doorbell.ring_later
        self.returns, self.children = flight.returns, flight.children
        self.task_ids, self._detached_ids = TaskIds(client_id, job), TaskIds(detached_id, job)
        self._timings = Timings()

        # The floors from below.
        self._build_lives()
        self._build_puts()
        self._build_resolving()
        self._build_groups()
        self._build_submitting(traced)
        self._build_actors()
        self.reports = Reports(
            self.identity,
            node,
            self.events,
            measures,
            events=store.events,
            measured=store.measures,
            register=self.register,
        )
        self._tie()

    def _build_lives(self) -> None:
        """Who lives, and what is held and let go."""
        identity, store, references, kick = self.identity, self.store, self.references, self.kick
        ends = Ends(store, self.publisher, self.signer, self.events)
        self.commit_errors = ends.commit
        directory = self._directory = ActorDirectory(
            identity, self._job, self._records, flush=lambda: self.outbox.flush()
        )
        unhandled = self.unhandled = UnhandledErrors(references, directory.owned)
        self._service = ServiceThread(
            self._doorbell,
            at_once=self._at_once,
            in_flight=lambda: self.flight.count,
            executor=self._executing is not None,
        )
        liveness = self.liveness = Liveness(identity, store, start_service=self._service.start)
        register = self.register = liveness.register
        lifetimes = self.lifetimes = Lifetimes(
            identity,
            store.lives,
            references,
            values=self._values,
            unsent=self._unsent,
            actors=directory.owned,
            unread=unhandled,
            register=register,
            forget=lambda keys: self.inbox.forget(keys),
            actor_released=self._ending.append,
            commit_errors=ends.commit_orphans,
        )
        collecting = self._collecting = Collecting(
            lifetimes, unhandled, ending=self._ending, send_ends=lambda: self.actors.ends.send(), kick=kick
        )
        self.collect = collecting.collect
        self.settle = collecting.settle
        self.make_room = collecting.make_room
        store.on_full = collecting.make_room
        store.lives.on_actor_released = self._ending.append

    def _build_puts(self) -> None:
        """What puts values, and what sends tasks."""
        store, executing = self.store, self._executing
        puts = self.puts = Puts(
            self.task_ids,
            store,
            self.references,
            values=self._values,
            unsent=self._unsent,
            lock=self.lifetimes.lock,
            hold=store.lives.hold,
            require_room=store.room.require,
            register=self.register,
            collect=self.collect,
            kick=self.kick,
            interrupts=nullcontext() if executing is None else executing.interrupts,
            # A driver that dies takes its values along, wherever they are; what an actor has put may be in its state.
            copy=COPY_ASKED if executing is None else COPY_SOON,
        )
        self.put = puts.put
        self.flush_puts = puts.flush
        self.sent_out = puts.sent_out
        self.keep_for_ever = puts.keep_for_ever
        self.outbox = Outbox(
            self.identity,
            self._job,
            self.flight,
            publisher=self.publisher,
            store=store,
            unsent=self._unsent,
            flush_puts=puts.flush,
            register=self.register,
            kick=self.kick,
            events=self.events,
        )

    def _build_resolving(self) -> None:
        """What waits for values, reads them and ends tasks before their time."""
        identity, flight, store, references = self.identity, self.flight, self.store, self.references
        lifetimes, outbox, streams, values, kick = self.lifetimes, self.outbox, self.streams, self._values, self.kick
        known = Values(
            references,
            flight,
            streams,
            records=values,
            returned=lifetimes.returned,
            unread=self.unhandled,
            unheld=lifetimes.unheld,
            kick=self._kick_later,
        )
        inbox = self.inbox = Inbox(
            identity,
            store,
            known,
            flight,
            register=self.register,
            known_here=lifetimes.known_here,
            on_note=lambda note: self._notes.handle(note),
            learn=self._timings.learn,
            store_lost=self.store_lost,
            put_aside=self.put_aside,
        )
        loader = Loader(
            store,
            references,
            values,
            read=self.unhandled.read,
            settle=lifetimes.settle,
            bring_here=store.large.bring_here,
        )
        self.load = loader.load
        self._bring_here = loader.bring_here
        waiting = Waiting(
            references,
            known,
            inbox,
            unread=self.unhandled,
            load=loader.load,
            flush=outbox.flush,
            unsent=lambda: outbox.waiting or self._unsent,
            within=store.within,
            kick=kick,
            executing=self._executing,
        )
        self.send_waiting = waiting.send_waiting
        self.get_one = waiting.get_one
        self.get_many = waiting.get_many
        self.wait = waiting.wait
        self.remainder = waiting.remainder
        self._callbacks = Callbacks(references, known, inbox, send_waiting=waiting.send_waiting)
        self.when_ready = self._callbacks.when_ready

        cancelling = self._cancelling = Cancelling(
            identity,
            flight,
            streams=streams,
            values=values,
            store=store,
            withdraw=outbox.withdraw,
            owns=references.owns,
            commit=self.commit_errors,
            ended_here=inbox.ended_here,
            kick=kick,
        )
        self.cancel = cancelling.cancel
        self.cancel_children = cancelling.cancel_children
        self._notes = NoteHandler(cancelling.cancel, cancelling.claimed, cancelling.passed)
        self._streams = Streams(
            references,
            values,
            streams,
            store=store,
            keys=self.keys,
            callbacks=known.callbacks,
            unheld=lifetimes.unheld,
            cancel=cancelling.cancel,
        )
        self._reader = Reading(
            references,
            values,
            self._streams,
            waiting=waiting,
            inbox=inbox,
            when_ready=self.when_ready,
            store=store,
            flush=outbox.flush,
            kick=self._kick_later,
        )

    def _build_groups(self) -> None:
        """Placement groups, and work that nobody can run."""
        self._infeasible = InfeasibleCheck(self.node_records)
        groups = self.groups = Groups(
            self.identity,
            self._group_records,
            self.task_ids,
            self.flight,
            self.references,
            put=self.puts.put,
            is_known=self._values.__contains__,
            commit_errors=self.commit_errors,
            make_known=self.inbox.make_known,
            register=self.register,
        )
        self._infeasible.also.append(groups.pending)
        executing = self._executing
        self._inside = Inside(
            self.store,
            bundles=groups.bundles,
            state=self._group_records.state,
            current=in_no_group if executing is None else executing.group,
        )

    def _build_submitting(self, traced: Traced | None) -> None:
        """What makes tasks."""
        store, references, executing = self.store, self.references, self._executing
        environments = self.environments = Environments(
            self.id,
            self._job,
            store.functions,
            store.packages,
            self.register,
            LibraryModules(on=not environment.is_off(environment.PRELOAD_LIBRARIES)),
        )
        plans = self.plans = Plans(
            self.identity,
            self._job,
            Placements(store, self.keys, self.node_records, self._inside, ClassQueues(self.job, store.claim_queue).of),
            self._timings,
            environment=environments.code,
            announce_priorities=store.announce_priorities,
            note_queue=self._infeasible.note_queue,
        )
        self.exports = Exports(self.id, store.functions, self.flight, self._directory.owned, self.register)
        self.kept_job = KeptJob(self.identity, store.functions, store.job, self.register)
        self._arguments = Arguments(
            self.puts, references, self._values, read=self.unhandled.read, register=self.register
        )
        submitter = self._submitter = Submitter(
            self.task_ids,
            self._detached_ids,
            self.flight,
            references,
            arguments=self._arguments,
            outbox=self.outbox,
            streams=self._streams,
            generator=lambda task_id, stream: ObjectRefGenerator(self._reader, task_id, stream),
            collect=self.collect,
            current_task=None if executing is None else executing.current_task,
        )
        if traced is not None:
            submitter.submit = traced[0](submitter.submit)  # type: ignore[method-assign]
            plans.creation = traced[1](plans.creation)  # type: ignore[method-assign]
        if executing is not None:
            hold_back(executing.interrupts, submitter, "submit")
            hold_back(executing.interrupts, self, "put")
        self.submit = submitter.submit
        self.unserved = self._infeasible.unserved

    def _build_actors(self) -> None:
        """What creates, calls and ends actors."""
        ids, flight, directory, plans = self.task_ids, self.flight, self._directory, self.plans
        calls = ActorCalls(
            self.id,
            ids,
            flight,
            directory,
            plans=plans,
            submitter=self._submitter,
            inbox=self.inbox,
            store=self.store,
            records=self._records,
            lingering=self._lingering,
            expect_late=self._cancelling.expect_late,
        )
        actor_ends = ActorEnds(
            ids,
            flight,
            plans,
            calls,
            dead=directory.dead,
            add_call=self.outbox.add_call,
            unpin=self.references.unpin,
            ending=self._ending,
            lingering=self._lingering,
        )
        creating = ActorCreating(
            self.identity,
            self._job,
            self._records,
            directory,
            plans=plans,
            exports=self.exports,
            arguments=self._arguments,
            outbox=self.outbox,
            references=self.references,
            ids=ids,
            detached_ids=self._detached_ids,
            register=self.register,
            environments=self.environments,
            kept_job=self.kept_job,
        )
        if self._executing is not None:
            hold_back(self._executing.interrupts, creating, "create")
        self.actors = Actors(flight, directory, creating, calls, actor_ends)

    def _tie(self) -> None:
        """Give the parts below what they call of those above."""
        liveness = self.liveness
        liveness.on_died.append(self._orphan_own)
        liveness.restores.append(self.exports.again)
        liveness.restores.append(self.environments.again)
        liveness.restores.append(self.kept_job.again)
        self.store.large.when_kept(self._service.start)
        self._tidying = Tidying()
        self._service.steps = self._steps()
        measures.for_another_job(self._service.start)

    def serve_too(self, step: Step) -> None:
        """Have the service thread do one more thing in its rounds, after all others."""
        self._service.steps = (*self._service.steps, step)

    @abstractmethod
    def _steps(self) -> Sequence[Step]:
        """Return what the service thread does in a round, in this order."""

    def node_records(self) -> list[dict[str, Any]]:
        """Return the records of all nodes on record, oldest first, with `alive` added."""
        return read_nodes(self.store, self.keys, self.signer)

    def put_aside(self, where: str, data: bytes, reason: str) -> None:
        """Something unreadable arrived: keep it for the operator, go on."""
        log.warning("put aside a message on %s: %s", where, reason)
        self.store.put_aside(where, data, reason)

    def store_lost(self, error: Exception) -> None:
        """The store does not answer: wait a little; the caller tries again.

        Raises:
            RabbitrySystemError: the embedded server of this session is gone; nothing can come back.
        """
        if not self._closed:
            self.store.wait_for_server(error)

    def _orphan_own(self) -> None:
        """Others took us for dead: whoever waits for what we owned is told so, and nothing is in flight any more."""
        waiting = self.lifetimes.died()
        self.flight.ended(None)
        self.inbox.make_known(orphan_items(waiting))

    def _at_once(self) -> object:
        return self._cancelling.waiting or self._streams.abandoned or self.lifetimes.waiting or self.actors.ending
