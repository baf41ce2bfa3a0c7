"""How results arrive: completions from the client's inbox, and the object keys themselves.

HOT PATH (`benchmarks/`: `sync`, `wait`, `async_*`). Completions are pushed onto one Redis list, the inbox. Whoever
waits in `get` or `wait` pops it himself: the first waiting thread becomes the *leader* and blocks in Redis; the others
sleep on a condition that the leader notifies. No thread stands between Redis and a lone caller. What this process
makes known itself (a cancellation, a failed call) wakes followers the same way, and a leader by an entry on the inbox.

A notification can be lost (a connection that breaks between pop and read). Nothing depends on it: every
`KEY_POLL_SECONDS` the leader looks at the object keys it waits for. That poll alone is enough to be correct.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from rabbitry.core.failures import orphan_record
from rabbitry.core.flight import Flight
from rabbitry.core.identity import Identity
from rabbitry.core.resolve.notes import WAKE
from rabbitry.core.resolve.values import Values
from rabbitry.exceptions import RabbitrySystemError
from rabbitry_broker.errors import (
    ConnectError,
    ConnectionLost,
    RabbitryBrokerError,
    StoreError,
    is_refused,
    is_wrong_type,
)
from rabbitry_broker.messages import Completion, MalformedMessage, decode_completion, encode_completion

KEY_POLL_SECONDS = 1.0  # the first look at the keys; each next one comes after twice the time
KEY_POLL_MAX_SECONDS = 8.0
POP_COUNT = 64
PAUSE_SHARE = 0.05  # of the time waited so far: so much later at most the end of a long wait is noticed
PAUSE_MIN_SECONDS = 0.0003
PAUSE_MAX_SECONDS = 0.005
LONG_PAUSE_SHARE = 0.01  # the same of waits of more than half a second
LONG_PAUSE_MAX_SECONDS = 0.05
LATE_SECONDS = 0.1  # that Redis would take by itself to end a wait
POPS_MANY = (7, 0)  # the first Redis that has BLMPOP
KEYS_A_POLL = 5000

log = logging.getLogger("rabbitry")


class InboxConnection(Protocol):
    """The leader's own connection."""

    @property
    def server_version(self) -> tuple[int, ...]:
        """Which Redis it is."""

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply."""

    def limit_replies(self, seconds: float) -> None:
        """Let the connection count as lost when a reply takes longer."""

    def call_blocking(self, *args: Any, timeout: float, on_late: Callable[[], object] | None = None) -> Any:
        """Run a command that may take `timeout` seconds; `on_late` is called if it takes longer."""

    def close(self) -> None:
        """Let go of the connection."""


class InboxStore(Protocol):
    """What the store does for an inbox; see `ObjectStore`."""

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply."""

    def open_connection(self, name: str) -> InboxConnection:
        """Open a connection of one's own."""

    def fetch(self, object_ids: Sequence[bytes]) -> list[bytes | None]:
        """Return the records of objects, None for those that are not there."""

    def subscribe(self, client: bytes, object_ids: Sequence[bytes]) -> tuple[list[bytes | None], list[bytes]]:
        """Like `fetch`, and tell this client of the others once they are there; also return those without owner."""

    def within(self, deadline: float | None) -> AbstractContextManager[None]:
        """Limit how long this thread waits for the server."""

    def reply_seconds(self, after: float = 0.0) -> float:
        """Return how long this thread may wait for a reply that is due in `after` seconds."""


class Inbox:
    """Reads the inbox and wakes those who wait. Any thread may call anything.

    Args:
        identity: whose inbox it is.
        store: where it is.
        values: what is known here.
        flight: what is in flight.
        register: makes the client known as alive: only who lives is told.
        known_here: tells whether this client is told of an object anyway.
        on_note: acts on entries that are no results.
        learn: takes the mean run time of a function's tasks.
        store_lost: waits a little for a store that does not answer.
        put_aside: keeps what is unreadable for the operator: (where, data, reason).

    Attributes:
        values: the records of resolved objects.
    """

    def __init__(
        self,
        identity: Identity,
        store: InboxStore,
        values: Values,
        flight: Flight,
        *,
        register: Callable[[], None],
        known_here: Callable[[bytes], bool],
        on_note: Callable[[Completion], None],
        learn: Callable[[bytes, float], None],
        store_lost: Callable[[Exception], None],
        put_aside: Callable[[str, bytes, str], None],
    ) -> None:
        self._id = identity.id
        self._signer = identity.signer
        self._keys = identity.keys
        self._key = identity.keys.inbox(identity.id)
        self._store = store
        self._known = values
        self._flight = flight
        self._register = register
        self._known_here = known_here
        self._on_note = on_note
        self._learn = learn
        self._store_lost = store_lost
        self._put_aside = put_aside
        self.values = values.records
        self.accept = values.accept  # `wake` comes after it
        self._leader = threading.Lock()
        self._changed = threading.Condition()
        self._followers = 0
        self._blocking = False  # the leader reads from Redis, or is about to
        self._connection: InboxConnection | None = None
        self._poll_from = 0
        self._gathered = False  # several completions may be there: not to be popped one by one
        self._more = False  # the last look took all it could at a time
        self._may_pop_many = True  # unless that is refused
        self._closed = False

    # -- waiting -----------------------------------------------------------------------------------------------------

    def become(self, client: bytes) -> None:
        """What it is for: `become` of the whole."""
        self._id = client
        self._key = self._keys.inbox(client)

    def wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], deadline: float | None) -> bool:
        """Wait until `done()` or `deadline` (monotonic; None: for ever), also while Redis is away; True if done.

        `wanted()` lists the objects waited for, for the slow poll of their keys.

        Raises:
            RabbitrySystemError: the session was shut down meanwhile.
        """
        if done():
            return True
        if deadline is None:
            return self._wait(done, wanted, None)
        try:
            with self._store.within(deadline):
                return self._wait(done, wanted, deadline)
        except RabbitryBrokerError:
            if time.monotonic() < deadline:
                raise
            return done()

    def _wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], deadline: float | None) -> bool:
        started = time.monotonic()
        poll_every = KEY_POLL_SECONDS
        poll_at = started + poll_every
        while True:
            if self._leader.acquire(blocking=False):
                try:
                    while True:
                        generation = self._known.generation
                        if done():
                            return True
                        if self._closed:
                            raise _ended()
                        now = time.monotonic()
                        left = KEY_POLL_MAX_SECONDS if deadline is None else deadline - now
                        if left <= 0:
                            return self._last_look(done, wanted)
                        if now >= poll_at:
                            self._poll_keys(wanted())
                            poll_every = min(2 * poll_every, KEY_POLL_MAX_SECONDS)
                            poll_at = now + poll_every
                            continue
                        exactly = deadline is not None and left <= poll_at - now
                        if self._pump(min(left, poll_at - now), generation, exactly=exactly) and not done():
                            self._let_gather(started, deadline)
                finally:
                    self._leader.release()
                    self.wake()
            with self._changed:
                self._followers += 1
                try:
                    if done():
                        return True
                    if self._closed:
                        raise _ended()
                    left = KEY_POLL_SECONDS if deadline is None else deadline - time.monotonic()
                    if left <= 0:
                        return False
                    # Who leads lets go first and looks for followers then: either it sees us, or we see that it let go.
                    if self._leader.locked():
                        self._changed.wait(min(left, 0.05))
                finally:
                    self._followers -= 1
            if done():
                return True

    def _let_gather(self, started: float, deadline: float | None) -> None:
        """Something came and more is waited for: let what comes next gather a little, if the wait is long anyway.

        Each look wakes this process, and takes its turn at Redis, while those work that are waited for.
        """
        if self._more:
            return
        now = time.monotonic()
        waited = now - started
        pause = max(
            min(PAUSE_SHARE * waited, PAUSE_MAX_SECONDS), min(LONG_PAUSE_SHARE * waited, LONG_PAUSE_MAX_SECONDS)
        )
        if deadline is not None:
            pause = min(pause, deadline - now)
        if pause > PAUSE_MIN_SECONDS and not self._followers and not self._known.callbacks:
            time.sleep(pause)
            self._gathered = True

    def _last_look(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]]) -> bool:
        """What is there already counts also with a timeout of 0."""
        self._pump(0.0)
        if not done():
            self._poll_keys(wanted())
        return done()

    def drain(self) -> bool:
        """Take what is on the inbox without waiting; False if another thread is at it, and nothing was done."""
        if not self._leader.acquire(blocking=False):
            return False
        try:
            if not self._closed:
                self._pump(0.0)
        finally:
            self._leader.release()
            self.wake()  # somebody may have found it led, and wait since
        return True

    def wake(self) -> None:
        """Have waiting threads look again: called by whoever made something known."""
        if self._followers:
            with self._changed:
                self._changed.notify_all()
        if self._blocking:
            self._call_leader()

    def look_again(self) -> None:
        """Have waiting threads look again, though no value is known that was not: another reason to wait is gone."""
        self._known.generation = object()
        self.wake()

    def _call_leader(self) -> None:
        """End the leader's wait for Redis.

        By an entry on its inbox: it cannot come too early, whereas CLIENT UNBLOCK would be lost then.
        """
        self._blocking = False  # one entry is enough
        entry = encode_completion(self._signer, self._id, Completion(b"", 0, 0.0, [], note=WAKE))
        try:
            self._store.call(b"LPUSH", self._key, entry)
        except RabbitryBrokerError as error:
            log.debug("a waiting thread was not woken, it looks again by itself: %s", error)

    # -- Redis -------------------------------------------------------------------------------------------------------

    def _pump(self, timeout: float, generation: object = None, *, exactly: bool = False) -> bool:
        """Pop completions, waiting up to `timeout` seconds for the first; True if some came. For the leader.

        Does not wait if something was made known since the `generation` that the leader saw when it looked last. By
        itself Redis ends a wait up to 0.1 s late; not so if it is to end `exactly` in time.
        """
        connection = self._connection
        try:
            if connection is None:
                connection = self._store.open_connection("inbox")
                self._connection = connection
            connection.limit_replies(self._store.reply_seconds(max(0.0, timeout)))
            entries = None
            many = self._may_pop_many and connection.server_version >= POPS_MANY
            if timeout <= 0 or self._more or (not many and (self._gathered or self._flight.count > POP_COUNT)):
                entries = connection.call(b"LPOP", self._key, POP_COUNT)
            self._gathered = False
            if not entries and timeout > 0:
                # First we say that we block, then we look; who makes something known does it, then looks if we block.
                self._blocking = True
                if self._known.generation is generation:
                    entries = self._pop_blocking(
                        connection, timeout, many=many, on_late=self._end_own_wait if exactly else None
                    )
                self._blocking = False
            self._more = entries is not None and len(entries) >= POP_COUNT
        except (ConnectionLost, ConnectError) as error:
            self._connection = None
            self._blocking = False
            self._store_lost(error)
            return False
        except StoreError as error:
            self._blocking = False
            if not is_wrong_type(error):
                raise
            # Somebody else wrote there. The results themselves are asked for from time to time.
            self._store.call(b"UNLINK", self._key)
            self._put_aside("inbox", b"", str(error))
            return False
        except BaseException:
            # Interrupted (Ctrl-C) with a reply outstanding: the connection cannot be used again.
            self._connection = None
            self._blocking = False
            if connection is not None:
                connection.close()
            raise
        if entries:
            for entry in entries:
                self._take(entry)
            self.wake()
        return bool(entries)

    def _end_own_wait(self) -> None:
        with self._store.within(time.monotonic() + LATE_SECONDS):
            self._call_leader()

    def _pop_blocking(
        self, connection: InboxConnection, timeout: float, *, many: bool, on_late: Callable[[], object] | None
    ) -> list[bytes] | None:
        """Wait up to `timeout` seconds for completions. Several at a time save a look that would often find nothing."""
        limit = f"{max(timeout, 0.001):.3f}"  # 0 would be for ever
        if many:
            try:
                reply = connection.call_blocking(
                    b"BLMPOP", limit, 1, self._key, b"LEFT", b"COUNT", POP_COUNT, timeout=timeout, on_late=on_late
                )
                return list(reply[1]) if reply else None
            except StoreError as error:
                if not is_refused(error):
                    raise
                self._may_pop_many = False  # rights of before
        reply = connection.call_blocking(b"BLPOP", self._key, limit, timeout=timeout, on_late=on_late)
        return list(reply[1:]) if reply else None

    def _take(self, entry: bytes) -> None:
        try:
            completion = decode_completion(self._signer, self._id, entry)
        except MalformedMessage as error:
            self._put_aside("inbox", entry, str(error))
            return
        if completion.note:
            with self._store.within(None):  # it was taken off the inbox: whoever waits meanwhile, it is heeded
                self._on_note(completion)
            return
        self.accept(completion)
        if completion.tasks and completion.function:
            self._learn(completion.function, completion.busy / completion.tasks)

    def look_for(self, keys: list[bytes]) -> None:
        """Look at the keys of objects that nobody waits for, and that somebody has to know of all the same."""
        self._poll_keys(keys)

    def _poll_keys(self, wanted: list[bytes]) -> None:
        """Look at the keys of objects that are waited for: correctness does not rest on notifications."""
        if not wanted:
            return
        if len(wanted) > KEYS_A_POLL:
            # Some now, others the next time.
            start = self._poll_from % len(wanted)
            self._poll_from = start + KEYS_A_POLL
            wanted = (wanted + wanted)[start : start + KEYS_A_POLL]
        try:
            records = self._store.fetch(wanted)
        except (ConnectionLost, ConnectError) as error:
            self._store_lost(error)
            return
        items: list[bytes] = []
        for object_id, record in zip(wanted, records, strict=True):
            if record is not None:
                items += (object_id, record)
        if items:
            self._known.accept_early(items)
            self.wake()

    def make_known(self, items: list[bytes], *, tasks: int = 0, ended: Sequence[bytes] = ()) -> None:
        """Make results known that this process found or made: (id, record, ...), and the ends of so many tasks."""
        self.accept(Completion(b"", tasks, 0.0, items, list(ended)))
        self.wake()

    def ended_here(self, task_ids: Sequence[bytes], items: list[bytes], *, untold: bool) -> None:
        """This process committed the ends of tasks; `untold` if nobody else can tell of other ends."""
        ended = list(task_ids)
        self.accept(Completion(b"", len(ended) if untold else 0, 0.0, items, ended))
        if not untold:
            self._known.count_early(ended)
        self.wake()

    def subscribe(self, object_ids: list[bytes], deadline: float | None = None) -> None:
        """Ask to be told of those objects that nobody tells us of anyway, and take the records that are there.

        Results of our own tasks come by themselves: they are left out. If Redis is away until `deadline` (monotonic),
        nothing is done: who waits looks for the objects himself.
        """
        known_here, subscribed = self._known_here, self._known.subscribed
        fresh = [key for key in object_ids if not known_here(key) and key not in subscribed]
        if not fresh:
            return
        try:
            with self._store.within(deadline):
                self._register()  # only who lives is told
                records, orphans = self._store.subscribe(self._id, fresh)
        except RabbitryBrokerError:
            if deadline is None or time.monotonic() < deadline:
                raise
            return
        gone = set(orphans)
        items: list[bytes] = []
        for key, record in zip(fresh, records, strict=True):
            if record is not None:
                items += (key, record)
            elif key in gone:
                items += (key, orphan_record(key))
            else:
                subscribed.add(key)
        if items:
            self.make_known(items)

    def forget(self, object_ids: Iterable[bytes]) -> None:
        """Nobody here waits for those foreign objects any more: their handles are gone."""
        if self._known.subscribed:
            self._known.subscribed.difference_update(object_ids)

    def close(self) -> None:
        """The session ends: whoever waits is told so."""
        self._closed = True
        self.look_again()


def _ended() -> RabbitrySystemError:
    return RabbitrySystemError("The session was shut down while this call waited.")
