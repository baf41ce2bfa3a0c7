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

from warren_broker.errors import ConnectError, ConnectionLost
from warren_broker.ids import CLIENT_BYTES, TASK_BYTES
from warren_broker.messages import Completion, MalformedMessage, decode_completion
from warren_broker.records import ERROR_TAG

if TYPE_CHECKING:
    from warren.client import Client
    from warren_broker.store.connection import Connection

KEY_POLL_SECONDS = 1.0
POP_COUNT = 64
KEYS_A_POLL = 2000

log = logging.getLogger("warren")


class Inbox:
    """Resolved values and the threads that wait for more. Any thread may call anything."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.values: dict[bytes, bytes] = {}
        self.new_errors: list[bytes] = []
        self.ended: set[bytes] = set()
        self._key = client.keys.inbox(client.id)
        self._leader = threading.Lock()
        self._changed = threading.Condition()
        self._followers = 0
        self._callbacks: dict[bytes, list[Callable[[], None]]] = {}
        self._subscribed: set[bytes] = set()
        self._connection: Connection | None = None
        self._resolver: threading.Thread | None = None
        self._closed = False

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], timeout: float | None) -> bool:
        """Wait until `done()` or for `timeout` seconds (None: for ever); True if done.

        `wanted()` lists the objects waited for, for the slow poll of their keys.
        """
        if done():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        poll_at = time.monotonic() + KEY_POLL_SECONDS
        while True:
            if self._leader.acquire(blocking=False):
                try:
                    while not done():
                        if self._closed:
                            return done()
                        now = time.monotonic()
                        left = KEY_POLL_SECONDS if deadline is None else deadline - now
                        if left <= 0:
                            return self._last_look(done, wanted)
                        if now >= poll_at:
                            self._poll_keys(wanted())
                            poll_at = now + KEY_POLL_SECONDS
                            continue
                        self._pump(min(left, KEY_POLL_SECONDS))
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
                    self._changed.wait(min(left, 0.05))
                finally:
                    self._followers -= 1
            if done():
                return True

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

    def wake(self) -> None:
        """Have waiting threads look again."""
        if self._followers:
            with self._changed:
                self._changed.notify_all()

    # -- Redis -------------------------------------------------------------------------------------------------------

    def _pump(self, timeout: float) -> None:
        """Pop completions, waiting up to `timeout` seconds for the first. Only the leader calls this."""
        connection = self._connection
        try:
            if connection is None:
                connection = self._client.store.open_connection("inbox")
                self._connection = connection
            entries = None
            if timeout <= 0 or self._client.in_flight > POP_COUNT:
                entries = connection.call(b"LPOP", self._key, POP_COUNT)
            if not entries and timeout > 0:
                reply = connection.call_blocking(b"BLPOP", self._key, f"{timeout:.3f}", timeout=timeout)
                entries = reply[1:] if reply else None
        except (ConnectionLost, ConnectError) as error:
            self._connection = None
            self._client.store_lost(error)
            return
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
        references = self._client.references
        counts, values = references.counts, self.values
        callbacks = self._callbacks
        items = completion.items
        tracked = self._client.actors.tracked
        streams = self._client.streams
        unheld = []
        for at in range(0, len(items), 2):
            object_id, record = items[at], items[at + 1]
            if object_id in counts:
                if object_id not in values:
                    values[object_id] = record
                    if record[0] == ERROR_TAG:
                        self.new_errors.append(object_id)
                    if callbacks and object_id in callbacks:
                        self._call(object_id)
            elif streams and object_id[:TASK_BYTES] in streams:
                values.setdefault(object_id, record)
            else:
                unheld.append(object_id)
            if references._pins:
                references.task_ended(object_id[:TASK_BYTES])
            if tracked:
                tracked.pop(object_id[:TASK_BYTES], None)
        if unheld:
            self._client.unheld(unheld)
        for task_id in completion.ended:
            references.task_ended(task_id)
            tracked.pop(task_id, None)
            self.ended.add(task_id)
        self._client.in_flight = max(0, self._client.in_flight - completion.tasks)

    def _call(self, object_id: bytes) -> None:
        for callback in self._callbacks.pop(object_id, ()):
            self._client.run_callback(callback)

    def _poll_keys(self, wanted: list[bytes]) -> None:
        """Look at the keys of objects that are waited for: correctness does not rest on notifications."""
        if not wanted:
            return
        wanted = wanted[:KEYS_A_POLL]
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
        """Ask to be told of foreign objects, and take the records of those that are there."""
        fresh = [object_id for object_id in object_ids if object_id not in self._subscribed]
        if not fresh:
            return
        records = self._client.store.subscribe(self._client.id, fresh)
        items: list[bytes] = []
        for object_id, record in zip(fresh, records, strict=True):
            if record is not None:
                items += (object_id, record)
            else:
                self._subscribed.add(object_id)
        if items:
            self.accept(Completion(b"", 0, 0.0, items))

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def when_ready(self, object_id: bytes, callback: Callable[[], None]) -> None:
        """Run `callback` on an internal thread once the object is here."""
        self._callbacks.setdefault(object_id, []).append(callback)
        if object_id in self.values:
            self._call(object_id)
            return
        if object_id[:CLIENT_BYTES] != self._client.id:
            self.subscribe([object_id])
        if self._resolver is None or not self._resolver.is_alive():
            self._resolver = threading.Thread(target=self._resolve, name="warren-resolver", daemon=True)
            self._resolver.start()

    def _resolve(self) -> None:
        """Body of the resolver thread: pump while callbacks are outstanding, end when idle for a while."""
        idle_since = time.monotonic()
        while not self._closed:
            if self._callbacks:
                idle_since = time.monotonic()
                self._client.outbox.flush()
                self.wait(lambda: not self._callbacks, lambda: list(self._callbacks), 1.0)
            elif time.monotonic() - idle_since > 5.0:
                return
            else:
                time.sleep(0.002)

    def close(self) -> None:
        """Wake every waiter; pump no more."""
        self._closed = True
        with self._changed:
            self._changed.notify_all()
