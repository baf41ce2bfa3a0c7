"""`Client`: a process that submits work and holds refs: a driver, an executor or an actor host.

It ties the parts together (outbox, inbox, references, store) and owns the one background thread of a client, the
service thread: it sends what waits in the outbox, deletes what nobody holds, renews the lease. A client without work
in hand starts no thread (executors are forked by the hundred; most never submit anything).

Thread rule: every public method may be called from any thread.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from warren import infeasible
from warren.actor_client import CHECK_SECONDS, ActorClient
from warren.exceptions import GetTimeoutError, ObjectLostError, TaskCancelledError, load_task_error, unreadable
from warren.inbox_notes import NoteHandler
from warren.lifetimes import FINISH_SECONDS, Lifetimes, store_full
from warren.object_ref import ObjectRef, made_here
from warren.references import References
from warren.resolve import Inbox
from warren.streams import Stream, end_stream, stream_pin
from warren.submit import Outbox, Plan
from warren_broker import records
from warren_broker.endpoint import Endpoint
from warren_broker.ids import FIRST_INDEX, INDEX_ARGUMENTS, TASK_BYTES, TaskIds, object_id, owner_of
from warren_broker.messages import DYNAMIC, STREAMING, Completion, encode_completion
from warren_broker.queues.protocol import Publisher
from warren_broker.records import CONTAINING_TAG, ERROR_TAG, LARGE_TAG, NONE_TAG, PLAIN_TAG
from warren_broker.serialization import Packed, UnpickleError, pack, unpack
from warren_broker.shared_memory import ObjectStoreFull
from warren_broker.signing import Signer
from warren_broker.store.keys import Keys
from warren_broker.store.large import ObjectLost
from warren_broker.store.object_store import ObjectStore
from warren_broker.store.room import PATIENCE_SECONDS

if TYPE_CHECKING:
    pass

log = logging.getLogger("warren")

SERVICE_SECONDS = 0.05  # between two rounds while there is something to watch
SERVICE_IDLE_SECONDS = 0.4  # an actor whose last handle goes is gone within a second
EXECUTOR_IDLE_SECONDS = 1.6
TIDY_SECONDS = 1.0  # between two collections of cycles after failures
SLOTS_SECONDS = 3.0  # between two looks at how much the cluster can run at once
SEND_DELAY_SECONDS = 0.001
DELETE_AT = 2000  # dropped handles: then the caller collects them itself
UNCOUNTED_BYTES = 1024  # arguments and results of up to this much are sent also when the store is full of values
ARGUMENTS_INLINE_BYTES = 100 * 1024  # larger arguments travel as an object of their own
UNSENT_PUTS = 500  # small puts kept back: then the caller sends them
UNSENT_BYTES = 256 * 1024  # of them
CLIENT_LEASE_SECONDS = 30.0
LATE_SECONDS = 5.0  # after a cancellation: results may still come, of which nobody is told otherwise
CANCEL_GRACE_SECONDS = 0.15  # for a node that runs the task to claim the cancellation

_EMPTY: dict[bytes, bytes] = {}


class Client:
    """One client of a cluster.

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
    ) -> None:
        self.endpoint = endpoint
        self._lease = lease
        self.publisher = publisher
        self.id = client_id
        self.job = job
        self.detached_id = detached_id
        self.namespace = namespace
        self.slots = max(1, slots)
        self.driver = driver
        self.keys = Keys.of(endpoint)
        self.signer = Signer(endpoint.secrets)
        self.store = ObjectStore(
            endpoint,
            self.signer,
            ttl=object_ttl,
            session=session,
            host=host,
            spill_url=spill_url,
            memory_limit=memory_limit,
        )
        self.store.on_full = self.make_room
        self.store.lives.on_actor_released = lambda actor_id: self.actors.handles_gone(actor_id)
        self.task_ids = TaskIds(client_id, job)
        self.detached_task_ids = TaskIds(detached_id + b"", job)
        self.references: References = References(frozenset((client_id, detached_id)))
        self.in_flight = 0
        self.outbox = Outbox(self)
        self.inbox = Inbox(self)
        self.notes = NoteHandler(self)
        self.actors: ActorClient = ActorClient(self)
        self._actors_checked_at = 0.0
        self.unsent_puts: dict[bytes, bytes] = {}
        self._unsent_bytes = 0
        self.plans: dict[bytes, list[Plan]] = {}
        self.queues_used: set[str] = set()  # by tasks and creations of actors
        self.block_hooks: tuple[Callable[[], None], Callable[[], None]] | None = None
        self.current_task: Callable[[], bytes | None] = lambda: None
        self.children: dict[bytes, list[bytes]] = {}
        self.exported: set[bytes] = set()
        self.put_aside_count = 0
        self.job_env: dict[str, str] = {}
        self.lifetimes = Lifetimes(self)
        self.streams: dict[bytes, Stream] = {}
        self.untidy = False  # a task failed: tracebacks make cycles, and these may hold refs
        self._tidy_at = 0.0
        self.interrupts: AbstractContextManager[None] = nullcontext()  # holds back the cancellation of what runs
        self.executing = False  # True in executors, which settle when a task ends
        self._registered = False
        self._cancelling: deque[tuple[float, bytes, int]] = deque()
        self._service: threading.Thread | None = None
        self._service_lock = threading.Lock()
        self._kicked = threading.Event()
        self._abandoned: deque[bytes] = deque()
        self._closed = False
        self._leaving = False  # what is cleared away now is not to be brought back
        self._lease_at = 0.0
        self.counted_dead = False  # at some time: what it had submitted and stored until then is gone
        self._slots_at = 0.0
        self._trim_at = 0.0
        self._finish_at = 0.0
        self._late_until = 0.0
        self._infeasible_at = time.monotonic() + infeasible.CHECK_SECONDS
        self.infeasible = infeasible.InfeasibleCheck(self)

    # -- submitting --------------------------------------------------------------------------------------------------

    def adopt(self, ref: ObjectRef[Any]) -> None:
        """Count a handle that came from elsewhere (unpickled, `from_hex`)."""
        references = self.references
        references.add(ref._id)
        ref._references = references
        if not self.executing:
            self.kick()  # the service thread registers it, if nobody does before

    def submit(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], task_id: bytes | None = None) -> Any:
        """Send one task of `plan`; return what `f.remote()` returns. HOT PATH.

        Raises:
            TypeError: an argument cannot be pickled; the message names the path to it.
            ObjectStoreFullError: no room for the arguments.
        """
        if task_id is None:
            ids = self.detached_task_ids if plan.header.lifetime else self.task_ids
            task_id = ids.next()
        if args or kwargs:
            pin_as = task_id if plan.header.num_returns != STREAMING else stream_pin(task_id)
            payload, dependencies, inline = self.pack_arguments(task_id, args, kwargs, pin_as=pin_as)
        else:
            payload, dependencies, inline = b"", [], _EMPTY
        references = self.references
        if plan.header.num_returns == 1:
            result: Any = made_here(task_id + FIRST_INDEX, references)
        else:
            result = self._handles(plan, task_id)
        parent = self.current_task()
        if parent is not None:
            self.children.setdefault(parent, []).append(task_id)
        task = (task_id, payload, 0, dependencies, inline, 0)
        try:
            if plan.line is not None:
                self.outbox.add_call(plan, task)
            elif dependencies and len(inline) < len(dependencies):
                self.outbox.add_parked(plan, task)
            else:
                self.outbox.add(plan, task)
        except ObjectStoreFull as error:
            raise store_full(error) from error
        if len(references.dropped) > DELETE_AT:
            self.collect()
        return result

    def _handles(self, plan: Plan, task_id: bytes) -> Any:
        """Return what `remote()` returns for a task with other than one result."""
        references = self.references
        count = plan.header.num_returns
        if count > 0:
            return [made_here(object_id(task_id, at + 1), references) for at in range(count)]
        if count == 0:
            return None
        if count == DYNAMIC:
            return made_here(task_id + FIRST_INDEX, references)
        from warren.generators import ObjectRefGenerator

        stream = self.streams[task_id] = Stream()
        return ObjectRefGenerator(self, task_id, stream, backpressure=plan.header.backpressure)

    def submit_nowhere(self, plan: Plan, task_id: bytes) -> Any:
        """Return the handles of a task that is not sent: the caller fails it."""
        if plan.header.num_returns == 1:
            return made_here(task_id + FIRST_INDEX, self.references)
        return self._handles(plan, task_id)

    def pack_arguments(
        self, task_id: bytes, args: tuple[Any, ...], kwargs: dict[str, Any], *, pin_as: bytes
    ) -> tuple[bytes, list[bytes], dict[bytes, bytes]]:
        """Return (payload, ids of the top-level refs, records of those that are known and small).

        What the arguments refer to is pinned under `pin_as`, the task's id but for streams and actors.
        """
        packed = pack((args, kwargs))
        stays = not packed.buffers and len(packed.data) <= ARGUMENTS_INLINE_BYTES
        if stays and len(packed.data) > UNCOUNTED_BYTES:
            self._require_room(len(packed.data))
        dependencies: list[bytes] = []
        inline: dict[bytes, bytes] = _EMPTY
        refs = packed.refs
        if refs:
            self._send_unsent(refs)
            dependencies = [value._id for value in args if type(value) is ObjectRef]
            dependencies += [value._id for value in kwargs.values() if type(value) is ObjectRef]
            if dependencies:
                values = self.inbox.values
                known = {at: values[at] for at in dependencies if at in values}
                size = sum([len(record) for record in known.values()])
                if size <= ARGUMENTS_INLINE_BYTES:
                    inline = known
                dependencies = list(dict.fromkeys(dependencies))
            self.references.pin(pin_as, refs)
        if stays:
            return (b"P" + packed.data), dependencies, inline
        # The refs are pinned with the task: this object need not hold them.
        packed.refs = ()
        arguments = task_id + INDEX_ARGUMENTS
        self.register()
        try:
            record = self._stored(arguments, packed)
        except BaseException:
            self.references.unpin(pin_as)
            raise
        self.references.pin(pin_as, (arguments,))
        self.inbox.values[arguments] = record
        return b"O" + arguments, dependencies, inline

    def _send_unsent(self, refs: Sequence[bytes]) -> None:
        """A ref leaves this process: what it names must be in the store before."""
        if self.unsent_puts and any(ref in self.unsent_puts for ref in refs):
            try:
                self.flush_puts()
            except ObjectStoreFull as error:
                raise store_full(error) from error

    def export(self, digest: bytes, pickled: bytes) -> None:
        """Store a pickled function under its content hash, once a session."""
        if digest not in self.exported:
            self.store.put_function(digest, pickled)
            self.exported.add(digest)

    def put(self, value: Any) -> ObjectRef[Any]:
        """Store a value; see `warren.put`.

        Raises:
            TypeError: `value` is an ObjectRef, or cannot be pickled.
            ObjectStoreFullError: no room.
        """
        if type(value) is ObjectRef:
            raise TypeError(
                "Calling 'put' on an ObjectRef is not allowed: it is a handle already. "
                "Put the ref inside a list, or pass it as it is."
            )
        if isinstance(value, ObjectRef):
            raise TypeError("Calling 'put' on an ObjectRef is not allowed.")
        packed = pack(value)
        key = self.task_ids.next() + FIRST_INDEX
        if packed.refs:
            self._send_unsent(packed.refs)
        if packed.buffers or len(packed.data) > records.INLINE_LIMIT_BYTES:
            self.register()
            self.lifetimes.collect()  # what was dropped may be the memory to use
            record = self._stored(key, packed)
        elif packed.refs:
            record = records.containing(packed.refs, packed.data)
            self._require_room(len(record))
            try:
                self.lifetimes.put_with_refs(key, record, packed.refs)
            except ObjectStoreFull as error:
                raise store_full(error) from error
        else:
            record = records.plain(packed.data)
            self._require_room(len(record))
            self.unsent_puts[key] = record
            self._unsent_bytes += len(record)
        ref = made_here(key, self.references)
        self.inbox.values[key] = record
        waiting = len(self.unsent_puts)
        if waiting >= UNSENT_PUTS or self._unsent_bytes > UNSENT_BYTES:
            try:
                self.flush_puts()
            except ObjectStoreFull as error:
                raise store_full(error) from error
        elif waiting == 1:
            self.kick()
        if len(self.references.dropped) > DELETE_AT:
            self.collect()
        return ref

    def _require_room(self, size: int) -> None:
        """Return when a small value may be written.

        Raises:
            ObjectStoreFullError: no room.
        """
        try:
            self.store.room.require(size)
        except ObjectStoreFull as error:
            raise store_full(error) from error

    def _stored(self, key: bytes, packed: Packed) -> bytes:
        """Store a value of ours at once; return its record.

        Raises:
            ObjectStoreFullError: no room.
        """
        try:
            with self.interrupts:
                record = self.store.put_packed(key, packed)
                if packed.refs:
                    self.store.lives.hold(b"o" + key, packed.refs)
        except ObjectStoreFull as error:
            raise store_full(error) from error
        return record

    def flush_puts(self, *, wait: bool = True) -> None:
        """Send small puts that were kept back. They must be in the store before a ref to them leaves.

        Args:
            wait: wait for room if the store is full.

        Raises:
            ObjectStoreFull: there is none; what was not sent is kept.
        """
        if not self.unsent_puts:
            return
        self.register()
        with self.lifetimes.lock:
            # They stay unsent until they are sent: a failure loses none, and a drop meanwhile waits for the lock.
            unsent = list(self.unsent_puts.items())
            if unsent:
                self.store.when_room(lambda: self.store.put_records(unsent), patience=PATIENCE_SECONDS if wait else 0.0)
                for key, _ in unsent:
                    self.unsent_puts.pop(key, None)
            self._unsent_bytes = 0

    def settle(self) -> None:
        """A task has ended: register what its process still refers to, before that end is committed."""
        self.lifetimes.count()
        self.lifetimes.settle()
        if self.lifetimes.is_much:
            self.lifetimes.collect()

    def make_room(self) -> None:
        """The store is full: let go of what was dropped."""
        self.lifetimes.collect()

    # -- resolving ---------------------------------------------------------------------------------------------------

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """Return the value of `ref`; see `warren.get`. HOT PATH."""
        key = ref._id
        record = self.inbox.values.get(key)
        if record is None:
            self._await([key], timeout, 1)
            record = self.inbox.values[key]
        if record == b"N":
            return None
        return self.load(key, record)

    def get_many(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """Return the values of `refs`, in order; raises the first error found."""
        values = self.inbox.values
        missing = [ref._id for ref in refs if ref._id not in values]
        if missing:
            self._await(missing, timeout, len(refs))
        load = self.load
        result = []
        for ref in refs:
            record = values[ref._id]
            result.append(None if record == b"N" else load(ref._id, record))
        return result

    def _send_waiting(self) -> None:
        """Send what waits in the outbox before waiting for results; what finds no room is sent when there is some."""
        try:
            self.outbox.flush()
        except ObjectStoreFull as error:
            log.debug("tasks wait for room: %s", error)
            self.kick()

    def _await(self, missing: list[bytes], timeout: float | None, asked: int) -> None:
        """Wait until all of `missing` are here, or one of them turned out to be an error (which is raised)."""
        self._send_waiting()
        inbox = self.inbox
        values = inbox.values
        inbox.subscribe(missing)
        at = 0
        count = len(missing)
        errors = inbox.new_errors
        errors_seen = len(errors)
        failed: list[bytes] = []
        wanted: set[bytes] = set()

        def done() -> bool:
            nonlocal at, errors_seen
            if len(errors) > errors_seen:
                if not wanted:
                    wanted.update(missing)
                failed.extend(key for key in errors[errors_seen:] if key in wanted)
                errors_seen = len(errors)
            if failed:
                return True
            while at < count and missing[at] in values:
                at += 1
            return at == count

        if not done():
            hooks = self.block_hooks
            if hooks is not None:
                hooks[0]()
            try:
                arrived = inbox.wait(done, lambda: [key for key in missing[at:] if key not in values], timeout)
            finally:
                if hooks is not None:
                    hooks[1]()
            if not arrived:
                raise GetTimeoutError(
                    f"Get timed out after {timeout} s: {sum(key not in values for key in missing)} of {asked} "
                    "objects are not ready."
                )
        if failed:
            self.load(failed[0], values[failed[0]])

    def wait(self, refs: Sequence[Any], num_returns: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
        """Split `refs` into (ready, not ready); see `warren.wait`. HOT PATH."""
        self._send_waiting()
        values = self.inbox.values
        from warren.generators import ObjectRefGenerator

        def ready(ref: Any) -> bool:
            if type(ref) is ObjectRef:
                return ref._id in values
            return bool(ref._next_is_here())

        plain = all(type(ref) is ObjectRef for ref in refs)
        at = 0

        def done() -> bool:
            found = 0
            for ref in refs:
                if (ref._id in values) if plain else ready(ref):
                    found += 1
                    if found >= num_returns:
                        return True
            return False

        def wanted() -> list[bytes]:
            keys = []
            for ref in refs:
                if type(ref) is ObjectRef:
                    keys.append(ref._id)
                elif isinstance(ref, ObjectRefGenerator):
                    keys += ref._wanted()
            return [key for key in keys if key not in values]

        if not done():
            self.inbox.subscribe(wanted())
            hooks = self.block_hooks if timeout != 0 else None
            if hooks is not None:
                hooks[0]()
            try:
                self.inbox.wait(done, wanted, timeout)
            finally:
                if hooks is not None:
                    hooks[1]()
        is_ready: list[Any] = []
        not_ready: list[Any] = []
        for at, ref in enumerate(refs):
            if (ref._id in values) if plain else ready(ref):
                is_ready.append(ref)
                if len(is_ready) == num_returns:
                    not_ready += refs[at + 1 :]
                    break
            else:
                not_ready.append(ref)
        return is_ready, not_ready

    def bring_here(self, refs: Sequence[Any]) -> None:
        """Have the large ones of resolved values on this host; one that is lost says so when it is read."""
        values = self.inbox.values
        for ref in refs:
            record = values.get(ref._id) if type(ref) is ObjectRef else None
            if record is not None and record[0] == LARGE_TAG:
                with suppress(ObjectLost):
                    self.store.large.bring_here(ref._id, records.read_manifest(record))

    def load(self, key: bytes, record: bytes, *, settle: bool = True) -> Any:
        """Return the value of a record, or raise the error it holds.

        Args:
            key: the object.
            record: its record.
            settle: register at once what the value refers to; False if the object is held until a later `settle`.

        Raises:
            Whatever the task raised, as an instance of TaskError and of its own class.
            WarrenSystemError: the value cannot be put together in this process.
        """
        kind = record[0]
        try:
            if kind == NONE_TAG:
                return None
            if kind == PLAIN_TAG:
                return unpack(record[1:])
            if kind == CONTAINING_TAG:
                value = unpack(records.read_containing(record)[1])
            elif kind == LARGE_TAG:
                value = self._load_large(key, record)
            elif kind == ERROR_TAG:
                raise load_task_error(record[1:])
            else:
                raise ValueError(f"object {key.hex()} has a record of unknown kind {record[:1]!r}")
        except UnpickleError as error:
            raise unreadable(error) from error
        if settle:
            self.lifetimes.settle()
        return value

    def _load_large(self, key: bytes, record: bytes) -> Any:
        try:
            return self.store.read_large(key, records.read_manifest(record))
        except ObjectLost as error:
            # We may have been told of a result that lost against another run of its task, or that was freed since.
            (stands,) = self.store.fetch([key])
            if stands is None or stands == record:
                raise ObjectLostError(key.hex()) from error
        with self.references.lock:
            if key in self.inbox.values:
                self.inbox.values[key] = stands
        return self.load(key, stands)

    def register(self) -> None:
        """Make this client known as alive, before anything can depend on it (results of a dead owner are dropped)."""
        if not self._registered:
            self._registered = True
            if self.driver:
                self.store.register_client(self.id, self._lease)
                self._lease_at = time.monotonic() + self._lease / 10
                self.start_service()

    def _died(self) -> None:
        """We gave no sign of life for so long that others cleared up after us. Go on as a new client would.

        What we had submitted and stored is gone, and what we borrowed may be.
        """
        log.error(
            "this process gave no sign of life for %g s (it was stopped, or kept the interpreter busy) and counts as "
            "dead: what it had submitted and stored is gone. WARREN_CLIENT_LEASE sets the time.",
            self._lease,
        )
        self.counted_dead = True
        self.lifetimes.died()
        self.store.register_client(self.id, self._lease)

    def deregister(self) -> None:
        """This process ends. If nothing depends on it, it is forgotten now; else others clear up after it."""
        if not self._registered:
            return
        self.inbox.drain()  # second results of tasks that ran twice: nobody else would delete them
        if self.holds_nothing():
            self._closed = True
            self.store.lives.forget(self.id)

    def holds_nothing(self) -> bool:
        """True if no object or task depends on this client."""
        self.collect()
        return not self.references.counts and not self.in_flight and not self.lifetimes.borrowed

    def collect_quietly(self) -> None:
        """`collect` between two tasks, if there is anything to collect."""
        self._tidy()
        if self.lifetimes.waiting:
            self.lifetimes.settle()
            self.collect()

    def _tidy(self) -> None:
        """Free what failures left in cycles, if that was not done just now."""
        if self.untidy and time.monotonic() >= self._tidy_at:
            self.untidy = False
            self._tidy_at = time.monotonic() + TIDY_SECONDS
            gc.collect()

    def failed(self) -> None:
        """A task failed here: what its frames refer to goes as soon as there is time for that."""
        self.untidy = True
        if self._service is None and time.monotonic() < self._tidy_at:
            self.start_service()  # it does that if nothing runs here when the time has come

    def on_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        """Run `callback` on an internal thread once `ref` is resolved."""
        self.inbox.when_ready(ref._id, callback)

    def run_callback(self, callback: Callable[[], None]) -> None:
        """Run a ready callback, wherever the completion was noticed."""
        try:
            callback()
        except Exception:
            log.exception("a callback on a ready object failed")

    # -- what completions tell ---------------------------------------------------------------------------------------

    def learn(self, function: bytes, mean: float) -> None:
        """Take the mean run time of one batch into the batch size of the next."""
        for plan in self.plans.get(function, ()):
            plan.mean = mean if plan.mean is None else 0.7 * plan.mean + 0.3 * mean

    def on_note(self, completion: Completion) -> None:
        """A note on the inbox that is not a result."""
        self.notes.handle(completion)

    def put_aside(self, where: str, data: bytes, reason: str) -> None:
        """Something unreadable arrived: keep it for the operator, count it, go on."""
        self.put_aside_count += 1
        log.warning("put aside a message on %s: %s", where, reason)
        self.store.put_aside(where, data, reason)

    def store_lost(self, error: Exception) -> None:
        """The store does not answer: wait a little; the caller tries again.

        Raises:
            WarrenSystemError: the embedded server of this session is gone; nothing can come back.
        """
        if self._closed:
            return
        self.store.wait_for_server(error)

    # -- letting go --------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Let go of what lost its last handle."""
        self.lifetimes.collect()

    def abandon_stream(self, task_id: bytes) -> None:
        """A generator was dropped. Called by `__del__`: only appends."""
        self._abandoned.append(task_id)

    def free(self, refs: Sequence[ObjectRef[Any]]) -> None:
        """Delete objects at once, whoever holds them."""
        self.lifetimes.free([ref._id for ref in refs])

    def cancel(self, task_id: bytes, *, force: bool, recursive: bool, results: int = 1) -> None:
        """Cancel a task: dropped if not started, interrupted if running; see `warren.cancel`."""
        if self.outbox.withdraw(task_id):
            self._commit_cancelled(task_id, results)
            self.in_flight = max(0, self.in_flight - 1)
            return
        self.store.announce_cancel(self.keys, task_id, self.id, force=force, recursive=recursive)
        self._late_until = time.monotonic() + LATE_SECONDS
        self._cancelling.append((time.monotonic() + CANCEL_GRACE_SECONDS, task_id, results))
        self.kick()

    def cancel_children(self, parent: bytes, *, force: bool) -> None:
        """Cancel what a cancelled task had submitted."""
        for task_id in self.children.pop(parent, ()):
            if task_id + FIRST_INDEX not in self.inbox.values:
                self.cancel(task_id, force=force, recursive=True)

    def cancel_claimed(self, task_id: bytes) -> None:
        """A node runs the task and will commit its end."""
        self._cancelling = deque(entry for entry in self._cancelling if entry[1] != task_id)

    def _commit_cancelled(self, task_id: bytes, results: int) -> None:
        from warren.exceptions import store_error

        error = store_error(TaskCancelledError(task_id.hex()))
        items: list[bytes] = []
        for index in range(1, results + 1) if results > 0 else (1, 0):
            items += (object_id(task_id, index), records.ERROR + error)
        self.commit_errors(items)
        self.inbox.accept(Completion(b"", 0, 0.0, items, [task_id]))
        self.inbox.wake()

    def commit_errors(self, items: list[bytes]) -> None:
        """Commit errors (id, record, ...) where no results stand; publish what waited for them, tell who waits."""
        owner = owner_of(items[0])
        publish, tell = self.store.dependants(owner, self.store.commit(owner, items, b"", require_owner=False))
        for _, frame, queue, priority, _, _ in publish:
            self.publisher.publish(queue, frame, priority=priority)
        if publish and self.publisher.flush(5.0):
            self.store.launched(publish)
        records_of = dict(zip(items[::2], items[1::2], strict=True))
        for waiter, suffix in tell:
            note = Completion(b"", 0, 0.0, [owner + suffix, records_of[owner + suffix]])
            self.store.tell(waiter, encode_completion(self.signer, waiter, note))

    # -- the service thread ------------------------------------------------------------------------------------------

    def kick(self) -> None:
        """There is work for the service thread."""
        if self._service is None:
            self.start_service()
        if not self._kicked.is_set():
            self._kicked.set()

    def start_service(self) -> None:
        """Start the service thread if it does not run yet."""
        with self._service_lock:
            if self._service is None and not self._closed:
                self._service = threading.Thread(target=self._serve, name="warren-client", daemon=True)
                self._service.start()

    def _serve(self) -> None:
        pause = SERVICE_SECONDS
        while not self._closed:
            at_once = self._cancelling or self._abandoned or self.lifetimes.waiting or self._kicked.is_set()
            if self.block_hooks is None:
                pause = SERVICE_SECONDS if at_once or self.in_flight else SERVICE_IDLE_SECONDS
            else:
                # An executor that waits looks less and less often: a thousand blocked ones must not keep a machine
                # busy.
                pause = SERVICE_SECONDS if at_once else min(2 * pause, EXECUTOR_IDLE_SECONDS)
            self._kicked.wait(pause)
            if self._closed:
                return
            if self._kicked.is_set():
                time.sleep(SEND_DELAY_SECONDS)
                self._kicked.clear()
            try:
                self.run_once()
            except Exception as error:
                if self._closed:
                    return
                log.debug("client service: %s", error, exc_info=True)
                time.sleep(0.05)

    def run_once(self) -> None:
        """One round of the service thread."""
        now = time.monotonic()
        if self._registered and self.driver and now >= self._lease_at and not self._leaving:
            # First of all: whatever else goes wrong, we live.
            if not self.store.renew_client(self.id, self._lease):
                self._died()
            self._lease_at = now + self._lease / 10
        self.outbox.flush()
        if self.in_flight or now < self._late_until:
            self.inbox.drain()
        self._tidy()
        if not self.executing:
            self.lifetimes.settle()  # inside a task its end does that
        while self._abandoned:
            end_stream(self, self._abandoned.popleft())
        self.collect()
        now = time.monotonic()
        while self._cancelling and self._cancelling[0][0] <= now:
            _, task_id, results = self._cancelling.popleft()
            self._commit_cancelled(task_id, results)
        if self.actors.tracked and now >= self._actors_checked_at + CHECK_SECONDS:
            self._actors_checked_at = now
            self.actors.check_pending()
        if self.driver and now >= self._slots_at:
            self.refresh_slots()
            self._slots_at = now + SLOTS_SECONDS
        if self.driver and self.in_flight and now >= self._infeasible_at:
            self._infeasible_at = now + infeasible.CHECK_SECONDS
            self.infeasible.run_once()
        if now >= self._trim_at:
            self.store.large.trim()
            self._trim_at = now + 1.0
        if now >= self._finish_at:
            self.inbox.drain()  # second results of tasks that ran twice
            self.lifetimes.finish()
            self._finish_at = now + FINISH_SECONDS

    def refresh_slots(self) -> None:
        """Learn how much the cluster can run at once."""
        slots = self.store.cluster_slots()
        if slots:
            self.slots = slots

    def home_node(self) -> bytes:
        """Return the id of a living node, of this host if there is one; nil if none is known."""
        from warren.cluster import node_records

        nodes = [node for node in node_records(self) if node["alive"]]
        here = [node for node in nodes if node["host"] == self.store.large.host]
        chosen = here or nodes
        return bytes(chosen[0]["id"]) if chosen else b"\xff" * 28

    def goodbye(self, *, cluster: bool) -> None:
        """Let go of everything this client owns. On a cluster that lives on, delete it from the store.

        Args:
            cluster: False if the whole cluster ends with this client.
        """
        self.outbox.flush()
        self.publisher.flush(5.0)
        if not cluster:
            return
        self._leaving = True
        self.actors.end_all()
        self.lifetimes.goodbye()
        self.store.end_job(self.job)

    def close(self) -> None:
        """Send what waits, let go of everything. Refs and handles of this client are invalid afterwards."""
        if self._closed:
            return
        self._closed = True
        self._kicked.set()
        self.inbox.close()
        if self._service is not None and self._service is not threading.current_thread():
            self._service.join(2.0)
        self.publisher.close()
        self.store.close()


__all__ = ["STREAMING", "TASK_BYTES", "Client"]
