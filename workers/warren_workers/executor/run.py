"""The executor: takes chunks of tasks from its agent, runs them, commits results.

HOT PATH (`benchmarks/`: all task workloads). One thread does everything: user code runs on the main thread, results
gather and are committed in one Lua call when the executor's queue is empty, `COMMIT_SECONDS` have passed or
`COMMIT_TASKS` wait. A commit is sent and its reply is read later, so the next task runs while Redis works. Only after the
reply does the agent hear that tasks are done: a crash before that runs them again (the first result stands).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from warren import current
from warren.client import Client
from warren.exceptions import (
    ObjectLostError,
    TaskCancelledError,
    WorkerCrashedError,
    capture_task_error,
    store_error,
    store_input_failure,
)
from warren.generators import consumed_key
from warren.object_ref import ObjectRef, made_here
from warren.runtime_context import TaskContext, set_context
from warren_broker import records
from warren_broker.endpoint import Endpoint
from warren_broker.errors import ConnectionLost, StoreError
from warren_broker.functions import FunctionCache
from warren_broker.ids import CLIENT_BYTES, FIRST_INDEX, new_client_id, object_id
from warren_broker.messages import (
    DYNAMIC,
    STREAMING,
    Completion,
    Task,
    TaskHeader,
    decode_header,
    encode_completion,
)
from warren_broker.queues import open_publisher
from warren_broker.serialization import pack, unpack
from warren_broker.store import scripts
from warren_broker.store.connection import Connection
from warren_workers.channel import BLOCKED, BYE, DONE, EXIT, RETIRE, RUN, TAKEN, UNBLOCKED, BlockingChannel
from warren_workers.executor.progress import Progress
from warren_workers.executor.publisher import AgentPublisher

COMMIT_SECONDS = 0.005
COMMIT_TASKS = 100
COMMIT_BYTES = 512 * 1024
BACKPRESSURE_POLL_SECONDS = 0.005
COMMIT_PATIENCE_SECONDS = 60.0

_clock = time.perf_counter


class RetryTask(Exception):
    """Internal: the task's error is to be retried."""


class Executor:
    """The one executor of this process. Everything runs on the main thread, except user threads' API calls."""

    def __init__(self, channel: BlockingChannel, progress: Progress, config: dict[str, Any]) -> None:
        self.channel = channel
        self.progress = progress
        self.started = progress.started
        endpoint = Endpoint(
            store_url=config["store_url"],
            broker_url=config["broker_url"],
            secrets=tuple(config["secrets"]),
            prefix=config["prefix"],
        )
        publisher = (
            open_publisher(endpoint, on_new_queue=None, name="executor")
            if endpoint.embedded
            else AgentPublisher(channel)
        )
        self.client = Client(
            endpoint,
            publisher,
            client_id=new_client_id(),
            job=config["job"],
            detached_id=config["detached_id"],
            namespace=config["namespace"],
            slots=config["slots"],
            driver=True,
            object_ttl=config["object_ttl"],
            session=config["session"],
            host=config["host"],
        )
        self.client.job_env = config["job_env"]
        self.client.block_hooks = (self._blocked, self._unblocked)
        self.client.current_task = lambda: self.task_id
        current.set_client(self.client)
        self.store = self.client.store
        self.functions = FunctionCache(self.store.get_function)
        self.node_id: bytes = config["node_id"]
        self.task_id: bytes | None = None
        self.header: TaskHeader | None = None
        self._main_thread = threading.get_ident()
        self._connection: Connection | None = None
        self._owner = b""
        self._items: list[bytes] = []
        self._ended: list[bytes] = []
        self._tasks = 0
        self._busy = 0.0
        self._bytes = 0
        self._upto = 0
        self._gathered_since = 0.0
        self._retries: list[tuple[int, Task]] = []
        self._sent: tuple[Any, ...] | None = None
        self._abandon = False
        self._takes_due = 0
        self._sequence = 0
        self._calls: dict[bytes, int] = {}
        self._leaving = ""
        self._environment_of_gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        signal.signal(signal.SIGINT, self._on_interrupt)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the agent is gone or this executor is to end."""
        channel = self.channel
        while True:
            if not self._leaving and not channel.waiting():
                self._commit(last=True)
                self.client.collect_quietly()
            if self._leaving:
                self._commit(last=True)
                channel.send([BYE, self._leaving])
                self._leaving = "-"
            message = channel.receive()
            if message is None or message[0] == EXIT:
                return 0
            word = message[0]
            if word == RUN:
                if not self._takes_due and not self._leaving:
                    self._run_chunk(message[1], message[2], message[3], message[4])
            elif word == TAKEN:
                self._takes_due -= 1
            elif word == RETIRE and self.client.holds_nothing():
                channel.send([BYE, "retired"])
                return 0

    def _run_chunk(self, first: int, header_bytes: bytes, tasks: list[Task], gpus: list[str] | None) -> None:
        header = decode_header(header_bytes)
        self.header = header
        if header.owner != self._owner:
            self._commit(last=True)
            self._owner = header.owner
        set_context(TaskContext(self.node_id, self.client.id, header, gpus))
        self._set_gpus(gpus)
        self._abandon = False
        try:
            function = self.functions.get(header.function)
        except BaseException as error:
            failure: BaseException | None = error
            function = None
        else:
            failure = None
        clock, started = _clock, self.started
        for at, task in enumerate(tasks):
            started[0] = first + at + 1
            self._sequence = first + at
            self.task_id = task[0]
            begin = clock()
            if failure is not None:
                self._finish_error(header, task, failure)
            else:
                self._run_task(header, function, task)
            self.task_id = None
            end = clock()
            if not self._tasks:
                self._gathered_since = begin
            self._tasks += 1
            self._busy += end - begin
            self._upto = first + at + 1
            if (
                self._tasks >= COMMIT_TASKS
                or end - self._gathered_since > COMMIT_SECONDS
                or self._bytes > COMMIT_BYTES
                or header.max_retries == 0
            ):
                self._commit(last=header.max_retries == 0)
            if header.max_calls:
                calls = self._calls[header.function] = self._calls.get(header.function, 0) + 1
                if calls >= header.max_calls:
                    self._leaving = "max_calls"
                    break
            if self._abandon or self._leaving:
                break
        self.header = None

    def _set_gpus(self, gpus: list[str] | None) -> None:
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        elif gpus is not None:
            if self._environment_of_gpu is None:
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = self._environment_of_gpu

    # -- one task ----------------------------------------------------------------------------------------------------

    def _run_task(self, header: TaskHeader, function: Callable[..., Any], task: Task) -> None:
        payload = task[1]
        try:
            if payload:
                args, kwargs = self._arguments(task)
                value = function(*args, **kwargs)
                args = kwargs = None  # the results of `collect` below depend on these handles being gone
            else:
                value = function()
            count = header.num_returns
            if count == 1:
                if value is None:
                    self._items += (task[0] + FIRST_INDEX, b"N")
                else:
                    self._store_result(task[0] + FIRST_INDEX, value)
            else:
                self._store_results(header, task, value)
            value = None
        except DependencyFailed as failed:
            error_bytes = store_input_failure(failed.record[1:], header.name)
            self._commit_everywhere(header, task, records.ERROR + error_bytes)
        except BaseException as error:
            args = kwargs = None
            if self._to_be_retried(header, task, error):
                _, arguments, attempt, *rest = task
                self._retries.append((self._sequence, (task[0], arguments, attempt + 1, *rest)))
            else:
                self._finish_error(header, task, error)
        if self.client.references.dropped or self.client.fresh_foreign:
            self.client.settle_borrowing()

    def _arguments(self, task: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
        payload, client = task[1], self.client
        if payload[:1] == b"P":
            args, kwargs = unpack(payload[1:])
        else:
            (record,) = self.store.fetch([payload[1:]])
            if record is None:
                raise ObjectLostError(payload[1:].hex())
            args, kwargs = client.load(payload[1:], record)
        dependencies = task[3]
        if dependencies:
            inline, values = task[4], {}
            missing = [key for key in dependencies if key not in inline]
            found = dict(zip(missing, self.store.fetch(missing), strict=True)) if missing else {}
            for key in dependencies:
                record = inline.get(key) or found.get(key)
                if record is None:
                    raise ObjectLostError(key.hex())
                if record[0] == records.ERROR_TAG:
                    raise DependencyFailed(record)
                values[key] = record
            args = tuple(
                [client.load(value._id, values[value._id]) if type(value) is ObjectRef else value for value in args]
            )
            if kwargs:
                kwargs = {
                    name: client.load(value._id, values[value._id]) if type(value) is ObjectRef else value
                    for name, value in kwargs.items()
                }
        return args, kwargs

    def _store_result(self, key: bytes, value: Any) -> None:
        packed = pack(value)
        if not packed.buffers and not packed.refs and len(packed.data) <= records.INLINE_LIMIT_BYTES:
            record = b"P" + packed.data
        elif packed.buffers or len(packed.data) > records.INLINE_LIMIT_BYTES:
            record = self.store.large.write(key, packed)
        else:
            record = records.containing(packed.refs, packed.data)
        if packed.refs:
            self.client.outbox.flush()
            self.client.flush_puts()
            self.client.hold_contained(key, packed.refs)
        self._items += (key, record)
        self._bytes += len(record)

    def _store_results(self, header: TaskHeader, task: Task, value: Any) -> None:
        count = header.num_returns
        if count == 0:
            self._ended.append(task[0])
            if value is not None:
                print(f"{header.name} has num_returns=0 but returned a value; it is dropped", file=sys.stderr)
        elif count > 1:
            try:
                values = list(value)
            except TypeError:
                raise ValueError(
                    f"{header.name} has num_returns={count}, so it must return {count} values; "
                    f"it returned one object of type {type(value).__name__}"
                ) from None
            if len(values) != count:
                raise ValueError(f"{header.name} has num_returns={count} but returned {len(values)} values")
            for at, each in enumerate(values):
                self._store_result(object_id(task[0], at + 1), each)
        elif count == DYNAMIC:
            from warren.generators import DynamicObjectRefGenerator

            refs = []
            for at, each in enumerate(_iterate(value)):
                key = object_id(task[0], at + 2)
                self._store_result(key, each)
                refs.append(made_here(key, self.client.references))
            self._commit(last=True)
            self._store_result(task[0] + FIRST_INDEX, DynamicObjectRefGenerator(refs))
        else:
            self._stream(header, task, value)

    def _stream(self, header: TaskHeader, task: Task, value: Any) -> None:
        made = 0
        try:
            for each in _iterate(value):
                self._store_result(object_id(task[0], made + 1), each)
                each = None
                made += 1
                self._commit(last=False, inside=True)
                if header.backpressure:
                    self._wait_for_reader(task[0], made, header.backpressure)
        except BaseException as error:
            if self._to_be_retried(header, task, error):
                raise
            record = records.ERROR + self._error_of(header, task, error)
            self._items += (object_id(task[0], made + 1), record)
            made += 1
        self._store_result(object_id(task[0], 0), made)
        self._ended.append(task[0])

    def _wait_for_reader(self, task_id: bytes, made: int, limit: int) -> None:
        self._commit(last=True, inside=True)
        owner = task_id[:CLIENT_BYTES]
        key = consumed_key(self.client.keys.prefix, self.store.tag(owner), task_id)
        while made - int(self.store.call(b"GET", key) or 0) >= limit:
            if not self.store.call(b"EXISTS", self.client.keys.client(owner)):
                raise TaskCancelledError(task_id.hex())
            time.sleep(BACKPRESSURE_POLL_SECONDS)

    # -- errors ------------------------------------------------------------------------------------------------------

    def _to_be_retried(self, header: TaskHeader, task: Task, error: BaseException) -> bool:
        wanted = header.retry_exceptions
        if not wanted or not isinstance(error, Exception):
            return False
        if header.max_retries >= 0 and task[2] >= header.max_retries:
            return False
        if wanted == b"*":
            return True
        classes = pickle.loads(wanted)
        cause = getattr(error, "cause", None)
        return isinstance(error, classes) or isinstance(cause, classes)

    def _error_of(self, header: TaskHeader, task: Task, error: BaseException) -> bytes:
        if isinstance(error, KeyboardInterrupt):
            return store_error(TaskCancelledError(task[0].hex()))
        if isinstance(error, SystemExit):
            return store_error(WorkerCrashedError())
        return capture_task_error(error, header.name, os.getpid(), self.node_id.hex())

    def _finish_error(self, header: TaskHeader, task: Task, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.client.cancel_children(task[0], force=False)
        self._commit_everywhere(header, task, records.ERROR + self._error_of(header, task, error))

    def _commit_everywhere(self, header: TaskHeader, task: Task, record: bytes) -> None:
        """The same record for every result of the task."""
        for key in result_ids(task[0], header.num_returns):
            self._items += (key, record)
        if header.num_returns in (0, STREAMING):
            self._ended.append(task[0])
        self._bytes += len(record)

    # -- commit ------------------------------------------------------------------------------------------------------

    def _commit(self, *, last: bool, inside: bool = False) -> None:
        """Commit what was gathered. `last`: also wait for the reply and tell the agent.

        `inside`: called in the middle of a task (a stream's items): the task itself is not done yet.
        """
        if self._sent is not None:
            self._settle()
        if not self._items and not self._ended and not self._tasks and not self._retries:
            return
        header = self.header
        tasks, busy, upto = self._tasks, self._busy, self._upto
        if self._items or self._ended:
            items, ended = self._items, self._ended
            self._items, self._ended = [], []
            function = header.function if header is not None else b""
            completion = Completion(function, tasks, busy, items, ended)
            entry = encode_completion(self.client.signer, self._owner, completion)
            self._send_commit(items, entry)
            self._sent = (tasks, busy, upto, self._retries, items, entry)
        else:
            self._sent = (tasks, busy, upto, self._retries, [], b"")
        self._tasks, self._busy, self._bytes, self._retries = 0, 0.0, 0, []
        if last:
            self._settle()

    def _send_commit(self, items: list[bytes], entry: bytes) -> None:
        """Send the commit; results of detached tasks lie under another tag than the inbox, so they take two steps."""
        if items and items[0][:CLIENT_BYTES] != self._owner:
            arguments = self.store.commit_arguments(items[0][:CLIENT_BYTES], items, b"", require_owner=False)
        else:
            arguments = self.store.commit_arguments(self._owner, items, entry, require_owner=True)
        connection = self._connection
        if connection is None:
            connection = self._connection = self.store.open_connection("commit")
            self._script = connection.script(scripts.source_of("commit"))
        try:
            connection.send(*self._script.command((), arguments))
        except ConnectionLost:
            return  # `_settle` sees the closed connection and commits again

    def _settle(self) -> None:
        """Read the reply of the commit that is under way, do what it leaves to do, tell the agent."""
        sent = self._sent
        assert sent is not None
        tasks, busy, upto, retries, items, entry = sent
        dependants: list[Any] = []
        if items or entry:
            left = self._reply(items, entry)
            owner = items[0][:CLIENT_BYTES] if items else self._owner
            if items and owner != self._owner:
                self.store.tell(self._owner, entry)
            if left and left[0] != -1:
                publish, tell = self.store.dependants(owner, left)
                dependants = [list(each) for each in publish]
                for client, suffix in tell:
                    self._tell(client, owner + suffix, items)
        self._sent = None
        if tasks or retries:
            self.channel.send([DONE, upto, tasks, busy, retries, dependants])

    def _reply(self, items: list[bytes], entry: bytes) -> list[Any]:
        """Return the commit's reply; a lost connection commits again (a commit may run twice)."""
        deadline = time.monotonic() + COMMIT_PATIENCE_SECONDS
        while True:
            try:
                if self._connection is None:
                    self._send_commit(items, entry)
                assert self._connection is not None
                reply: list[Any] = self._connection.read()
                return reply
            except (ConnectionLost, ConnectionError) as error:
                self._connection = None
                if time.monotonic() > deadline:
                    raise StoreError(f"results could not be committed: {error}") from error
                time.sleep(0.05)
            except StoreError as error:
                if not str(error).startswith("OOM") or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)  # Redis at maxmemory: wait for room
                self._send_commit(items, entry)

    def _tell(self, client: bytes, key: bytes, items: list[bytes]) -> None:
        """Give a record to a client that waits for an object it does not own."""
        for at in range(0, len(items), 2):
            if items[at] == key:
                completion = Completion(b"", 0, 0.0, [key, items[at + 1]])
                self.store.tell(client, encode_completion(self.client.signer, client, completion))

    # -- blocking, interrupting --------------------------------------------------------------------------------------

    def _blocked(self) -> None:
        if threading.get_ident() != self._main_thread or self.task_id is None:
            return
        self._commit_before_blocking()
        self._abandon = True
        self._takes_due += 1
        self.channel.send([BLOCKED, self._sequence])

    def _commit_before_blocking(self) -> None:
        """Others may wait for what finished earlier in this chunk: this task, blocked, must not keep it back."""
        self._commit(last=True, inside=True)

    def _unblocked(self) -> None:
        if threading.get_ident() == self._main_thread and self.task_id is not None:
            self.channel.send([UNBLOCKED])

    def _on_interrupt(self, *_: Any) -> None:
        if self.task_id is not None and self.progress.target() == self.task_id:
            raise KeyboardInterrupt


class DependencyFailed(Exception):
    """Internal: an argument's task failed; its record becomes the result."""

    def __init__(self, record: bytes) -> None:
        super().__init__()
        self.record = record


def result_ids(task_id: bytes, num_returns: int) -> list[bytes]:
    """Return the ids of the objects that a failed task must fill."""
    if num_returns > 0:
        return [object_id(task_id, at + 1) for at in range(num_returns)]
    if num_returns == DYNAMIC:
        return [task_id + FIRST_INDEX]
    if num_returns == STREAMING:
        return [task_id + FIRST_INDEX, object_id(task_id, 0)]
    return []


def _iterate(value: Any) -> Iterable[Any]:
    """Iterate over a generator's items, asynchronous or not."""
    if hasattr(value, "__aiter__"):
        import asyncio

        loop = asyncio.new_event_loop()
        try:
            iterator = value.__aiter__()
            while True:
                try:
                    yield loop.run_until_complete(iterator.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
    else:
        try:
            iterator = iter(value)
        except TypeError:
            raise ValueError(
                f"a task with num_returns='streaming' or 'dynamic' must return an iterable, got {type(value).__name__}"
            ) from None
        yield from iterator


def main(sock: Any, page: int, config: dict[str, Any]) -> int:
    """Body of a forked executor."""
    os.environ.update(config["env"])
    sys.path[:] = config["sys_path"] + [path for path in sys.path if path not in config["sys_path"]]
    if config["cwd"] and os.path.isdir(config["cwd"]):
        os.chdir(config["cwd"])
    executor = Executor(BlockingChannel(sock), Progress(page), config)
    return executor.run()
