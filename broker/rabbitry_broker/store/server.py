"""The Redis server as the store uses it: one shared connection under one lock, and patience.

HOT PATH (watched by all of `benchmarks/`). Waiting for a server that is away happens here and nowhere else. Threads
that block (the inbox, the node's loop) open connections of their own with `open_connection`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.engine import SERVER_PATIENCE_SECONDS
from rabbitry_broker.errors import ConnectError, ConnectionLost, StoreError, anew, without_frames
from rabbitry_broker.store import scripts
from rabbitry_broker.store.redis.connection import REPLY_TIMEOUT_S, Connection
from rabbitry_broker.store.redis.script import Script

CONNECT_SECONDS = 5.0
SHORTEST_WAIT_SECONDS = 0.01  # of a wait that has no time left
OUTAGE_SECONDS = 0.5  # a server that was away for longer may have let leases end that their holders would have renewed

_NO_WRITES = ("MISCONF ", "NOREPLICAS ", "BUSY ")  # how such answers to a write begin

__all__ = ["Connection", "Script", "Server", "is_full", "may_pass", "takes_no_writes"]


def is_full(error: BaseException) -> bool:
    """Return True for Redis' answer to a write at `maxmemory`; Redis 6 wraps what a script is told into more text."""
    return "OOM command not allowed" in str(error)


def takes_no_writes(error: BaseException) -> bool:
    """Return True for Redis' answer to a write that it will take later: its disk is full, its replicas are away.

    Or a script of somebody else does not end.
    """
    text = str(error)  # what a script is told is in the middle of it, with Redis 6
    return any(each in text for each in _NO_WRITES)


def may_pass(error: BaseException) -> bool:
    """Return False for what the store answers to the same call for ever: too large a value, a key of another type."""
    return not isinstance(error, StoreError) or (
        isinstance(error, ConnectionLost) or takes_no_writes(error) or is_full(error)
    )


def _checked(replies: list[Any]) -> list[Any]:
    """Return replies of which none is an error; raise the first that is."""
    for reply in replies:
        if isinstance(reply, Exception):
            try:
                raise reply
            finally:
                del reply, replies  # see `without_frames`
    return replies


class _Limit(threading.local):
    """Until when a thread waits for a server that is away; see `Server.within`."""

    deadline: float | None = None

    def left(self, seconds: float) -> float:
        """Return so many seconds, or less if less is left; never nothing, which would mean no limit elsewhere."""
        if self.deadline is None:
            return seconds
        return max(SHORTEST_WAIT_SECONDS, min(seconds, self.deadline - time.monotonic()))

    def for_reply(self, after: float) -> float:
        """Return how long a reply may take that is due in `after` seconds.

        Until the end, or a little before: only powers of two, as each change costs a system call. Never less than a
        second: with so little left, a server that is merely slow would cost every caller its connection.
        """
        if self.deadline is None:
            return REPLY_TIMEOUT_S
        left = min(REPLY_TIMEOUT_S, self.deadline - time.monotonic() - after)
        return REPLY_TIMEOUT_S if left >= REPLY_TIMEOUT_S else 2.0 ** math.floor(math.log2(left)) if left > 1 else 1.0

    def is_over(self) -> bool:
        """True if the thread is to wait no longer."""
        return self.deadline is not None and time.monotonic() >= self.deadline


class _Turn:
    """A thread's turn at the shared connection. Another one may keep it while it connects to a server that is away."""

    __slots__ = ("_limit", "_lock")

    def __init__(self, lock: Any, limit: _Limit) -> None:
        self._lock = lock
        self._limit = limit

    def __enter__(self) -> None:
        if self._limit.deadline is None:
            self._lock.acquire()
        elif not self._lock.acquire(timeout=self._limit.left(threading.TIMEOUT_MAX)):
            raise ConnectionLost("the connection to Redis was not free in the time given")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Server:
    """The shared connection to Redis, and what is done while it is away. Every method may be called from any thread.

    Args:
        endpoint: the cluster.

    Attributes:
        endpoint: the same.
        traits: of its engine.
        patience: seconds that a call waits for a server that is away.
        waits_for_room: whether a full server is waited for like one that is away: for a node, which has nobody to tell.
        on_full: called before a full server is asked again, to make room.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.traits = endpoint.traits
        self.patience = endpoint.patience
        self.waits_for_room = False
        self.on_full: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._limit = _Limit()
        self._turn = _Turn(self._lock, self._limit)
        self._connection: Connection | None = None
        self._unopened: Connection | None = None
        self._connection_name = "store"
        self._closed = False
        self._met = False
        self._ended = False  # an embedded server stayed away: the session has ended, and is not waited for again
        self._outage_ended = -math.inf
        self._scripts: dict[str, Script] = {}

    def prepare(self) -> None:
        """Make all of the shared connection but its socket: it is opened in a process forked from this one."""
        self._unopened = self.unopened(self._connection_name)

    def unopened(self, name: str) -> Connection:
        """Return one more connection, for `Connection.reopen` in a process forked from this one."""
        return Connection.unopened(self.endpoint, name=f"rabbitry-{name}", timeout=CONNECT_SECONDS)

    def open_connection(
        self, name: str, *, at: tuple[str, int] | None = None, timeout: float = CONNECT_SECONDS
    ) -> Connection:
        """Open one more connection, for a caller that blocks on it; `at` and `timeout` see `Connection.open`."""
        return Connection.open(self.endpoint, name=f"rabbitry-{name}", at=at, timeout=self._limit.left(timeout))

    @contextmanager
    def within(self, deadline: float | None) -> Iterator[None]:
        """While this runs, this thread waits for a server that is away until `deadline` (monotonic) at most.

        Then it gets the error that it would get after `patience` seconds. For calls that may be left undone: a wait
        that has a timeout of its own. None: no such limit.
        """
        before, self._limit.deadline = self._limit.deadline, deadline
        try:
            yield
        finally:
            self._limit.deadline = before

    def reply_seconds(self, after: float = 0.0) -> float:
        """Return how long this thread may wait for a reply that is due in `after` seconds, on any connection."""
        return self._limit.for_reply(after)

    def seconds_left(self) -> float:
        """Return how long this thread may wait for a lock whose holder may wait for a server: -1 for ever."""
        return -1.0 if self._limit.deadline is None else self._limit.left(threading.TIMEOUT_MAX)

    @property
    def connection(self) -> Connection:
        """The shared connection; hold the lock while using it."""
        if self._connection is None or self._connection.closed:
            self._connection = self._open()
            self._met = True
        self._connection.limit_replies(self._limit.for_reply(0.0))
        return self._connection

    def _open(self) -> Connection:
        timeout = self._limit.left(CONNECT_SECONDS)
        connection, self._unopened = self._unopened, None
        if connection is None:
            return self.open_connection(self._connection_name, timeout=timeout)
        connection.reopen(timeout=timeout)
        return connection

    def call(self, *args: Any) -> Any:
        """Run one command that may safely run twice, and return its reply.

        A broken connection is opened again and the command repeated; a server that is away is waited for, and so is one
        that takes no writes just now (see `takes_no_writes`).

        Raises:
            ConnectionLost: the server stayed away for `patience` seconds.
            ConnectError: so it did, or it was never reached.
            StoreError: the server answered with an error.
        """
        with self._turn:
            try:
                return self.connection.call(*args)
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
        return self._again(lost, lambda: self.connection.call(*args))

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands that may safely run twice in one round trip; error replies are raised. See `call`."""
        if not commands:
            return []
        with self._turn:
            try:
                return _checked(self.connection.pipeline(commands))
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
        return list(self._again(lost, lambda: _checked(self.connection.pipeline(commands))))

    def script(self, name: str, *args: Any) -> Any:
        """Run one of our scripts (all of them may safely run twice). See `call`."""
        with self._turn:
            try:
                return self._script(name)((), args)
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
        return self._again(lost, lambda: self._script(name)((), args))

    def pipeline_of_scripts(
        self, calls: Sequence[tuple[str, tuple[Any, ...]]], before: Sequence[tuple[Any, ...]] = ()
    ) -> list[Any]:
        """Run commands and then scripts (name, arguments) in one round trip; returns the scripts' replies.

        All of them may safely run twice. Error replies are raised.
        """
        if not calls and not before:
            return []
        with self._turn:
            try:
                return _checked(self._run_scripts(calls, before))[len(before) :]
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
        return list(self._again(lost, lambda: _checked(self._run_scripts(calls, before)))[len(before) :])

    def _run_scripts(
        self, calls: Sequence[tuple[str, tuple[Any, ...]]], before: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        commands = [*before, *[self._script(name).command((), arguments) for name, arguments in calls]]
        return self.connection.pipeline(commands)

    def _script(self, name: str) -> Script:
        connection = self.connection
        script = self._scripts.get(name)
        if script is None or script.connection is not connection:
            script = self._scripts[name] = connection.script(scripts.source_of(name))
        return script

    def _passing(self, error: StoreError | ConnectError) -> StoreError | ConnectError:
        """Return an error that may be over soon; raise any other."""
        if isinstance(error, (ConnectionLost, ConnectError)) or takes_no_writes(error):
            passing = True
        else:
            passing = self.waits_for_room and is_full(error)
        if not passing:
            try:
                raise error
            finally:
                del error
        return without_frames(error)

    def _again(self, lost: StoreError | ConnectError, run: Callable[[], Any]) -> Any:
        """Repeat what was interrupted until the server is back.

        Waiting happens here and nowhere else: whoever calls the store would otherwise have to undo half of what it
        was doing, at a hundred places. A server that was never reached is the user's mistake, and not waited for.
        """
        started = time.monotonic()
        delay = 0.0
        while True:
            full = is_full(lost)
            away = isinstance(lost, (ConnectionLost, ConnectError))
            gone = isinstance(lost.__cause__, (FileNotFoundError, ConnectionRefusedError))  # not busy, say
            patience = (
                self.patience if away and (gone or not self.traits.ends_with_its_server) else SERVER_PATIENCE_SECONDS
            )
            over = self._limit.is_over()
            if not self._met or self._closed or (gone and self._ended) or over or time.monotonic() - started > patience:
                if gone and self._met and self.traits.ends_with_its_server and not self._closed and not over:
                    self._ended = True
                    raise ConnectError(
                        self.endpoint.store_url,
                        "the session has ended, with the program that started it",
                        "Call `shutdown()`, then `init()` for another one.",
                    ) from lost
                raise anew(lost)
            if full:
                self.on_full()
            time.sleep(self._limit.left(delay))
            delay = min(0.25, delay * 2 + 0.01)
            try:
                with self._turn:
                    result = run()
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
                continue
            self._ended = False
            if time.monotonic() - started > OUTAGE_SECONDS:
                self._outage_ended = time.monotonic()
            return result

    def expect_server(self) -> None:
        """The address is known to be right: wait for the server from the first command on."""
        self._met = True

    def trusts_leases(self, lease: float) -> bool:
        """True if leases in the store can be judged: the server has not been away within the last `lease` seconds.

        Nobody could renew a lease while it was away, so one that has ended proves nothing yet.
        """
        return time.monotonic() - self._outage_ended > lease

    def wait_for_server(self, error: Exception) -> None:
        """Wait until the server answers again.

        Raises:
            StoreError: it stayed away for `patience` seconds.
        """
        if self._closed:
            return
        try:
            self.call(b"PING")
        except (StoreError, ConnectionError) as again:
            raise StoreError(f"Redis does not answer: {again}") from error

    def name_connection(self, name: str) -> None:
        """Let the server show the shared connection by this name, from the next time it is opened."""
        self._connection_name = name

    def time(self) -> float:
        """Return the time by the clock of Redis, in seconds: clocks of nodes and drivers may be hours apart."""
        seconds, microseconds = self.call(b"TIME")
        return int(seconds) + int(microseconds) / 1e6

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    def forget_in_child(self) -> None:
        """Close what a forked child has of our connection: it must not seem to be there when its parent has ended."""
        connection = self._connection  # no lock: a thread that the child does not have may hold it
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the shared connection."""
        self._closed = True
        with self._lock:
            if self._connection is not None:
                self._connection.close()
