"""Values that are in the shared memory of this host only, and who copies them into Redis (`store.copies`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from rabbitry_broker import records
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.store import spill
from rabbitry_broker.store.copies import Copies
from rabbitry_broker.store.large.places import Places
from rabbitry_broker.store.large.tokens import NAME_BYTES, digest_of, is_copy

_RECORDS_AT_ONCE: Final = 500


class Unkept:
    """Values that this host's shared memory alone has: nodes copy them, or who made them does. Any thread.

    Args:
        places: where values may be.
        copies: makes copies in Redis.
        left_here: True if this process has left such values.
    """

    def __init__(self, places: Places, copies: Copies, left_here: Callable[[], bool]) -> None:
        self._places = places
        self._copies = copies
        self._left_here = left_here

    def look_after(self) -> bool:
        """This process is a node: from now on it copies what its host's processes leave in shared memory alone.

        Returns:
            False if another node of the host does. Call it again: that one may end.
        """
        return self._places.memory is not None and not self._places.one_host and self._places.memory.keep()

    def stop_looking_after(self) -> None:
        """This node leaves: values that are made from now on are no business of its."""
        if self._places.memory is not None:
            self._places.memory.stop_keeping()

    @property
    def are_left(self) -> bool:
        """True if no node of this host looks any more after values that this process left in its shared memory."""
        return self._left_here() and self._places.memory is not None and not self._places.memory.is_kept()

    def copy_unkept(self, seconds: float) -> None:
        """Copy values of this process that no node of its host looks after any more, for so long at most.

        Raises:
            ObjectStoreFull: Redis has no room for one.
        """
        until = time.monotonic() + seconds
        own = os.getpid().to_bytes(4, "big")
        names = [name for name in self.names_here() if name[OBJECT_BYTES : OBJECT_BYTES + 4] == own]
        for name in self.on_host_only(names):
            if time.monotonic() > until:
                return
            self.copy(name)

    def names_here(self) -> list[bytes]:
        """Return the names (object id and token) of what was made on this host; not of copies that it has of others."""
        if self._places.memory is None:
            return []
        return [name for name in self._places.memory.names() if len(name) == NAME_BYTES and not is_copy(name)]

    def age(self, name: bytes) -> float:
        """Return how many seconds ago a value of this host was written; 0 if it is not there."""
        return 0.0 if self._places.memory is None else self._places.memory.age(name)

    def on_host_only(self, names: Sequence[bytes]) -> dict[bytes, records.Manifest]:
        """Return those names whose records say that nothing but this host has the value, with what they say."""
        found: dict[bytes, records.Manifest] = {}
        for at in range(0, len(names), _RECORDS_AT_ONCE):
            part = names[at : at + _RECORDS_AT_ONCE]
            for name, known in zip(part, self._copies.look([name[:OBJECT_BYTES] for name in part]), strict=True):
                if known is not None and self.is_only_here(name, known[1]):
                    found[name] = known[1]
        return found

    def is_only_here(self, name: bytes, manifest: records.Manifest) -> bool:
        """True if this is what an object's record says of the value `name`, and nothing but this host has it."""
        return (
            manifest.is_on_host_only
            and manifest.host == self._places.host
            and manifest.session == self._places.session
            and manifest.token == name[OBJECT_BYTES:]
        )

    def copy(self, name: bytes) -> None:
        """Copy a value of this host into Redis, if its record still says that nothing else has it.

        Args:
            name: object id, and token; without a token, whatever value the object has.

        Raises:
            ObjectStoreFull: Redis has no room for it.
        """
        object_id = name[:OBJECT_BYTES]
        (known,) = self._copies.look([object_id])
        if known is None or not self.is_only_here(object_id + (name[OBJECT_BYTES:] or known[1].token), known[1]):
            return
        sealed, manifest = known
        views = self._places.here(object_id, manifest, keep=False)
        if views is None:
            self._copies.say_lost(object_id, sealed, manifest)
            return
        digest = digest_of(views[0]) if manifest.outer else b""
        try:
            self._copies.make(object_id, sealed, manifest, views, digest)
        except ObjectStoreFull:
            if self._places.spill is None:
                raise
            url = self._places.spill.write((object_id + manifest.token).hex(), views)
            if not self._copies.spilled(object_id, sealed, manifest, url, digest):
                spill.delete(url)
