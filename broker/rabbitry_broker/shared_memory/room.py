"""What objects may take of a file system and of the machine's memory, and the error when it is not enough."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Final

from rabbitry_broker import machine
from rabbitry_broker.errors import RabbitryBrokerError

# After writing so much it is worth asking how much memory the machine has left; and what of it is left to others.
_LARGE_BYTES: Final = 64 << 20
_MACHINE_SHARE: Final = 20
_MACHINE_BYTES: Final = 1 << 30
# Of a file system as small as a container's default one, and of a big one: what is left to others.
_RESERVE_SHARE: Final = 20
_RESERVE_BYTES: Final = 64 << 20


class ObjectStoreFull(RabbitryBrokerError):
    """There is no room for an object.

    Attributes:
        needed: bytes the object takes.
        free: bytes that could be had.
        place: what is full.
        hopeless: True if waiting for others to let go cannot help.
        by_limit: True if a limit that was set is reached, not the size of the memory.
    """

    def __init__(self, needed: int, free: int, place: str, *, hopeless: bool = False, by_limit: bool = False) -> None:
        """Make the error.

        Args:
            needed: bytes the object takes.
            free: bytes that could be had.
            place: what is full, with the remedy, e.g. "/dev/shm (enlarge it with `shm_size`)".
            hopeless: see above.
            by_limit: see above.
        """
        self.needed = needed
        self.free = free
        self.place = place
        self.hopeless = hopeless
        self.by_limit = by_limit
        left = f"in the {free:,} bytes left in {place}" if free else f"as no room is left in {place}"
        # What is refused may have no size: a command that writes nothing of the user's, or more than is known of it.
        super().__init__(
            f"an object of {needed:,} bytes does not fit {left}" if needed else f"there is no room in {place}"
        )

    def __reduce__(self) -> tuple[type[ObjectStoreFull], tuple[int, int, str]]:
        """Pickle by the parts, not by the message."""
        return type(self), (self.needed, self.free, self.place)


class Room:
    """What one session may take. Any thread may call anything; counts are near enough.

    Args:
        directory: where the files are.
        limit_bytes: what all objects of the session may take together; None for what the file system has.
        used_bytes: adds up what they take.

    Attributes:
        limit_bytes: the limit; may be changed.
    """

    def __init__(self, directory: str, limit_bytes: int | None, used_bytes: Callable[[], int]) -> None:
        self._directory = directory
        self.limit_bytes = limit_bytes
        self._used_bytes = used_bytes
        self._allowance = 0
        self._unasked = 0  # bytes written since the machine's memory was looked at

    def require(self, size: int, give_back: Callable[[], object]) -> None:
        """Return if there is room for so many bytes.

        Args:
            size: of a file that is about to be written.
            give_back: lets go of what this process keeps for reuse: called if there is no room otherwise.

        Raises:
            ObjectStoreFull: there is not.
        """
        free = self._free_space()
        if size > free:
            # What is kept for reuse may be what is missing.
            give_back()
            free = self._free_space()
        if size > free:
            raise ObjectStoreFull(size, free, self._place())
        if self.limit_bytes is not None:
            # Adding up all files at each write would make many small objects slow, so an eighth of what is left may
            # be written before they are added up again.
            if size > self._allowance:
                left = self.limit_bytes - self._used_bytes()
                if size > left:
                    give_back()
                    left = self.limit_bytes - self._used_bytes()
                if size > left:
                    place = f"shared memory of the session, whose limit is {self.limit_bytes:,} bytes"
                    raise ObjectStoreFull(size, max(0, left), place, hopeless=size > self.limit_bytes, by_limit=True)
                self._allowance = left // 8
            self._allowance -= size
        self._unasked += size
        if self._unasked >= _LARGE_BYTES:
            # The file system may be as large as the memory: who fills that has some process or other killed.
            available = max(0, machine.available_memory() - _machine_reserve())
            if size > available:
                raise ObjectStoreFull(size, available, "the machine's memory")
            self._unasked = 0

    def missing(self, size: int) -> ObjectStoreFull:
        """Return the error for so many bytes that the file system has refused."""
        return ObjectStoreFull(size, self._free_space(), self._place())

    def start_anew(self) -> None:
        """Start anew in a forked child."""
        self._allowance = 0

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the session's files may take: its limit, or all that the file system has but a reserve."""
        found = os.statvfs(self._directory)
        size = found.f_blocks * found.f_frsize
        size -= min(_RESERVE_BYTES, size // _RESERVE_SHARE)
        return size if self.limit_bytes is None else min(size, self.limit_bytes)

    def _free_space(self) -> int:
        found = os.statvfs(self._directory)
        reserve = min(_RESERVE_BYTES, found.f_blocks * found.f_frsize // _RESERVE_SHARE)
        return max(0, found.f_bavail * found.f_frsize - reserve)

    def _place(self) -> str:
        return f"{self._directory} (containers: enlarge it with `shm_size`)"


@cache
def _machine_reserve() -> int:
    return min(_MACHINE_BYTES, machine.total_memory() // _MACHINE_SHARE)
