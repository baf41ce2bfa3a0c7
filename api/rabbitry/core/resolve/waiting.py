"""`get` and `wait`: until results are here, or the time is up. HOT PATH (`benchmarks/`: `sync`, `wait`, `async_*`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from rabbitry.core.lives.references import References
from rabbitry.core.ports import Executing, Within
from rabbitry.core.resolve.remainder import Remainder
from rabbitry.core.resolve.values import Values
from rabbitry.exceptions import GetTimeoutError
from rabbitry.hidden_frames import of_errors_of_tasks
from rabbitry.object_ref import ObjectRef
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.records import ERROR_TAG
from rabbitry_broker.shared_memory import ObjectStoreFull

log = logging.getLogger("rabbitry")

__tracebackhide__ = of_errors_of_tasks


class Waits(Protocol):
    """Waits for objects; see `Inbox`."""

    def wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], deadline: float | None) -> bool:
        """Wait until `done()` or `deadline`; True if done."""

    def subscribe(self, object_ids: list[bytes], deadline: float | None = None) -> None:
        """Ask to be told of objects that nobody tells us of anyway."""


class Unread(Protocol):
    """Hears which failures were learnt of; see `UnhandledErrors`."""

    @property
    def unread(self) -> set[bytes]:
        """Failed results with handles, of which nobody has learnt."""

    def read(self, keys: Iterable[bytes]) -> None:
        """Somebody learnt of these failures."""


class Waiting:
    """Lets threads wait for objects. Any thread may call anything.

    Args:
        references: of this client's session.
        values: what is known here.
        inbox: waits for more.
        unread: hears what was learnt of.
        load: makes a value of (object, record), or raises its error.
        flush: sends all that waits to be sent.
        unsent: tells whether anything does.
        within: limits how long this thread waits for the store.
        kick: has the service thread send what was put off.
        executing: what an executor has to know of waits; None in drivers.

    Attributes:
        remainder: what `wait` left last; in drivers only, whose service thread sees to it.
    """

    def __init__(
        self,
        references: References,
        values: Values,
        inbox: Waits,
        *,
        unread: Unread,
        load: Callable[[bytes, bytes], Any],
        flush: Callable[[], None],
        unsent: Callable[[], object],
        within: Within,
        kick: Callable[[], None],
        executing: Executing | None = None,
    ) -> None:
        self._references = references
        self._known = values
        self._values = values.records
        self._inbox = inbox
        self._unread = unread
        self._load = load
        self._flush = flush
        self._unsent = unsent
        self._within = within
        self._kick = kick
        self._executing = executing
        self.remainder = Remainder()

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """Return the value of `ref`; see `rabbitry.get`. HOT PATH."""
        key = ref._id
        record = self._values.get(key)
        if record is None:
            self._check_session((ref,))
            self._await([key], timeout, 1)
            record = self._values[key]
        if record == b"N":
            return None
        return self._load(key, record)

    def get_many(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """Return the values of `refs`, in order; raises the first error found."""
        values = self._values
        missing = [ref._id for ref in refs if ref._id not in values]
        if missing:
            self._check_session(refs)
            self._await(missing, timeout, len(refs))
        load = self._load
        result = []
        for ref in refs:
            record = values[ref._id]
            result.append(None if record == b"N" else load(ref._id, record))
        return result

    def _check_session(self, refs: Sequence[ObjectRef[Any]]) -> None:
        """Nobody will ever tell us of objects of an earlier session.

        Raises:
            ValueError: one of the refs was made in one.
        """
        references = self._references
        for ref in refs:
            if ref._references is not references and ref._references is not None:
                raise ValueError(ref._unknown_here())

    def send_waiting(self, deadline: float | None = None) -> None:
        """Send what waits in the outbox before waiting for results; what finds no room is sent when there is some.

        Nor is it waited for beyond `deadline` (monotonic; None: for as long as the store's patience lasts).
        """
        if not self._unsent():
            return
        try:
            if deadline is None:
                self._flush()
            else:
                with self._within(deadline):
                    self._flush()
        except ObjectStoreFull as error:
            log.debug("tasks wait for room: %s", error)
            self._kick()
        except RabbitryBrokerError as error:
            if deadline is None or time.monotonic() < deadline:
                raise
            log.debug("what waits is sent later: %s", error)
            self._kick()

    def until(
        self,
        done: Callable[[], bool],
        wanted: Callable[[], list[bytes]],
        deadline: float | None,
        *,
        in_wait: bool = False,
    ) -> bool:
        """Wait as `Inbox.wait` does, and let the executor know meanwhile: its processor is free for others.

        Raises:
            KeyboardInterrupt: this is in an actor's call that was cancelled. As in Ray, nothing else interrupts one.
        """
        executing = self._executing
        if executing is None:
            return self._inbox.wait(done, wanted, deadline)
        in_vain = executing.in_vain
        executing.blocked(in_wait)
        try:
            ended = self._inbox.wait(lambda: done() or in_vain(), wanted, deadline)
        finally:
            executing.unblocked()
        if ended and in_vain() and not done():
            raise KeyboardInterrupt
        return ended

    def _await(self, missing: list[bytes], timeout: float | None, asked: int) -> None:
        """Wait until all of `missing` are here, or one of them turned out to be an error (which is raised)."""
        if len(missing) == 1:
            self._await_them(missing, timeout, asked, [])
            return
        errors: list[bytes] = []
        listeners = self._known.error_listeners
        with self._references.lock:
            listeners.append(errors)
        try:
            self._await_them(missing, timeout, asked, errors)
        finally:
            with self._references.lock:
                # By identity: two that wait may have been told the same.
                listeners[:] = [each for each in listeners if each is not errors]

    def _await_them(self, missing: list[bytes], timeout: float | None, asked: int, errors: list[bytes]) -> None:
        values = self._values
        deadline = None if timeout is None else time.monotonic() + timeout
        self.send_waiting(deadline)
        self._inbox.subscribe(missing, deadline)
        at = 0
        count = len(missing)
        failed: list[bytes] = []
        wanted: set[bytes] = set()
        # What came between the caller's look and our listening.
        errors += [key for key in missing if (values.get(key) or b"-")[0] == ERROR_TAG]

        def done() -> bool:
            nonlocal at
            if errors:
                if not wanted:
                    wanted.update(missing)
                failed.extend(key for key in errors if key in wanted)
                errors.clear()
            if failed:
                return True
            while at < count and missing[at] in values:
                at += 1
            return at == count

        if not done() and not self.until(done, lambda: [key for key in missing[at:] if key not in values], deadline):
            raise GetTimeoutError(
                "Get timed out: some object(s) not ready. "
                f"After {timeout} s, {sum(key not in values for key in missing)} of {asked} are missing."
            )
        if failed:
            self._load(failed[0], values[failed[0]])

    def wait(self, refs: list[Any], num_returns: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
        """Split `refs` (or generators of refs) into (ready, not ready); see `rabbitry.wait`. HOT PATH."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self.send_waiting(deadline)
        values = self._values

        def ready(ref: Any) -> bool:
            if type(ref) is ObjectRef:
                return ref._id in values
            return bool(ref._next_is_here())

        remainder = self.remainder
        plain = remainder.knows(refs) or all(type(ref) is ObjectRef for ref in refs)

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
                else:
                    keys += ref._wanted()
            return [key for key in keys if key not in values]

        if not done():
            self._inbox.subscribe(wanted(), deadline)
            if timeout == 0:
                self._inbox.wait(done, wanted, deadline)
            else:
                self.until(done, wanted, deadline, in_wait=True)
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
        if self._unread.unread:
            self._unread.read([ref._id for ref in is_ready if type(ref) is ObjectRef])
        if plain and self._executing is None:
            remainder.keep(not_ready)
        return is_ready, not_ready
