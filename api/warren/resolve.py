"""How refs resolve: completions from the client's inbox, and the object keys themselves.

HOT PATH (`benchmarks/`: `sync`, `wait`, `async_*`). Completions are pushed onto one Redis list, the inbox. Whoever
waits in `get` or `wait` pops it himself: the first waiting thread becomes the *leader* and blocks in Redis; the others
sleep on a condition that the leader notifies. No thread stands between Redis and a lone caller.

A notification can be lost (a connection that breaks between pop and read). Nothing depends on it: every
`KEY_POLL_SECONDS` the leader looks at the object keys it waits for. That poll alone is enough to be correct.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from warren.lifetimes import orphan_record
from warren.streams import stream_pin
from warren_broker.errors import ConnectError, ConnectionLost, StoreError, is_wrong_type
from warren_broker.ids import TASK_BYTES
from warren_broker.messages import Completion, MalformedMessage, decode_completion
from warren_broker.records import ERROR_TAG

if TYPE_CHECKING:
    from warren.client import Client
    from warren_broker.store.connection import Connection

KEY_POLL_SECONDS = 1.0  # the first look at the keys; each next one comes after twice the time
KEY_POLL_MAX_SECONDS = 8.0
RESOLVER_IDLE_SECONDS = 5.0  # without a callback to wait for, then its thread ends
POP_COUNT = 64
PAUSE_SHARE = 0.05  # of the time waited so far: so much later at most the end of a long wait is noticed
PAUSE_MIN_SECONDS = 0.0003
PAUSE_MAX_SECONDS = 0.005
KEYS_A_POLL = 5000

log = logging.getLogger("warren")


class Inbox:
    """Resolved values and the threads that wait for more. Any thread may call anything."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.values: dict[bytes, bytes] = {}
        self.new_errors: list[bytes] = []
        self._key = client.keys.inbox(client.id)
        self._leader = threading.Lock()
        self._changed = threading.Condition()
        self._followers = 0
        self._callbacks: dict[bytes, list[Callable[[], None]]] = {}
        self._subscribed: set[bytes] = set()
        self._connection: Connection | None = None
        self._resolver: threading.Thread | None = None
        self._resolver_lock = threading.Lock()
        self._callback_came = threading.Event()
        self._poll_from = 0
        self._gathered = False  # several completions may be there: not to be popped one by one
        self._closed = False

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], timeout: float | None) -> bool:
        """Wait until `done()` or for `timeout` seconds (None: for ever); True if done.

        `wanted()` lists the objects waited for, for the slow poll of their keys.
        """
        if done():
            return True
        started = time.monotonic()
        deadline = None if timeout is None else started + timeout
        poll_every = KEY_POLL_SECONDS
        poll_at = started + poll_every
        while True:
            if self._leader.acquire(blocking=False):
                try:
                    while not done():
                        if self._closed:
                            return done()
                        now = time.monotonic()
                        left = KEY_POLL_MAX_SECONDS if deadline is None else deadline - now
                        if left <= 0:
                            return self._last_look(done, wanted)
                        if now >= poll_at:
                            self._poll_keys(wanted())
                            poll_every = min(2 * poll_every, KEY_POLL_MAX_SECONDS)
                            poll_at = now + poll_every
                            continue
                        if self._pump(min(left, poll_at - now)) and not done():
                            self._let_gather(started, deadline)
                    return True
                finally:
                    self._leader.release()
                    self.wake()
            with self._changed:
                self._followers += 1
                try:
                    if done():
                        return True
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
        now = time.monotonic()
        pause = min(PAUSE_SHARE * (now - started), PAUSE_MAX_SECONDS)
        if deadline is not None:
            pause = min(pause, deadline - now)
        if pause > PAUSE_MIN_SECONDS and not self._followers and not self._callbacks:
            time.sleep(pause)
            self._gathered = True

    def _last_look(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]]) -> bool:
        """What is there already counts also with a timeout of 0."""
        self._pump(0.0)
        if not done():
            self._poll_keys(wanted())
        return done()

    def drain(self) -> None:
        """Take what is on the inbox without waiting, if no other thread is at it."""
        if self._leader.acquire(blocking=False):
            try:
                if not self._closed:
                    self._pump(0.0)
            finally:
                self._leader.release()
                self.wake()  # somebody may have found it led, and wait since

    def wake(self) -> None:
        """Have waiting threads look again."""
        if self._followers:
            with self._changed:
                self._changed.notify_all()

    # -- Redis -------------------------------------------------------------------------------------------------------

    def _pump(self, timeout: float) -> bool:
        """Pop completions, waiting up to `timeout` seconds for the first; True if some came. For the leader."""
        connection = self._connection
        try:
            if connection is None:
                connection = self._client.store.open_connection("inbox")
                self._connection = connection
            entries = None
            if timeout <= 0 or self._gathered or self._client.in_flight > POP_COUNT:
                self._gathered = False
                entries = connection.call(b"LPOP", self._key, POP_COUNT)
            if not entries and timeout > 0:
                reply = connection.call_blocking(b"BLPOP", self._key, f"{timeout:.3f}", timeout=timeout)
                entries = reply[1:] if reply else None
        except (ConnectionLost, ConnectError) as error:
            self._connection = None
            self._client.store_lost(error)
            return False
        except StoreError as error:
            if not is_wrong_type(error):
                raise
            # Somebody else wrote there. The results themselves are asked for from time to time.
            self._client.store.call(b"UNLINK", self._key)
            self._client.put_aside("inbox", b"", str(error))
            return False
        except BaseException:
            # Interrupted (Ctrl-C) with a reply outstanding: the connection cannot be used again.
            self._connection = None
            if connection is not None:
                connection.close()
            raise
        if entries:
            for entry in entries:
                self._take(entry)
            self.wake()
        return bool(entries)

    def _take(self, entry: bytes) -> None:
        client = self._client
        try:
            completion = decode_completion(client.signer, client.id, entry)
        except MalformedMessage as error:
            client.put_aside("inbox", entry, str(error))
            return
        if completion.note:
            client.on_note(completion)
            return
        self.accept(completion)
        if completion.tasks and completion.function:
            client.learn(completion.function, completion.busy / completion.tasks)

    def accept(self, completion: Completion) -> None:
        """Make the results of a completion known here."""
        client = self._client
        references, streams = client.references, client.streams
        counts, values, callbacks = references.counts, self.values, self._callbacks
        tracked, unheld = client.actors.tracked, client.lifetimes.unheld
        any_unheld = False
        items = completion.items
        awaited: list[bytes] = []
        # Nobody collects between our looking whether an object has handles and keeping its value.
        with references.lock:
            for at in range(0, len(items), 2):
                key, record = items[at], items[at + 1]
                if key in counts:
                    if key not in values:
                        values[key] = record
                        if record[0] == ERROR_TAG:
                            self.new_errors.append(key)
                        if callbacks and key in callbacks:
                            awaited.append(key)
                else:
                    stream = streams.get(key[:TASK_BYTES]) if streams else None
                    if stream is None or not stream.take(key, record, values):
                        unheld(key, record)
                        any_unheld = True
                if references._pins:
                    references.unpin(key[:TASK_BYTES])
                if tracked:
                    tracked.pop(key[:TASK_BYTES], None)
        if self._subscribed:
            self._subscribed.difference_update(items[::2])
        for task_id in completion.ended:
            references.unpin(task_id)
            references.unpin(stream_pin(task_id))
            tracked.pop(task_id, None)
            if task_id in streams:
                streams[task_id].ended = True
        client.in_flight = max(0, client.in_flight - completion.tasks)
        if any_unheld:
            client.kick()
        for key in awaited:
            self._call(key)

    def _call(self, object_id: bytes) -> None:
        for callback in self._callbacks.pop(object_id, ()):
            self._client.run_callback(callback)

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
            records = self._client.store.fetch(wanted)
        except (ConnectionLost, ConnectError) as error:
            self._client.store_lost(error)
            return
        items: list[bytes] = []
        for object_id, record in zip(wanted, records, strict=True):
            if record is not None:
                items += (object_id, record)
        if items:
            ended = len({item[:TASK_BYTES] for item in items[::2] if self._client.references.owns(item)})
            self.accept(Completion(b"", ended, 0.0, items))
            self.wake()

    def subscribe(self, object_ids: list[bytes]) -> None:
        """Ask to be told of those objects that nobody tells us of anyway, and take the records that are there.

        Results of our own tasks come by themselves: they are left out.
        """
        client = self._client
        known_here, subscribed = client.lifetimes.known_here, self._subscribed
        fresh = [key for key in object_ids if not known_here(key) and key not in subscribed]
        if not fresh:
            return
        client.register()  # only who lives is told
        records, orphans = client.store.subscribe(client.id, fresh)
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
            self.accept(Completion(b"", 0, 0.0, items))

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def when_ready(self, object_id: bytes, callback: Callable[[], None]) -> None:
        """Run `callback` on an internal thread once the object is here."""
        self._callbacks.setdefault(object_id, []).append(callback)
        if object_id in self.values:
            self._call(object_id)
            return
        self.subscribe([object_id])
        with self._resolver_lock:
            self._callback_came.set()
            if self._resolver is None:
                self._resolver = threading.Thread(target=self._resolve, name="warren-resolver", daemon=True)
                self._resolver.start()

    def _resolve(self) -> None:
        """Body of the resolver thread: pump while callbacks are outstanding, end when idle for a while."""
        while not self._closed:
            if self._callbacks:
                self._client.outbox.flush()
                self.wait(lambda: not self._callbacks, lambda: list(self._callbacks), 1.0)
                continue
            self._callback_came.clear()
            if self._callbacks or self._callback_came.wait(RESOLVER_IDLE_SECONDS):
                continue
            with self._resolver_lock:
                if not self._callbacks:
                    self._resolver = None
                    return

    def close(self) -> None:
        """Wake every waiter; pump no more."""
        self._closed = True
        self._callback_came.set()
        with self._changed:
            self._changed.notify_all()
