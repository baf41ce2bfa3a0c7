"""Writing the buffers of large values, to where there is room.

HOT PATH (`benchmarks/`: `put_64mib`, `task_8mib_result`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from rabbitry_broker import records
from rabbitry_broker.errors import anew, without_frames
from rabbitry_broker.serialization import Packed
from rabbitry_broker.shared_memory import ObjectStoreFull, flat
from rabbitry_broker.store import spill
from rabbitry_broker.store.chunks import count_of
from rabbitry_broker.store.large.places import Places
from rabbitry_broker.store.large.tokens import digest_of, new_token
from rabbitry_broker.store.room import patience_seconds

log = logging.getLogger("rabbitry")

COPIES_VARIABLE: Final = "RABBITRY_VALUE_COPIES"
LAZY, EAGER = "lazy", "eager"


class Writing:
    """Writes the buffers of large values. Any thread may call anything.

    Args:
        places: where they may be.
        on_full: called while the limit of shared memory is reached: lets go of what was dropped here.
        eager: on the cluster engine, write values to Redis at once; None for what RABBITRY_VALUE_COPIES says.

    Attributes:
        eager: see above.
        left_here: True once a value of this process was left in this host's shared memory alone.
    """

    def __init__(self, places: Places, on_full: Callable[[], object], *, eager: bool | None = None) -> None:
        self._places = places
        self._on_full = on_full
        self.eager = copies_are_eager() if eager is None else eager
        self.left_here = False
        self._warned = False

    def describe(self, packed: Packed) -> records.Manifest:
        """Return the manifest of a value that is about to be written, as far as it is known before."""
        outer = len(packed.data) > records.INLINE_LIMIT_BYTES
        sizes = [len(packed.data)] if outer else []
        sizes += [memoryview(buffer).nbytes for buffer in packed.buffers]
        return records.Manifest(
            b"" if outer else bytes(packed.data),
            sizes,
            0 if self._places.one_host else count_of(sizes),
            b"",
            self._places.session,
            list(packed.refs),
            outer=outer,
            token=new_token(),
            chunk_bytes=records.CHUNK_BYTES,
        )

    def write(
        self,
        object_id: bytes,
        packed: Packed,
        manifest: records.Manifest | None = None,
        *,
        copy: int = records.COPY_SOON,
        before_sending: Callable[[], None] | None = None,
    ) -> bytes:
        """Store a value's buffers; return the record that describes them. Waits `patience` seconds for room.

        Args:
            object_id: the object.
            packed: the value.
            manifest: from `describe`, if the caller needed it before.
            copy: when a copy is to be made of what stays on this host (`records.COPY_ASKED`, ...).
            before_sending: called before anything is written that outlives this host.

        Raises:
            ObjectStoreFull: there is no room; nothing is left of the attempt.
        """
        if manifest is None:
            manifest = self.describe(packed)
        views = [memoryview(packed.data)] if manifest.outer else []
        views += [flat(buffer) for buffer in packed.buffers]
        manifest.chunks = 0
        if self._places.one_host:
            full = self._share(object_id, manifest, views)
            if full is not None:
                if full.by_limit:
                    full = self._wait_for_memory(object_id, manifest, views, full)
                else:
                    full = self._send(object_id, manifest, views)
                if full is not None:
                    self._spill_over(object_id, manifest, views, full)
            return records.large(manifest)
        stays = self._may_stay()
        if stays and self._share(object_id, manifest, views) is None:
            manifest.copy = copy
            self.left_here = True
            return records.large(manifest)
        if before_sending is not None:
            before_sending()
        full = self._send(object_id, manifest, views)
        if full is not None:
            self._spill_over(object_id, manifest, views, full)
        if not stays:
            self._share(object_id, manifest, views)
        return records.large(manifest)

    def _may_stay(self) -> bool:
        """True if a value may be in this host's shared memory alone: somebody copies it when that is needed."""
        return not self.eager and self._places.memory is not None and self._places.memory.is_kept()

    def _share(self, object_id: bytes, manifest: records.Manifest, views: list[memoryview]) -> ObjectStoreFull | None:
        """Write the buffers into shared memory; return the error if it has no room."""
        if self._places.memory is None:
            return ObjectStoreFull(sum(manifest.sizes), 0, "shared memory (there is none)")
        try:
            self._places.memory.create(object_id + manifest.token, views, b"")
        except ObjectStoreFull as error:
            full = without_frames(error)
        except OSError as error:
            full = ObjectStoreFull(sum(manifest.sizes), 0, f"{self._places.memory.directory} ({error})")
        else:
            manifest.host = self._places.host
            return None
        if not self._warned and not full.by_limit:
            self._warned = True
            log.warning("shared memory has no room: %s. Such objects go through Redis alone, which is slower.", full)
        return full

    def _wait_for_memory(
        self, object_id: bytes, manifest: records.Manifest, views: list[memoryview], full: ObjectStoreFull
    ) -> ObjectStoreFull | None:
        """The session's limit is reached: let go of what was dropped here, then wait for others to do so."""
        if full.hopeless:
            return full
        deadline = time.monotonic() + self.patience
        while True:
            self._on_full()
            again = self._share(object_id, manifest, views)
            if again is None or time.monotonic() >= deadline:
                return again
            time.sleep(0.02)

    @property
    def patience(self) -> float:
        """Seconds to wait for room: none if there is a place to spill to."""
        return 0.0 if self._places.spill is not None else patience_seconds()

    def _send(self, object_id: bytes, manifest: records.Manifest, views: list[memoryview]) -> ObjectStoreFull | None:
        """Write the buffers into Redis; return the error if it has no room."""
        try:
            manifest.chunks = self._places.chunks.write(object_id, manifest.token, views, patience=self.patience)
        except ObjectStoreFull as error:
            return without_frames(error)
        if manifest.outer:
            manifest.digest = digest_of(views[0])
        return None

    def _spill_over(
        self, object_id: bytes, manifest: records.Manifest, views: list[memoryview], full: ObjectStoreFull
    ) -> None:
        if self._places.spill is None:
            raise anew(full)
        try:
            manifest.spill = self._places.spill.write((object_id + manifest.token).hex(), views)
        except ObjectStoreFull:
            raise
        except OSError as error:
            raise spill.OutOfDisk(full.needed, full.free, f"{full.place}, and spilling failed: {error}") from error
        if manifest.outer:
            manifest.digest = digest_of(views[0])


def copies_are_eager(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether RABBITRY_VALUE_COPIES has large values written to Redis at once.

    Raises:
        ValueError: it says neither `lazy` nor `eager`.

    Example:
        >>> copies_are_eager({"RABBITRY_VALUE_COPIES": "eager"})
        True
    """
    text = (os.environ if environment is None else environment).get(COPIES_VARIABLE) or LAZY
    if text not in (LAZY, EAGER):
        raise ValueError(f"{COPIES_VARIABLE}={text!r} must be `{LAZY}` or `{EAGER}`")
    return text == EAGER
