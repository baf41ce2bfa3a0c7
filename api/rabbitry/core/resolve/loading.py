"""From records to values: unpickled, put together from shared memory, or raised. HOT PATH."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from rabbitry.core.failures import store_full
from rabbitry.core.lives.references import References
from rabbitry.exceptions import ObjectLostError, load_task_error, unreadable
from rabbitry.hidden_frames import of_errors_of_tasks
from rabbitry_broker import records
from rabbitry_broker.records import CONTAINING_TAG, ERROR_TAG, LARGE_TAG, NONE_TAG, PLAIN_TAG
from rabbitry_broker.serialization import UnpickleError, unpack
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.store.copies import ObjectLost

__tracebackhide__ = of_errors_of_tasks


class LoadStore(Protocol):
    """What the store does for it; see `ObjectStore`."""

    def read_large(self, object_id: bytes, manifest: records.Manifest) -> Any:
        """Put a large value together."""

    def fetch(self, object_ids: Sequence[bytes]) -> list[bytes | None]:
        """Return the records of objects, None for those that are not there."""


class Loader:
    """Makes values of records. Any thread may use it.

    Args:
        store: has the large ones.
        references: its lock is held while a record is replaced.
        values: the records of resolved objects.
        read: hears which failures were read.
        settle: registers the refs that came with a value.
        bring_here: brings a large value to this host: (object, manifest).
    """

    def __init__(
        self,
        store: LoadStore,
        references: References,
        values: dict[bytes, bytes],
        *,
        read: Callable[[Iterable[bytes]], None],
        settle: Callable[[], None],
        bring_here: Callable[[bytes, records.Manifest], object],
    ) -> None:
        self._store = store
        self._references = references
        self._values = values
        self._read = read
        self._settle = settle
        self._bring_here = bring_here

    def load(self, key: bytes, record: bytes, *, settle: bool = True) -> Any:
        """Return the value of a record, or raise the error it holds.

        Args:
            key: the object.
            record: its record.
            settle: register at once what the value refers to; False if the object is held until a later `settle`.

        Raises:
            Whatever the task raised, as an instance of TaskError and of its own class.
            RabbitrySystemError: the value cannot be put together in this process.
            ObjectStoreFullError: it is on another host, and the store has no room for a copy.
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
                self._read((key,))
                raise load_task_error(record[1:])
            else:
                raise ValueError(f"object {key.hex()} has a record of unknown kind {record[:1]!r}")
        except UnpickleError as error:
            raise unreadable(error) from error
        if settle:
            self._settle()
        return value

    def _load_large(self, key: bytes, record: bytes) -> Any:
        try:
            return self._store.read_large(key, records.read_manifest(record))
        except ObjectStoreFull as error:
            raise store_full(error) from error
        except ObjectLost as error:
            # We may have been told of a result that lost against another run of its task, or that was freed since.
            (stands,) = self._store.fetch([key])
            if stands is None or stands == record:
                raise ObjectLostError(key.hex()) from error
        with self._references.lock:
            if key in self._values:
                self._values[key] = stands
        return self.load(key, stands)

    def bring_here(self, keys: Iterable[bytes]) -> None:
        """Have the large ones of resolved values on this host; one that is lost says so when it is read."""
        for key in keys:
            record = self._values.get(key)
            if record is not None and record[0] == LARGE_TAG:
                with suppress(ObjectLost, ObjectStoreFull):
                    self._bring_here(key, records.read_manifest(record))
