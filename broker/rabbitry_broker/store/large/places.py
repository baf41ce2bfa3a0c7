"""Where the buffers of large values may be."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from rabbitry_broker import records
from rabbitry_broker.shared_memory import SharedMemoryStore
from rabbitry_broker.store.chunks import Chunks
from rabbitry_broker.store.large.tokens import copy_of
from rabbitry_broker.store.spill import Spill


@dataclass(frozen=True)
class Places:
    """Where the buffers of large values may be, as this process sees it. Any thread may call anything.

    Attributes:
        host: id of this host.
        session: name of the shared-memory session of this host and cluster; "" for none.
        one_host: True on the embedded engine: shared memory is the only copy, and no other host reads it.
        memory: the shared memory of this host, if there is any.
        chunks: in Redis.
        spill: where values go that the store has no room for, if there is such a place.
    """

    host: bytes
    session: str
    one_host: bool
    memory: SharedMemoryStore | None
    chunks: Chunks
    spill: Spill | None

    def mapped(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview] | None:
        """Return views of a value's buffers, which stay mapped; None if they are not here, or must be had elsewhere.

        Raises:
            OSError: they cannot be mapped, and there is no other way to have them.
        """
        try:
            return self.here(object_id, manifest, keep=True)
        except OSError as error:
            elsewhere = manifest.chunks or manifest.is_on_host_only
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) or not elsewhere:
                raise
            return None  # the limit of open files or mappings is reached; a copy needs neither

    def here(self, object_id: bytes, manifest: records.Manifest, *, keep: bool) -> list[memoryview] | None:
        """Return views of a value's buffers in this host's shared memory; None if they are not there.

        `keep`: keep them mapped for the next time.

        Raises:
            OSError: they cannot be mapped.
        """
        if self.memory is None:
            return None
        token = manifest.token
        names = [token, copy_of(token)] if manifest.host == self.host else [copy_of(token), token]
        if self.one_host:
            names = [token]
        for name in names:
            try:
                _, views = self.memory.open(object_id + name, keep=keep)
            except FileNotFoundError:
                continue
            if [view.nbytes for view in views] == manifest.sizes:
                return views
        return None
