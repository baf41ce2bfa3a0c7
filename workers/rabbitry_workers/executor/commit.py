"""Committing results: gathered per owner, sent in one pipeline, settled later.

HOT PATH. A commit is sent and its replies are read at the next one (or when the executor has nothing to do), so user
code runs while Redis works. Only after the replies does the agent hear that tasks are done: a crash before that runs
them again, and the first result stands.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from rabbitry_broker import environment
from rabbitry_broker.errors import ConnectionLost, StoreError, anew, without_frames
from rabbitry_broker.events import RunTimes
from rabbitry_broker.ids import CLIENT_BYTES
from rabbitry_broker.messages import Completion, Task, encode_completion
from rabbitry_broker.store import scripts
from rabbitry_broker.store.results import NO_CONTINUATION, NOT_DURABLE, OWNER_GONE, PlainCommits
from rabbitry_broker.store.server import Connection, Script, takes_no_writes
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.channel import DONE, DONE_SET, BlockingChannel
from rabbitry_workers.executor.streams import flusher
from rabbitry_workers.slices import SLICE_RESULTS, in_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rabbitry_broker.store.specs import Dependant
    from rabbitry_workers.executor.continuing import Continuing

COMMIT_PATIENCE_SECONDS = 60.0
QUIET_LOOKS = 3  # of the flusher, with nothing to do and no commit in between, before it sleeps
FLUSH_SECONDS = 0.01  # results that were not committed for one to two of these are, whatever user code does
FULL_RETRY_SECONDS = 0.2
COMMIT_TASKS = 100
COMMIT_BYTES = 512 * 1024
WAITED_SECONDS = 1.0  # so long after somebody waited for results of an owner, somebody may wait for others
WAITED_KEPT = 256  # owners
REPLICAS_SECONDS = 1.0  # whoever waits for a result looks at its key after that time
REPLICAS_SECONDS_MAX = 25.0  # a reply that takes longer counts as lost
REPLICAS_TOLD_SECONDS = 30.0  # between two warnings that replicas are not there

log = logging.getLogger("rabbitry.executor")

# (header bytes, task, the note that its result ends: spec, tag and suffix of what released it)
Continuation = tuple[bytes, Task, tuple[bytes, bytes, bytes]]


@functools.cache
def replicas_seconds() -> float:
    """Return how long a commit waits for replicas.

    Raises:
        ValueError: the variable holds no such number.
    """
    seconds = environment.number("RABBITRY_REPLICAS_TIMEOUT", float, REPLICAS_SECONDS, unit="seconds", least=0.001)
    return min(seconds, REPLICAS_SECONDS_MAX)


class Results:
    """What finished calls of one owner leave to be committed."""

    __slots__ = ("busy", "bytes", "ended", "function", "items", "prepared", "tasks")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.prepared: list[tuple[bytes, bytes]] = []  # those items that have buffers or refs of their own
        self.ended: list[bytes] = []
        self.function = b""
        self.tasks = 0
        self.busy = 0.0
        self.bytes = 0

    def merge(self, other: Results) -> None:
        """Take what another one gathered."""
        self.items += other.items
        self.prepared += other.prepared
        self.ended += other.ended
        self.tasks += other.tasks
        self.busy += other.busy
        self.bytes += other.bytes
        self.function = other.function


def _by_tag(gathered: dict[bytes, Results]) -> Iterator[tuple[bytes, Results]]:
    """Yield (owner, results): those of detached tasks, which lie under another tag, apart from the owner's others."""
    for owner, results in gathered.items():
        tags = {key[:CLIENT_BYTES] for key in results.items[::2]}
        if len(tags) < 2:
            yield owner, results
            continue
        for tag in tags:
            part = Results()
            for at in range(0, len(results.items), 2):
                if results.items[at][:CLIENT_BYTES] == tag:
                    part.items += results.items[at : at + 2]
            part.prepared = [each for each in results.prepared if each[0][:CLIENT_BYTES] == tag]
            part.function, part.busy = results.function, results.busy / len(tags)
            if tag == owner:
                part.ended = results.ended
                part.tasks = results.tasks
            yield owner, part


def _sliced(results: Results) -> Iterator[Results]:
    """Yield results in parts that Redis commits in milliseconds each; tasks count as ended with the last."""
    if len(results.items) <= 2 * SLICE_RESULTS:
        yield results
        return
    prepared = {each[0]: each for each in results.prepared}
    slices = list(in_slices(results.items))
    for number, items in enumerate(slices, 1):
        part = Results()
        part.items = items
        part.prepared = [prepared[key] for key in items[::2] if key in prepared] if prepared else []
        part.function = results.function
        if number == len(slices):
            part.ended, part.tasks, part.busy = results.ended, results.tasks, results.busy
        yield part


class Fenced(Exception):
    """A later process of this actor lives, or this one counts as dead: nothing of it counts any more."""


class Committer:
    """Gathers results and commits them. Any thread may call it; it locks itself.

    Args:
        store: where objects go.
        channel: to the agent; what is left to publish goes there with DONE.
        client: in whose name results are prepared.
        node: the node, where continuations are noted.
    """

    def __init__(self, store: ObjectStore, channel: BlockingChannel, client: bytes, node: bytes | None = None) -> None:
        self._store = store
        self._client = client
        self._channel = channel
        self.lock = threading.RLock()
        self.gathered: dict[bytes, Results] = {}
        self.tasks = 0
        self.bytes = 0
        self.upto = 0
        self.sequences: list[int] | None = None  # of finished calls, for actors (they may finish in any order)
        self.retries: list[tuple[int, Task]] = []
        self.times = RunTimes()  # of what was gathered, for events
        self.state: Callable[[], tuple[bytes, bytes, bytes, bytes]] | None = None
        self.replicas = 0  # that must have a commit before anybody is told of it
        self.announce: tuple[bytes, int, int] | None = None  # for `actor_alive.lua`, before results
        self._announcing = False  # it was sent; its reply comes first
        self._told_of_replicas = -REPLICAS_TOLD_SECONDS
        self.continuing: Continuing | None = None
        self._continuation: Continuation | None = None  # to be run next; the agent knows of it
        self.ends = NO_CONTINUATION  # what was gathered has the result of this continuation
        self._continuations = b"" if node is None else store.keys.continuations(node)
        self._connection: Connection | None = None
        self._unopened: Connection | None = None
        self._script: Script | None = None
        self._plain: PlainCommits | None = None
        self._alive: Script | None = None
        self._owed: list[int] = []  # of each commit that was sent: how many replies to a plain one; 0 for commit.lua
        self._waited: dict[bytes, float] = {}  # owners of whose results some were waited for -> until when that counts
        self._sent: list[tuple[bytes, Results, bytes, list[bytes]]] | None = None
        self._sent_done: tuple[Any, ...] = ()
        self._commits = 0
        self._flushing = False  # the flusher looks every `FLUSH_SECONDS`
        self._flusher: threading.Thread | None = None
        self._flush_wanted = threading.Event()
        self._failure: BaseException | None = None  # no commit after it: this process has lost results

    def become(self, client: bytes) -> None:
        """Prepare results in the name of this client; before the first of them."""
        self._client = client

    def prepare(self) -> None:
        """Make all of the connection but its socket: it is opened in a process forked from this one."""
        self._unopened = self._store.server.unopened("commit")
        self._use(self._unopened)

    def _open(self) -> Connection:
        connection, self._unopened = self._unopened, None
        if connection is None:
            connection = self._store.open_connection("commit")
            self._use(connection)
        else:
            connection.reopen()
        return connection

    def _use(self, connection: Connection) -> None:
        self._script = connection.script(scripts.source_of("commit"))
        self._plain = PlainCommits(connection)
        self._alive = connection.script(scripts.source_of("actor_alive"))

    def of(self, owner: bytes) -> Results:
        """Return where results for `owner` gather."""
        results = self.gathered.get(owner)
        if results is None:
            results = self.gathered[owner] = Results()
        return results

    def take_continuation(self) -> Continuation | None:
        """Return what is to be run next, once."""
        continuation, self._continuation = self._continuation, None
        return continuation

    def full(self) -> bool:
        """True if what was gathered should be committed without waiting for more."""
        return self.tasks >= COMMIT_TASKS or self.bytes > COMMIT_BYTES

    @property
    def pending(self) -> bool:
        """True if results are gathered, or sent and the agent does not know of it yet."""
        return bool(self.tasks or self._sent is not None or self.retries or self.gathered)

    def before_user_code(self) -> None:
        """See to it that what is finished does not wait for what runs next, which may take long. HOT PATH.

        Not for durable actors: their state is committed with their results, and must not be seen half changed.
        """
        if not self._flushing and self.state is None and self.pending:
            self._flushing = True
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush, name="rabbitry-flusher", daemon=True)
                self._flusher.start()
            self._flush_wanted.set()

    def _flush(self) -> None:
        """Body of the flusher: asleep unless results gather while user code runs, or did a moment ago.

        To wake it for each call would take it, and the interpreter, from the thread that is to run the call.
        """
        seen = -1
        looked_at, quiet = -1, 0  # commits at the last look; looks in a row at which there was nothing to do
        while True:
            self._flush_wanted.wait()
            time.sleep(FLUSH_SECONDS)
            with self.lock:
                if not self.pending:
                    quiet = quiet + 1 if self._commits == looked_at else 0
                    looked_at = self._commits
                    if quiet >= QUIET_LOOKS:
                        self._flush_wanted.clear()
                        self._flushing = False
                    continue
                if self._commits == seen:
                    try:
                        self.commit(last=True)
                    except BaseException as error:
                        self._failure = error
                        return
                seen = self._commits

    def commit(self, *, last: bool, offer: str = "") -> None:
        """Send what was gathered.

        Args:
            last: also wait for the replies and tell the agent.
            offer: a queue of which one released task may be handed over, see `take_continuation` (with `last` only).

        Raises:
            Fenced: nothing of this process counts any more.
            StoreError: Redis did not take it within `COMMIT_PATIENCE_SECONDS`.
        """
        if flusher.pending:
            flusher.end()  # before others see that it has ended
        with self.lock:
            if self._failure is not None:
                raise self._failure
            self._commits += 1
            try:
                self._commit(last=last, offer=offer)
            except Exception as error:
                # What was gathered or sent is lost to this process, whoever catches this (a generator's user, say): no
                # later commit may tell the agent that it is done.
                self._failure = error
                raise

    def _commit(self, *, last: bool, offer: str) -> None:
        if self._sent is not None:
            self._settle()
        if not self.gathered and not self.tasks and not self.retries and not self.sequences:
            return
        gathered, self.gathered = self.gathered, {}
        self._sent_done = (self.upto, self.tasks, sum([each.busy for each in gathered.values()]), self.retries)
        sequences = self.sequences
        if sequences is not None:
            self.sequences = []
        self._sent_done += (sequences, self.times.take())
        self.tasks = self.bytes = 0
        self.retries = []
        self._sent = []
        parts = [each for each in _by_tag(gathered) if each[1].items or each[1].ended]
        if self.state is None:  # a durable actor's results and state are one step
            parts = [(owner, part) for owner, results in parts for part in _sliced(results)]
        ends, self.ends = self.ends, NO_CONTINUATION
        for at, (owner, results) in enumerate(parts, 1):
            completion = Completion(results.function, results.tasks, results.busy, results.items, results.ended)
            entry = encode_completion(self._store.signer, owner, completion)
            arguments = self._arguments(
                owner,
                results,
                entry,
                offer if at == 1 else "",
                # The note goes with the last of them: the continuation's own result is not behind it.
                ends if at == len(parts) else NO_CONTINUATION,
            )
            self._sent.append((owner, results, entry, arguments))
        if self._sent:
            self._send([(owner, arguments) for owner, *_, arguments in self._sent])
        if last:
            self._settle()

    def _arguments(
        self, owner: bytes, results: Results, entry: bytes, offer: str, ends: tuple[bytes, bytes, bytes]
    ) -> list[bytes]:
        items = results.items
        preparer = self._client if results.prepared else b""
        durable = self.state() if self.state is not None else NOT_DURABLE
        detached = items and items[0][:CLIENT_BYTES] != owner
        return self._store.commit_arguments(
            items[0][:CLIENT_BYTES] if detached else owner,
            items,
            # Results of detached tasks lie under another tag than the owner's inbox: it is told in a second step. So
            # it is of what replicas must have first.
            b"" if detached or self.replicas else entry,
            require_owner=not detached,
            durable=durable,
            preparer=preparer,
            to_run=offer,
            continuations=self._continuations,
            ends=ends,
        )

    def _send(self, commits: list[tuple[bytes, list[bytes]]], *, plain: bool = True) -> None:
        """Send commits (owner, arguments of `commit.lua`); what can be plain is, unless it was that before."""
        try:
            connection = self._connection
            if connection is None or connection.closed:
                connection = self._connection = self._open()
            assert self._script is not None
            assert self._plain is not None
            plain = plain and self.state is None and not self.replicas
            self._owed = []
            commands: list[tuple[Any, ...]] = []
            self._announcing = self.announce is not None
            if self.announce is not None:
                assert self._alive is not None
                commands.append(self._alive.command((), self.announce))
            for owner, arguments in commits:
                if plain and self._plain.takes(arguments) and not self._is_waited_for(owner):
                    cheap = self._plain.commands(arguments)
                    self._owed.append(len(cheap))
                    commands += cheap
                else:
                    self._owed.append(0)
                    commands.append(self._script.command((), arguments))
            if self.replicas:
                commands.append((b"WAIT", self.replicas, round(1000 * replicas_seconds())))
            connection.send_many(commands)
        except (ConnectionLost, ConnectionError):
            self._connection = None  # `_replies` sends them again

    def _is_waited_for(self, owner: bytes) -> bool:
        """True if somebody waited for results of an owner lately: a plain commit would be one for nothing."""
        until = self._waited.get(owner)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._waited[owner]
        return False

    def _is_waited_for_now(self, owner: bytes) -> None:
        if len(self._waited) >= WAITED_KEPT:
            self._waited.clear()
        self._waited[owner] = time.monotonic() + WAITED_SECONDS

    def _settle(self) -> None:
        """Read the replies of the commit under way, do what they leave to do, tell the agent."""
        sent, self._sent = self._sent, None
        assert sent is not None
        dependants: list[Any] = []
        continuation: list[Any] | None = None
        store = self._store
        if sent:
            for (owner, results, entry, _), left in zip(sent, self._replies(sent), strict=True):
                items = results.items
                if left and left[0] == -2:
                    raise Fenced
                tag_owner = items[0][:CLIENT_BYTES] if items else owner
                if tag_owner != owner or (self.replicas and not (left and left[0] == OWNER_GONE)):
                    store.tell(owner, entry)
                lost: list[bytes] = []
                if left and left[0] == OWNER_GONE:
                    lost = items[::2]  # nobody is there to have them
                elif left:
                    publish, tell, lost, to_run = store.left_to_do(tag_owner, left)
                    dependants += [list(each) for each in publish]
                    if to_run is not None:
                        continuation = self._continue(to_run)
                        if continuation is None:
                            dependants.append(list(to_run))
                    for client, suffix in tell:
                        self._tell(client, tag_owner + suffix, items)
                if results.prepared:
                    store.lives.settle(self._client, results.prepared, lost)
        upto, tasks, busy, retries, sequences, times = self._sent_done
        if sequences is not None:
            if sequences or retries:
                self._channel.send([DONE_SET, sequences, tasks, busy, retries, dependants, *times])
        elif tasks or retries:
            self._channel.send([DONE, upto, tasks, busy, retries, dependants, continuation, *times])

    def _continue(self, released: Dependant) -> list[Any] | None:
        """Note what is to be run next; return what the agent is told of it, None if it cannot be run here."""
        assert self.continuing is not None
        spec, frame, queue, _, tag, suffix = released
        read = self.continuing.read(frame)
        if read is None:
            return None
        self._continuation = (*read, (spec, tag, suffix))
        return [spec, queue, tag, suffix, *read]

    def _replies(self, sent: list[tuple[bytes, Results, bytes, list[bytes]]]) -> list[list[Any]]:
        """Return the replies; after a lost connection all are committed again (a commit may run twice)."""
        deadline = time.monotonic() + COMMIT_PATIENCE_SECONDS
        commits = [(owner, arguments) for owner, *_, arguments in sent]
        while True:
            try:
                if self._connection is None:
                    self._send(commits, plain=False)
                if self._connection is None:
                    raise ConnectionLost("Redis cannot be reached")
                replies, full = self._read(self._connection, self._owed)
                left = [at for at, reply in enumerate(replies) if reply is None]
                if left and full is None:
                    # These were more than plain: the whole of it for them.
                    self._send([commits[at] for at in left], plain=False)
                    if self._connection is None:
                        raise ConnectionLost("Redis cannot be reached")
                    again, full = self._read(self._connection, self._owed)
                    for at, reply in zip(left, again, strict=False):
                        self._is_waited_for_now(commits[at][0])
                        replies[at] = reply
                if full is None:
                    return [reply or [] for reply in replies]
                if time.monotonic() > deadline:
                    raise anew(full)
                # Redis takes no writes now (nothing of that script ran), or forgot the script: again. Closed at once:
                # Redis keeps buffers as large as the command for the connection, which may be all the room there is.
                self._connection.close()
                self._connection = None
                time.sleep(FULL_RETRY_SECONDS)
            except (ConnectionLost, ConnectionError) as error:
                self._connection = None
                if time.monotonic() > deadline:
                    raise StoreError(f"results could not be committed: {error}") from error
                time.sleep(0.05)

    def _read(self, connection: Connection, owed: list[int]) -> tuple[list[list[Any] | None], StoreError | None]:
        """Return the reply to each commit (None: it was more than plain), and an error that may be over soon."""
        replies: list[list[Any] | None] = []
        full: StoreError | None = None
        if self._announcing:
            self._announcing = False
            try:
                connection.read()
            except ConnectionLost:
                raise
            except StoreError:
                pass  # the node says it, too
            self.announce = None
        for plain in owed:
            if plain:
                assert self._plain is not None
                replies.append([] if self._plain.read(plain) else None)
                continue
            try:
                replies.append(connection.read())
            except ConnectionLost:
                raise
            except StoreError as error:
                if "OOM" not in str(error) and "NOSCRIPT" not in str(error) and not takes_no_writes(error):
                    raise
                full = without_frames(error)
        if self.replicas:
            self._look_at_replicas(connection.read())
        return replies, full

    def _look_at_replicas(self, have: int) -> None:
        """So many replicas have what was committed. Too few: callers are told all the same, and people now and then."""
        if have < self.replicas and time.monotonic() - self._told_of_replicas > REPLICAS_TOLD_SECONDS:
            self._told_of_replicas = time.monotonic()
            log.warning(
                "%d of %d replicas of Redis had what calls did within %g s: if its master is lost now, so is that",
                have,
                self.replicas,
                replicas_seconds(),
            )

    def _tell(self, client: bytes, key: bytes, items: list[bytes]) -> None:
        """Give a record to a client that waits for an object it does not own."""
        for at in range(0, len(items), 2):
            if items[at] == key:
                completion = Completion(b"", 0, 0.0, [key, items[at + 1]])
                self._store.tell(client, encode_completion(self._store.signer, client, completion))
