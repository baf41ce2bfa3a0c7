"""The environments of a node: which are ready, which are being made, which cannot be.

    (unknown) --asked for--> MAKING --child says so--> WARMING --its template is up--> READY
                               |                          |                              |
                               |                          |    nobody uses it for `IDLE_SECONDS`--> (unknown)
                               '------it cannot be--------'--> BROKEN --`REMEMBERED_SECONDS`--> (unknown)

An environment whose entries are all in the cache is not made; one whose processes fork from the node's own template is
READY at once. While a template of its own begins, which may take long or never end, nothing is kept free for it. For
what is to be made a child process is started (`rabbitry_workers.environments.build`): one for each environment however
many ask, `AT_ONCE` of them at a time. One that ends without a word, since it was killed, is started once more: what
killed it need not have to do with the environment. Tasks that wait for an environment stay here; more is taken from
their queues meanwhile, so that they keep nobody else's work from this node. What waits for an environment that cannot
be fails, and what comes for it within a while, too.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rabbitry.exceptions import RuntimeEnvSetupError
from rabbitry_broker.errors import ConnectionLost, RabbitryBrokerError
from rabbitry_broker.runtime_environments import Record, digest_of
from rabbitry_broker.store.functions import Kind
from rabbitry_workers.channel import Splitter, pack_message
from rabbitry_workers.environments import build
from rabbitry_workers.environments.cache import OF_JOB, Cache
from rabbitry_workers.environments.installing import node_sites
from rabbitry_workers.environments.making import Plan, Setup
from rabbitry_workers.node.model.lanes import Executor, Lane, Lanes
from rabbitry_workers.node.model.node import Node

IDLE_SECONDS: Final = 60.0
REMEMBERED_SECONDS: Final = 20.0
AT_ONCE: Final = 4
TRIES: Final = 2  # to make an environment, if what makes it ends without a word
TEMPLATES_IDLE: Final = 8
TIMEOUT_SECONDS: Final = 600.0
TIMEOUT_SECONDS_MAX: Final = 10 * 365 * 86400.0  # an int may be larger than any float
LOG_BYTES: Final = 4000
_MORE_SECONDS: Final = 0.2

Key = tuple[bytes, bytes]
"""Job, and what stands in headers for the environment."""

log = logging.getLogger("rabbitry.node")


class State(enum.Enum):
    """Where an environment is; see the module's head."""

    MAKING = "making"
    WARMING = "warming"
    READY = "ready"
    BROKEN = "broken"


class Environment:
    """What a node knows of one environment.

    Attributes:
        state: where it is.
        setup: what its processes must be told, once it is ready.
        packed: the same as bytes.
        entries: of the cache, in use by this node as long as their locks are open.
        error: why it cannot be.
        since: when it was used last, or broke.
        lost: how many processes that were to make it ended without a word.
        orphaned: its driver has left; what waits for it yet is detached, or about to be dropped.
    """

    __slots__ = ("build", "entries", "error", "lost", "orphaned", "packed", "setup", "since", "state")

    def __init__(self) -> None:
        self.state = State.MAKING
        self.setup: Setup | None = None
        self.packed = b""
        self.entries: list[int] = []
        self.error: RuntimeEnvSetupError | None = None
        self.since = time.monotonic()
        self.build: Build | None = None
        self.lost = 0
        self.orphaned = False


class Environments:
    """Loop thread only.

    Args:
        node: whose they are.
        lanes: in which work waits for them.
        executors: of the node.
        serve: gives a lane's tasks to executors.
        fail: fails all that waits for an environment.
        take_more: has more of a resource class taken from the queues.
        warm: starts the template of an environment, and calls `is_up` when it is there; False if it cannot now.
        cool: told of one that is given up.
    """

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        executors: Mapping[int, Executor],
        serve: Callable[[Lane], None],
        fail: Callable[[Key, Exception], None],
        take_more: Callable[[str], object],
        warm: Callable[[Key, Setup], bool],
        cool: Callable[[Key], None],
    ) -> None:
        self._node = node
        self._lanes = lanes
        self._executors = executors
        self._serve = serve
        self._fail = fail
        self._take_more = take_more
        self._warm = warm
        self._cool = cool
        self._cache: Cache | None = None
        self._known: dict[Key, Environment] = {}
        self._waiting: deque[tuple[Key, Record]] = deque()
        self._builds: set[Build] = set()
        self._ended: list[subprocess.Popen[bytes]] = []
        self._more_at = 0.0
        self._closed = False

    # -- what others ask -----------------------------------------------------------------------------------------------

    def setup(self, key: Key) -> bytes | None:
        """Return what executors of an environment must be told; None if it is not ready: the lane is served then.

        Raises:
            ConnectionLost: Redis is away.
        """
        known = self._known.get(key)
        if known is None:
            known = self._begin(key)
        if known.state is State.READY:
            known.since = time.monotonic()
            return known.packed
        if known.state is State.BROKEN:
            error = known.error
            assert error is not None
            self._node.loop.add_callback(lambda: self._fail(key, error))
        return None

    def set_up(self, job: bytes, code: bytes) -> None:
        """A driver wants an environment made ready before there is work for it."""
        if self._closed or digest_of(code) is None or (job, code) in self._known:
            return
        try:
            self._begin((job, code))
        except RabbitryBrokerError as error:
            log.warning("cannot set up an environment now: %s", error)

    def is_making(self, lane: Lane) -> bool:
        """True if the lane waits for its environment: nothing of it can start sooner elsewhere, as far as is known."""
        known = self._known.get(lane.key[1:])
        return known is not None and known.state in (State.MAKING, State.WARMING)

    def broken(self, key: Key, why: str) -> None:
        """Processes of an environment that was ready cannot be started."""
        known = self._known.get(key)
        if known is not None:
            self._break(key, known, f"{why}{self._end_of_log(key)}")

    def log_of(self, key: Key) -> Path | None:
        """Return where what is said while an environment is set up goes; None if there is no cache."""
        if self._cache is None:
            return None
        return self._cache.logs / f"{key[1][1:].hex()}-{self._node.config.short_id}.log"

    # -- making --------------------------------------------------------------------------------------------------------

    def _begin(self, key: Key) -> Environment:
        job, code = key
        digest = digest_of(code)
        known = Environment()
        try:
            if digest is None:
                raise RabbitryBrokerError("its hash has another form")
            if self._cache is None:
                self._cache = Cache.from_environment()
            record = Record.unpack(self._node.store.functions.get(digest, Kind.ENVIRONMENT))
            self._known[key] = known
            plan = Plan(record, job, self._cache, node_sites())
            entries = None if plan.needs_code else plan.find()
        except ConnectionLost:
            self._known.pop(key, None)
            raise
        except Exception as error:
            # A user wrote that; nothing of it may end a node.
            self._known[key] = known
            if not isinstance(error, (RabbitryBrokerError, ValueError, OSError)):
                log.exception("environment %s cannot be read", code[1:].hex())
            self._break(key, known, str(error) or type(error).__name__)
            return known
        if entries is not None:
            self._is_ready(key, known, plan.setup(), [each.lock for each in entries])
            return known
        self._waiting.append((key, record))
        self._build_next()
        return known

    def _build_next(self) -> None:
        while self._waiting and len(self._builds) < AT_ONCE and not self._closed:
            key, record = self._waiting.popleft()
            known = self._known.get(key)
            if known is None or known.state is not State.MAKING or known.build is not None:
                continue  # given up meanwhile, and maybe asked for again
            path = self.log_of(key)
            assert path is not None
            timeout = setup_seconds(record.env)
            try:
                known.build = child = Build(self._node, key, record, path, timeout, self._on_built)
            except OSError as error:
                self._break(key, known, f"no process can be started for it: {error}")
                continue
            self._builds.add(child)

    def _on_built(self, child: Build) -> None:
        """The child process has said its word, or none."""
        self._builds.discard(child)
        self._ended.append(child.process)
        known = self._known.get(child.key)
        if known is None or known.build is not child:
            _let_go(child.locks)  # nobody wants it any more
        else:
            known.build = None
            if child.setup is not None:
                self._is_ready(child.key, known, child.setup, child.locks)
            elif child.is_lost and known.lost < TRIES - 1:
                _let_go(child.locks)
                known.lost += 1
                self._waiting.append((child.key, child.record))
            else:
                _let_go(child.locks)
                self._break(child.key, known, child.why + self._end_of_log(child.key))
        self._build_next()

    def _is_ready(self, key: Key, known: Environment, setup: Setup, locks: list[int]) -> None:
        known.state = State.WARMING
        known.setup, known.packed, known.entries = setup, setup.pack(), locks
        # Where no template can be started now, the first executor that is asked for tries again.
        if not setup.needs_template or not self._warm(key, setup):
            self.is_up(key)

    def is_up(self, key: Key) -> None:
        """The template of an environment can fork executors."""
        known = self._known.get(key)
        if known is None or known.state is not State.WARMING:
            return
        known.state = State.READY
        known.since = time.monotonic()
        for lane in list(self._lanes.values()):
            if lane.key[1:] == key:
                # Not at once: who asks first is told by what this returns to.
                self._node.loop.add_callback(lambda lane=lane: self._serve(lane))  # type: ignore[misc]

    def _break(self, key: Key, known: Environment, why: str) -> None:
        _let_go(known.entries)
        if known.state in (State.READY, State.WARMING):
            self._cool(key)
        known.state, known.setup, known.entries = State.BROKEN, None, []
        known.since = time.monotonic()
        whose = self._node.config
        known.error = error = RuntimeEnvSetupError(f"{why}\n(node {whose.short_id}, {whose.name})")
        log.warning("environment %s cannot be set up: %s", key[1][1:].hex(), why.partition("\n")[0])
        self._node.loop.add_callback(lambda: self._fail(key, error))

    def _end_of_log(self, key: Key) -> str:
        path = self.log_of(key)
        if path is None:
            return ""
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LOG_BYTES))
                text = file.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""
        return f"\nThe end of its log, {path}:\n{text}" if text else ""

    # -- what goes -----------------------------------------------------------------------------------------------------

    def run_once(self) -> None:
        """Let go of what nobody uses; take more work where much waits for an environment."""
        if not self._known:
            return
        now = time.monotonic()
        self._ended = [process for process in self._ended if process.poll() is None]
        if now - self._more_at > _MORE_SECONDS and (self._builds or self._is_warming()):
            self._more_at = now
            classes = {lane.key[0] for lane in self._lanes.values() if lane.waiting and self.is_making(lane)}
            for resource_class in classes:
                self._take_more(resource_class)
        for key, known in list(self._known.items()):
            if known.state is State.BROKEN and now - known.since > REMEMBERED_SECONDS:
                del self._known[key]
            elif known.state is State.READY and now - known.since > IDLE_SECONDS:
                if self._is_used(key):
                    known.since = now
                else:
                    self._give_up(key, known)
            elif known.orphaned and known.state in (State.MAKING, State.WARMING) and not self._is_used(key):
                self._stop_making(key, known)
        self._bound_templates()

    def _stop_making(self, key: Key, known: Environment) -> None:
        """Nobody wants it any more; somebody may later, and then it is made."""
        if known.state is State.WARMING:
            self._give_up(key, known)
            return
        del self._known[key]
        if known.build is not None:
            known.build.end("its job has ended")

    def _is_warming(self) -> bool:
        return any(known.state is State.WARMING for known in self._known.values())

    def _bound_templates(self) -> None:
        """Of processes that nobody uses at the moment, keep a few: those that were used last."""
        known = [(key, each) for key, each in self._known.items() if each.setup is not None and each.setup.has_template]
        if len(known) <= TEMPLATES_IDLE:
            return
        unused = sorted(((key, each) for key, each in known if not self._is_used(key)), key=lambda pair: pair[1].since)
        for key, each in unused[: max(0, len(unused) - TEMPLATES_IDLE)]:
            self._give_up(key, each)

    def _is_used(self, key: Key) -> bool:
        return any(executor.key == key for executor in self._executors.values()) or any(
            lane.key[1:] == key and (lane.waiting or lane.starting) for lane in self._lanes.values()
        )

    def end_job(self, job: bytes) -> None:
        """A driver said goodbye: what was for its tasks alone is of no use, once they have ended.

        Detached work of its outlives it, and may wait for an environment yet.
        """
        for key, known in list(self._known.items()):
            if key[0] == job and known.state is State.READY:
                known.since = min(known.since, time.monotonic() - IDLE_SECONDS + 1.0)
            elif key[0] == job:
                known.orphaned = True

    def _give_up(self, key: Key, known: Environment) -> None:
        del self._known[key]
        self._cool(key)
        _let_go(known.entries)
        setup = known.setup
        names = [Path(path).name for path in (setup.path if setup is not None else ()) if OF_JOB in path]
        if names:
            self._sweep([name for name in names if name.startswith(OF_JOB)])

    def _sweep(self, names: list[str]) -> None:
        """Have entries removed that nobody will use again."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                process = _start(theirs, subprocess.DEVNULL)
            except OSError as error:
                log.warning("cannot remove what environments have left: %s", error)
                return
            ours.sendall(pack_message([{build.SWEEP: names}]))
            self._ended.append(process)

    def close(self) -> None:
        """End what is being made, and let go of the rest."""
        self._closed = True
        for child in list(self._builds):
            child.end("the node leaves")
        for known in self._known.values():
            _let_go(known.entries)
        self._known.clear()


class Build:
    """A child process that makes one environment ready.

    Args:
        node: whose it is.
        key: of the environment.
        record: of the environment.
        path: of its log, which begins anew.
        timeout: seconds that it may take; None for no limit.
        on_end: told when it has said its word or has ended.

    Attributes:
        setup: what it made; None if it failed, which `why` explains then.
        locks: descriptors that it handed over.
        is_lost: it ended without a word.
        record: the same.
    """

    def __init__(
        self,
        node: Node,
        key: Key,
        record: Record,
        path: Path,
        timeout: float | None,
        on_end: Callable[[Build], None],
    ) -> None:
        self.key = key
        self.record = record
        self.setup: Setup | None = None
        self.why = ""
        self.is_lost = False
        self.locks: list[int] = []
        self._node = node
        self._on_end = on_end
        self._over = False
        self._splitter = Splitter()
        ours, theirs = socket.socketpair()
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                self.process = _start(theirs, file)
            finally:
                os.close(file)
            theirs.close()
            endpoint = node.endpoint
            request = {
                "store_url": endpoint.store_url,
                "broker_url": endpoint.broker_url,
                "secrets": list(endpoint.secrets),
                "prefix": endpoint.prefix,
                "name": key[1][1:].hex(),
                "job": key[0],
                "record": record.pack(),
                "sites": node_sites(),
            }
            send_beside(ours, pack_message([request]))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._sock = ours
        node.loop.add_handler(ours.fileno(), self._on_event, node.loop.READ)
        if timeout is not None:
            node.loop.call_later(
                timeout, lambda: self.end(f"it was not set up within {timeout:g} s (config, setup_timeout_seconds)")
            )

    def _on_event(self, fd: int, events: int) -> None:
        try:
            data, locks, _, _ = socket.recv_fds(self._sock, 1 << 18, build.MOST_LOCKS)
        except OSError:
            data, locks = b"", []
        for lock in locks:
            os.set_inheritable(lock, False)
        self.locks += locks
        for message in self._splitter.feed(data):
            self._read(message)
            return
        if not data:
            self.is_lost = True
            self.end(f"the process that sets it up was killed, or failed without a word, {TRIES} times")

    def _read(self, message: list[Any]) -> None:
        word, said = message
        if word == build.READY:
            self.setup = Setup.unpack(said)
            self._finish()
        else:
            self.end(said)

    def end(self, why: str) -> None:
        """It is of no use, or of no use any more."""
        if self._over:
            return
        self.why = why
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with whatever it has started
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._node.loop.remove_handler(self._sock.fileno())
        self._sock.close()
        self._on_end(self)


def _start(link: socket.socket, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rabbitry_workers.environments", str(link.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(link.fileno(),),
        start_new_session=True,
    )


def setup_seconds(env: dict[str, Any]) -> float | None:
    """Return how long it may take to set an environment up; None for as long as it takes."""
    config = env.get("config")
    seconds = config.get("setup_timeout_seconds", TIMEOUT_SECONDS) if isinstance(config, dict) else TIMEOUT_SECONDS
    if not isinstance(seconds, (int, float)) or seconds != seconds:  # NaN would put the loop's timers out of order
        return TIMEOUT_SECONDS
    return None if seconds <= 0 else float(min(seconds, TIMEOUT_SECONDS_MAX))


def send_beside(sock: socket.socket, data: bytes) -> None:
    """Send what is first to be read at the other end, which may take its time: the loop does not wait for that.

    Nothing else may be sent before something came back. That the other end is gone, the read handler meets.
    """
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sent = sock.send(data, socket.MSG_DONTWAIT)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            threading.Thread(target=_send_rest, args=(sock, rest), name="rabbitry-tells", daemon=True).start()


def _send_rest(sock: socket.socket, rest: memoryview) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(rest)


def _let_go(locks: list[int]) -> None:
    for lock in locks:
        os.close(lock)
    locks.clear()
