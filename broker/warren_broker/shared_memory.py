"""Large objects in shared memory: one file an object, mapped without copying by every process of this host.

A file is `warren-{session}-{object id}`, mode 0600:

    header (64) | (offset, length) of each buffer | meta | buffer | buffer ...        every buffer at a multiple of 64

It is written under another name and renamed, so that it is whole or not there. Whoever maps it holds a shared lock on
it (the mapping keeps the descriptor, and the kernel drops the lock with it): memory that somebody views is never
written again. A deleted file lives on, nameless, until the last view of it goes.

Writing fresh pages costs three to six times as much as writing them again (1.7 against 5-9 GB/s measured), so a
process reuses the files that it both made and deleted; see `shared_memory_recycling`.

`warren-{session}-lock` is locked, shared, by every process that takes part; if nobody holds it the session is dead,
and the last to leave deletes the session's files. What killed processes leave, the next session's start deletes.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import struct
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Final

from warren_broker import machine
from warren_broker.errors import WarrenBrokerError
from warren_broker.shared_memory_recycling import Recycler

ALIGNMENT: Final = 64

_MAGIC: Final = b"WSM1"
# magic, id's length, id, buffers, bytes of meta, bytes of all
_HEADER: Final = struct.Struct("<4sI36sIQQ")
_LONGEST_ID: Final = 36
_RANGE: Final = struct.Struct("<QQ")
_NAME: Final = "warren-"
_LOCK: Final = "lock"
# The system's limit of buffers in one call is 1024 everywhere that matters.
_BUFFERS_A_WRITE: Final = 1000
# A copy into mapped memory keeps the interpreter; other threads get their turn between pieces.
_COPY_BYTES: Final = 8 << 20
# From this size on it is worth asking how much memory the machine has left.
_LARGE_BYTES: Final = 64 << 20
# Of a file system as small as a container's default one, and of a big one: what is left to others.
_RESERVE_SHARE: Final = 20
_RESERVE_BYTES: Final = 64 << 20
# How long a file that is being written may look untouched before it counts as forgotten by a dead process.
_ORPHAN_S: Final = 60.0

Buffer = bytes | bytearray | memoryview

_stores: weakref.WeakSet[SharedMemoryStore]


class ObjectStoreFull(WarrenBrokerError):
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
        super().__init__(f"an object of {needed:,} bytes does not fit in the {free:,} bytes left in {place}")

    def __reduce__(self) -> tuple[type[ObjectStoreFull], tuple[int, int, str]]:
        """Pickle by the parts, not by the message."""
        return type(self), (self.needed, self.free, self.place)


class SharedMemoryStore:
    """The objects of one session on this host. Any thread may call anything; a forked child may go on using it.

    Call `trim` about once a second: it gives back what is kept for reuse and was not.

    Args:
        session_id: letters, digits, `_` and `.`; processes with the same id share objects.
        limit_bytes: what all objects of the session may take together; None for what the file system has.
        recycle_bytes: what deleted files this process may keep for reuse.
        directory: where the files are; None for /dev/shm, or the temporary directory where there is none.

    Raises:
        ValueError: a session id that is no part of a file name.

    >>> store = SharedMemoryStore("doctest")
    >>> store.create(b"id", [b"some", b"buffers"], b"meta")
    >>> meta, views = store.open(b"id")
    >>> meta, bytes(views[1])
    (b'meta', b'buffers')
    >>> store.clear()
    >>> bytes(views[0])
    b'some'
    """

    def __init__(
        self,
        session_id: str,
        limit_bytes: int | None = None,
        *,
        recycle_bytes: int = 256 << 20,
        directory: str | None = None,
    ) -> None:
        if not session_id or not session_id.isascii() or not all(char.isalnum() or char in "_." for char in session_id):
            raise ValueError(f"session id {session_id!r} may have letters, digits, '_' and '.' only")
        self.session_id = session_id
        self.directory = directory or default_directory()
        self.limit_bytes = limit_bytes
        self._start = f"{self.directory}/{_NAME}{session_id}-"
        self._recycle_bytes = recycle_bytes
        self._recycler = Recycler(self._start, recycle_bytes)
        self._lock: int | None = None
        self._numbers = itertools.count()
        self._allowance = 0
        self._join()
        _stores.add(self)

    def create(self, object_id: bytes, buffers: Sequence[Buffer], meta: bytes = b"") -> None:
        """Write an object; it can be opened when this returns. An object of the same id is replaced as a whole.

        Args:
            object_id: 1 to 36 bytes.
            buffers: contiguous, of any item type.
            meta: returned by `open` as it is.

        Raises:
            ObjectStoreFull: no room; nothing is left of the attempt.
            OSError: the file system refuses.
        """
        views = [_flat(buffer) for buffer in buffers]
        head, places, size = _layout(object_id, views, meta)
        path = self._start + object_id.hex()
        if self._recycler.write(size, object_id, path, lambda target: _copy(target, head, places, views)):
            return
        self._require_room(size)
        temporary = f"{path}.{os.getpid()}.{next(self._numbers)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(temporary, flags, 0o600)
        try:
            _write(file, _pieces(head, places, views))
            os.rename(temporary, path)
        except BaseException as error:
            _unlink(temporary)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ObjectStoreFull(size, self._free_space(), self._place()) from error
            raise
        finally:
            os.close(file)
        self._recycler.made(object_id, size)

    def open(self, object_id: bytes) -> tuple[bytes, list[memoryview]]:
        """Map an object and return its meta and read-only views of its buffers.

        The views stay valid as long as they (or anything made of them) live, also when the object is deleted.

        Raises:
            FileNotFoundError: it is not there, is not ours, or is just being deleted.
        """
        path = self._start + object_id.hex()
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.ELOOP):
                raise
            raise FileNotFoundError(f"object {object_id.hex()} in shared memory belongs to another user") from None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(file).st_uid != os.geteuid():
                raise FileNotFoundError(f"object {object_id.hex()} in shared memory belongs to another user")
            mapping = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        except (BlockingIOError, ValueError):
            # Locked or emptied since we found it: it is being deleted.
            raise FileNotFoundError(f"object {object_id.hex()} in shared memory was just deleted") from None
        finally:
            # The mapping has a duplicate of the descriptor, and the lock with it.
            os.close(file)
        return _parse(mapping, object_id)

    def delete(self, object_ids: Sequence[bytes]) -> None:
        """Delete objects; those that are not there are no error. Memory is free again when nothing views it."""
        for object_id in object_ids:
            self._recycler.discard(object_id, self._start + object_id.hex())

    def trim(self, max_age: float = 2.0) -> None:
        """Give back files kept for reuse for longer than `max_age` seconds. Costs nothing if there are none."""
        self._recycler.trim(max_age)

    def remove_orphans(self) -> int:
        """Delete what processes left behind that died while they wrote; return how many files. For the agent."""
        removed = 0
        for entry in self._entries():
            if "." in entry.name.rpartition("-")[2] and _is_orphan(entry.path):
                _unlink(entry.path)
                removed += 1
        return removed

    def names(self) -> list[bytes]:
        """Return the ids of all objects of the session."""
        found = []
        for entry in self._entries():
            text = entry.name.rpartition("-")[2]
            if "." not in text and text != _LOCK:
                try:
                    found.append(bytes.fromhex(text))
                except ValueError:
                    continue  # not ours
        return found

    def age(self, object_id: bytes) -> float:
        """Return how many seconds ago an object was written; 0 if it is not there."""
        try:
            return time.time() - os.stat(self._start + object_id.hex(), follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return 0.0

    def clear(self) -> None:
        """Delete all files of the session, whoever made them, and let go. Views stay valid. May be called twice."""
        self.close()
        for entry in self._entries():
            _unlink(entry.path)

    def close(self) -> None:
        """Leave the session and let go of what is kept for reuse. Whoever leaves last deletes the session's files.

        Views stay valid. May be called twice; `create` joins the session again.
        """
        self._recycler.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            _sweep(self._start, lock)
            os.close(lock)

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the session's files may take: its limit, or all that the file system has but a reserve."""
        found = os.statvfs(self.directory)
        size = found.f_blocks * found.f_frsize
        size -= min(_RESERVE_BYTES, size // _RESERVE_SHARE)
        return size if self.limit_bytes is None else min(size, self.limit_bytes)

    @property
    def used_bytes(self) -> int:
        """Bytes that the session's files take (those without a name, still viewed, not counted)."""
        used = 0
        for entry in self._entries():
            try:
                used += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
        return used

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        start = os.path.basename(self._start)
        with os.scandir(self.directory) as entries:
            for entry in entries:
                # A dash in the rest would be another session, whose id begins like ours.
                if entry.name.startswith(start) and "-" not in entry.name[len(start) :]:
                    yield entry

    def _forked(self) -> None:
        """Start anew in a forked child: what the parent keeps for reuse is the parent's."""
        self._recycler.abandon()
        self._recycler = Recycler(self._start, self._recycle_bytes)
        self._allowance = 0

    def _join(self) -> None:
        """Lock the session's lock file, and clear up after dead sessions if we are the first of ours."""
        path = self._start + _LOCK
        while self._lock is None:
            first = not os.path.exists(path)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
            try:
                same = os.path.samestat(os.fstat(lock), os.stat(path))
            except FileNotFoundError:
                same = False
            if not same:
                # Swept away between opening and locking.
                os.close(lock)
                continue
            self._lock = lock
            if first:
                sweep_dead_sessions(self.directory)

    def _require_room(self, size: int) -> None:
        if self._lock is None:
            self._join()
        free = self._free_space()
        if size > free:
            # What is kept for reuse may be what is missing.
            self._recycler.trim(0.0)
            free = self._free_space()
        if size > free:
            raise ObjectStoreFull(size, free, self._place())
        if self.limit_bytes is not None:
            # Adding up all files at each write would make many small objects slow, so an eighth of what is left may
            # be written before they are added up again.
            if size > self._allowance:
                left = self.limit_bytes - self.used_bytes
                if size > left:
                    self._recycler.trim(0.0)
                    left = self.limit_bytes - self.used_bytes
                if size > left:
                    place = f"shared memory of the session, whose limit is {self.limit_bytes:,} bytes"
                    raise ObjectStoreFull(size, max(0, left), place, hopeless=size > self.limit_bytes, by_limit=True)
                self._allowance = left // 8
            self._allowance -= size
        if size >= _LARGE_BYTES:
            available = machine.available_memory()
            if size > available:
                raise ObjectStoreFull(size, available, "the machine's memory")

    def _free_space(self) -> int:
        found = os.statvfs(self.directory)
        reserve = min(_RESERVE_BYTES, found.f_blocks * found.f_frsize // _RESERVE_SHARE)
        return max(0, found.f_bavail * found.f_frsize - reserve)

    def _place(self) -> str:
        return f"{self.directory} (containers: enlarge it with `shm_size`)"


def raise_file_limit(wanted: int = 65_536) -> None:
    """Raise this process's soft limit of open files, if the hard one allows: every mapped object takes a descriptor."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):
            return  # macOS has a lower limit that it does not tell


def default_directory() -> str:
    """Return where shared-memory files go on this machine."""
    if sys.platform == "linux" and os.access("/dev/shm", os.W_OK | os.X_OK):
        return "/dev/shm"
    # Not at the top: it costs 10 ms of import, and Linux has no need of it.
    import tempfile

    return tempfile.gettempdir()


def sweep_dead_sessions(directory: str | None = None) -> int:
    """Delete the files of sessions that no process takes part in any more; return how many sessions.

    Args:
        directory: None for the default one.
    """
    directory = directory or default_directory()
    swept = 0
    for name in os.listdir(directory):
        if not (name.startswith(_NAME) and name.endswith(f"-{_LOCK}")):
            continue
        path = os.path.join(directory, name)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        swept += _sweep(path.removesuffix(_LOCK), lock)
        os.close(lock)
    return swept


def _sweep(start: str, lock: int) -> bool:
    """Delete the session's files if nobody else holds its lock file, which is open as `lock`."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), os.stat(start + _LOCK)):
            return False
    except (BlockingIOError, FileNotFoundError):
        return False
    directory, name = os.path.split(start)
    for other in os.listdir(directory):
        if other.startswith(name) and "-" not in other[len(name) :] and other != name + _LOCK:
            _unlink(os.path.join(directory, other))
    # Last, while it is locked: a process that joins now sees that its file has gone and makes a new one.
    _unlink(start + _LOCK)
    return True


def _flat(buffer: Buffer) -> memoryview:
    view = memoryview(buffer)
    # A view with a zero in its shape cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _layout(object_id: bytes, views: list[memoryview], meta: bytes) -> tuple[bytes, list[int], int]:
    """Return what stands before the buffers, the offset of each, and the size of all."""
    if not 1 <= len(object_id) <= _LONGEST_ID:
        raise ValueError(f"object id of {len(object_id)} bytes; 1 to {_LONGEST_ID} are possible")
    at = _HEADER.size + _RANGE.size * len(views) + len(meta)
    places = []
    for view in views:
        at = -(-at // ALIGNMENT) * ALIGNMENT
        places.append(at)
        at += view.nbytes
    header = _HEADER.pack(_MAGIC, len(object_id), object_id, len(views), len(meta), at)
    table = b"".join([_RANGE.pack(place, view.nbytes) for place, view in zip(places, views, strict=True)])
    return header + table + meta, places, at


def _pieces(head: bytes, places: list[int], views: list[memoryview]) -> list[Buffer]:
    pieces: list[Buffer] = [head]
    at = len(head)
    for place, view in zip(places, views, strict=True):
        if place > at:
            pieces.append(bytes(place - at))
        if view.nbytes:
            pieces.append(view)
        at = place + view.nbytes
    return pieces


def _write(file: int, pieces: list[Buffer]) -> None:
    """Write all pieces; one call may take less than it was given (2 GiB at most)."""
    index = 0
    while index < len(pieces):
        written = os.writev(file, pieces[index : index + _BUFFERS_A_WRITE])
        while index < len(pieces) and written >= len(pieces[index]):
            written -= len(pieces[index])
            index += 1
        if written:
            pieces[index] = memoryview(pieces[index])[written:]


def _copy(target: mmap.mmap, head: bytes, places: list[int], views: list[memoryview]) -> None:
    target[: len(head)] = head
    for place, view in zip(places, views, strict=True):
        for start in range(0, view.nbytes, _COPY_BYTES):
            piece = view[start : start + _COPY_BYTES]
            target[place + start : place + start + piece.nbytes] = piece


def _parse(mapping: mmap.mmap, object_id: bytes) -> tuple[bytes, list[memoryview]]:
    whole = memoryview(mapping)
    if whole.nbytes >= _HEADER.size:
        magic, id_length, padded_id, count, meta_length, size = _HEADER.unpack_from(whole)
        if magic == _MAGIC and padded_id[:id_length] == object_id and size <= whole.nbytes:
            at = _HEADER.size + _RANGE.size * count
            ranges = _RANGE.iter_unpack(whole[_HEADER.size : at])
            return bytes(whole[at : at + meta_length]), [whole[start : start + length] for start, length in ranges]
    # Recycled since we opened it, and given to another object.
    raise FileNotFoundError(f"object {object_id.hex()} in shared memory was just deleted")


def _is_orphan(path: str) -> bool:
    """Return True if no process works on the unfinished or spare file at `path`."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if time.time() - os.fstat(file).st_ctime < _ORPHAN_S:
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, PermissionError):
        # Gone already, or another user's.
        return


def _after_fork() -> None:
    for store in list(_stores):
        store._forked()


# The one thing here that is not an object's: a child must not reuse its parent's files, nor wait for its locks.
_stores = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
