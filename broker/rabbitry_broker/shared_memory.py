"""Large objects in shared memory: one file an object, mapped without copying by every process of this host.

A file is `rabbitry-{session}-{object id}`, mode 0600:

    header (64) | (offset, length) of each buffer | meta | buffer | buffer ...        every buffer at a multiple of 64

It is written under another name and renamed, so that it is whole or not there. Whoever maps it holds a shared lock on
it (the mapping keeps the descriptor, and the kernel drops the lock with it): memory that somebody views is never
written again. A deleted file lives on, nameless, until the last view of it goes.

Writing fresh pages costs three to six times as much as writing them again (1.7 against 5-9 GB/s measured), so files of
deleted objects are reused: by the process that both made and deleted them (`shared_memory_recycling`), or by any on the
host (`shared_memory_pool`).

Who has written an object into the records of the cluster says so at its file (`settle`), whose time of change is 0
then: if there is no record of a settled object, it was deleted.

`rabbitry-{session}-keeper` is locked by the one process that looks after the session's objects (see `keep`).
`rabbitry-{session}-lock` is locked, shared, by every process that takes part; if nobody holds it the session is dead,
and the last to leave deletes the session's files. What killed processes leave (the lock file as well), the next
session's start deletes, of whatever session it is; so it does with files that have no lock file any more.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import Final

from rabbitry_broker import machine
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.shared_memory_claims import SUFFIX, claim
from rabbitry_broker.shared_memory_copying import copy_into
from rabbitry_broker.shared_memory_mappings import Mappings
from rabbitry_broker.shared_memory_pool import KEPT_SECONDS, Pool, capacity_in
from rabbitry_broker.shared_memory_recycling import Recycler

ALIGNMENT: Final = 64

_MAGIC: Final = b"WSM1"
# magic, id's length, id, buffers, bytes of meta, bytes of all
_HEADER: Final = struct.Struct("<4sI36sIQQ")
_LONGEST_ID: Final = 36
_RANGE: Final = struct.Struct("<QQ")
_NAME: Final = "rabbitry-"
_LOCK: Final = "lock"
_KEEPER: Final = "keeper"
# The system's limit of buffers in one call is 1024 everywhere that matters.
_BUFFERS_A_WRITE: Final = 1000
# What is received goes through so much memory, which stays in the processor's cache, or into a mapping in such pieces.
_PIECE_BYTES: Final = 256 << 10
# After writing so much it is worth asking how much memory the machine has left; and what of it is left to others.
_LARGE_BYTES: Final = 64 << 20
_MACHINE_SHARE: Final = 20
_MACHINE_BYTES: Final = 1 << 30
# Of a file system as small as a container's default one, and of a big one: what is left to others.
_RESERVE_SHARE: Final = 20
_RESERVE_BYTES: Final = 64 << 20
# Of what a process may keep for itself, and of all shared memory: what the host's pool may hold.
_POOL_SHARE: Final = 2
_POOL_OF_ALL: Final = 16
# How long a file that is being written may look untouched before it counts as forgotten by a dead process.
_ORPHAN_S: Final = 60.0

Buffer = bytes | bytearray | memoryview

_stores: weakref.WeakSet[SharedMemoryStore]


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


class SharedMemoryStore:
    """The objects of one session on this host. Any thread may call anything; a forked child may go on using it.

    Call `trim` about once a second: it gives back what is kept for reuse and was not.

    Args:
        session_id: letters, digits, `_` and `.`; processes with the same id share objects.
        limit_bytes: what all objects of the session may take together; None for what the file system has.
        recycle_bytes: what deleted files this process may keep for reuse.
        directory: where the files are; None for /dev/shm, or the temporary directory where there is none.

    Attributes:
        mappings: those that are kept.
        on_kept: called when one more is: from now on `trim` must be called, also while this process does nothing else.

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
        self._pool = Pool(self._start, min(_POOL_SHARE * recycle_bytes, self.capacity_bytes // _POOL_OF_ALL))
        self._recycler = Recycler(self._start, recycle_bytes, self._pool)
        self._lock: int | None = None
        self._keeper: int | None = None
        self._numbers = itertools.count()
        self._allowance = 0
        self._unasked = 0  # bytes written since the machine's memory was looked at
        self.mappings = Mappings()
        self.on_kept: Callable[[], object] = _nothing
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
        head, places, size = _layout(object_id, [view.nbytes for view in views], meta)
        self._make(
            object_id,
            size,
            lambda target: _copy(target, head, places, views),
            lambda file: _write(file, _pieces(head, places, views)),
        )

    def receive(self, object_id: bytes, sizes: Sequence[int], fill: Callable[[memoryview], None]) -> None:
        """Write an object whose bytes come from elsewhere; it can be opened when this returns.

        Args:
            object_id: 1 to 36 bytes.
            sizes: bytes of each buffer.
            fill: is given memory, piece by piece, for what `body` returned where the bytes come from. What it raises
                ends this.

        Raises:
            ObjectStoreFull: no room; nothing was asked of `fill`.
            OSError: the file system refuses.
        """
        head, places, size = _layout(object_id, sizes, b"")
        start = places[0] if places else size

        def into(target: mmap.mmap) -> None:
            target[: len(head)] = head
            with memoryview(target) as whole:
                for at in range(start, size, _PIECE_BYTES):
                    with whole[at : min(at + _PIECE_BYTES, size)] as piece:
                        fill(piece)

        def through(file: int) -> None:
            _write(file, [head, bytes(start - len(head))])
            with memoryview(bytearray(min(_PIECE_BYTES, size - start))) as buffer:
                for at in range(start, size, _PIECE_BYTES):
                    with buffer[: min(_PIECE_BYTES, size - at)] as piece:
                        fill(piece)
                        _write(file, [piece])

        self._make(object_id, size, into, through)

    def _make(
        self, object_id: bytes, size: int, into: Callable[[mmap.mmap], None], through: Callable[[int], None]
    ) -> None:
        """Write an object: `into` the mapping of a file that is used again, or `through` a descriptor of a new one."""
        path = self._start + object_id.hex()
        if self._recycler.write(size, object_id, path, into) or self._write_again(size, path, through):
            return
        self._require_room(size)
        temporary = f"{path}.{os.getpid()}.{next(self._numbers)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(temporary, flags, 0o600)
        try:
            through(file)
            os.rename(temporary, path)
        except BaseException as error:
            _unlink(temporary)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ObjectStoreFull(size, self._free_space(), self._place()) from error
            raise
        finally:
            os.close(file)
        self._recycler.made(object_id, size)

    def _write_again(self, size: int, path: str, through: Callable[[int], None]) -> bool:
        """Write an object into a file of the pool; False if none fits."""
        temporary = f"{path}.{os.getpid()}.{next(self._numbers)}"
        file = self._pool.take(size, temporary)
        if file is None:
            return False
        try:
            through(file)
            # Before it gets its name: who opens it by that finds it unlocked.
            fcntl.flock(file, fcntl.LOCK_UN)
            os.rename(temporary, path)
        except BaseException as error:
            _unlink(temporary)
            # The session was cleared meanwhile.
            if isinstance(error, FileNotFoundError):
                return False
            raise
        finally:
            os.close(file)
        return True

    def open(self, object_id: bytes, *, keep: bool = True) -> tuple[bytes, list[memoryview]]:
        """Map an object and return its meta and read-only views of its buffers.

        The views stay valid as long as they (or anything made of them) live, also when the object is deleted.

        Args:
            object_id: the object.
            keep: if it is large, keep the mapping for the next time (see `shared_memory_mappings`).

        Raises:
            FileNotFoundError: it is not there, is not ours, or is just being deleted.
        """
        whole = self._map(object_id, keep=keep)
        meta, ranges, _ = _parse(whole, object_id)
        return meta, [whole[start : start + length] for start, length in ranges]

    def body(self, object_id: bytes) -> tuple[list[int], memoryview]:
        """Map an object and return the size of each buffer, and all of them with what lies between, for `receive`.

        Raises:
            FileNotFoundError: as `open`.
        """
        whole = self._map(object_id, keep=False)
        _, ranges, size = _parse(whole, object_id)
        return [length for _, length in ranges], whole[ranges[0][0] if ranges else size : size]

    def claim(self, object_id: bytes, patience: float) -> AbstractContextManager[bool]:
        """Hold, in a `with` statement, what only one process of this host does for an object at a time.

        See `shared_memory_claims.claim`.
        """
        return claim(f"{self._start}{object_id.hex()}{SUFFIX}", patience)

    def _map(self, object_id: bytes, *, keep: bool) -> memoryview:
        path = self._start + object_id.hex()
        whole = self.mappings.view(path) if keep else None
        if whole is not None:
            return whole
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.ELOOP):
                raise
            raise FileNotFoundError(f"object {object_id.hex()} in shared memory belongs to another user") from None
        kept = False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(file).st_uid != os.geteuid():
                raise FileNotFoundError(f"object {object_id.hex()} in shared memory belongs to another user")
            mapping = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
            kept = keep and self.mappings.keep(file, mapping)
            whole = memoryview(mapping)
        except (BlockingIOError, ValueError):
            # Locked or emptied since we found it: it is being deleted.
            raise FileNotFoundError(f"object {object_id.hex()} in shared memory was just deleted") from None
        finally:
            # The mapping has a duplicate of the descriptor, and the lock with it.
            if not kept:
                os.close(file)
        if kept:
            self.on_kept()
        return whole

    def delete(self, object_ids: Sequence[bytes]) -> None:
        """Delete objects; those that are not there are no error. Memory is free again when nothing views it."""
        if self.mappings.viewed:
            self.mappings.settle()
        for object_id in object_ids:
            path = self._start + object_id.hex()
            with self.mappings.while_deleted(path):
                self._recycler.discard(object_id, path)

    def settle(self, object_id: bytes) -> None:
        """Say that an object is on record. One that is not there is no error."""
        with suppress(FileNotFoundError):
            os.utime(self._start + object_id.hex(), (0, 0), follow_symlinks=False)

    def is_settled(self, object_id: bytes) -> bool:
        """True if an object is there, and was on record at some time."""
        try:
            return os.stat(self._start + object_id.hex(), follow_symlinks=False).st_mtime == 0
        except FileNotFoundError:
            return False

    def trim(self, max_age: float = 2.0) -> None:
        """Give back files that this process kept for longer than `max_age` seconds. Costs nothing if there are none.

        With 0, the host's pool is given back as well.
        """
        self.mappings.trim()
        self._recycler.trim(max_age)
        if not max_age:
            self._pool.trim(max_age)

    def remove_orphans(self) -> int:
        """Delete what processes left behind that died while they wrote; return how many files. For the agent.

        And of what is kept for reuse, what has not been used for a while.
        """
        removed = 0
        self._pool.trim(KEPT_SECONDS)
        for entry in self._entries():
            rest = entry.name.rpartition("-")[2]
            if "." in rest and capacity_in(rest) is None and _is_orphan(entry.path):
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
        """Return how many seconds ago an object was written, or settled; 0 if it is not there."""
        try:
            return time.time() - os.stat(self._start + object_id.hex(), follow_symlinks=False).st_ctime
        except FileNotFoundError:
            return 0.0

    def keep(self) -> bool:
        """Look after the session's objects until this process ends or says not to; False if another one does.

        All processes of the session see that (`is_kept`). May be called again, to find out or to take over. One that
        just looks may be in the way for a moment: call it again later.
        """
        if self._keeper is not None:
            return True
        file = os.open(self._start + _KEEPER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._keeper = file
        return True

    def stop_keeping(self) -> None:
        """Take back what `keep` said. May be called twice."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            os.close(keeper)

    def is_kept(self) -> bool:
        """True if a process looks after the session's objects (see `keep`). HOT PATH: three system calls."""
        # Shared, so that those who look are not in each other's way.
        if self._keeper is not None:
            return True
        try:
            file = os.open(self._start + _KEEPER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def clear(self) -> None:
        """Delete all files of the session, whoever made them, and let go. Views stay valid. May be called twice."""
        self.close()
        for entry in self._entries():
            _unlink(entry.path)

    def close(self) -> None:
        """Leave the session and let go of what is kept for reuse. Whoever leaves last deletes the session's files.

        Views stay valid. May be called twice; `create` joins the session again.
        """
        self.stop_keeping()
        self.mappings.abandon()
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
        self._pool.forget_in_child()
        self._recycler.abandon()
        self._recycler = Recycler(self._start, self._recycle_bytes, self._pool)
        self._allowance = 0
        self.stop_keeping()

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
            self.trim(0.0)
            free = self._free_space()
        if size > free:
            raise ObjectStoreFull(size, free, self._place())
        if self.limit_bytes is not None:
            # Adding up all files at each write would make many small objects slow, so an eighth of what is left may
            # be written before they are added up again.
            if size > self._allowance:
                left = self.limit_bytes - self.used_bytes
                if size > left:
                    self.trim(0.0)
                    left = self.limit_bytes - self.used_bytes
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


@cache
def _machine_reserve() -> int:
    return min(_MACHINE_BYTES, machine.total_memory() // _MACHINE_SHARE)


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
    names = [name for name in os.listdir(directory) if name.startswith(_NAME)]
    locks = {name for name in names if name.endswith(f"-{_LOCK}")}
    for name in locks:
        path = os.path.join(directory, name)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        swept += _sweep(path.removesuffix(_LOCK), lock)
        os.close(lock)
    for name in names:
        # Written by a process that did not notice its session's end, and was killed before it left.
        start, dash, rest = name.rpartition("-")
        if start.startswith(_NAME) and rest != _LOCK and f"{start}{dash}{_LOCK}" not in locks:
            path = os.path.join(directory, name)
            if _is_object(rest) and _is_orphan(path):
                _unlink_stray(os.path.join(directory, start + dash), [name])
    return swept


def _is_object(rest: str) -> bool:
    """Return True for what stands in the name of an object's file, finished or not, behind the session."""
    return len(rest) > 16 and all(each in "0123456789abcdef" for each in rest.partition(".")[0])


def _unlink_stray(start: str, names: list[str]) -> None:
    """Delete files that were there before one looks again that the session has no lock file.

    Who joins the session anew makes its lock file before any other file.
    """
    if not os.path.lexists(start + _LOCK):
        directory = os.path.dirname(start)
        for name in names:
            _unlink(os.path.join(directory, name))


def _files_of(start: str) -> list[str]:
    """Return the names of all files of a session but its lock file."""
    directory, name = os.path.split(start)
    return [
        other
        for other in os.listdir(directory)
        if other.startswith(name) and "-" not in other[len(name) :] and other != name + _LOCK
    ]


def _sweep(start: str, lock: int) -> bool:
    """Delete the session's files if nobody else holds its lock file, which is open as `lock`."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    files = _files_of(start)
    try:
        if not os.path.samestat(os.fstat(lock), os.stat(start + _LOCK)):
            return False
    except FileNotFoundError:
        # Cleared while we took part: what was written since is there without a lock file that would tell of it.
        _unlink_stray(start, files)
        return False
    for other in files:
        _unlink(os.path.join(os.path.dirname(start), other))
    # Last, while it is locked: a process that joins now sees that its file has gone and makes a new one.
    _unlink(start + _LOCK)
    return True


def _flat(buffer: Buffer) -> memoryview:
    view = memoryview(buffer)
    # A view with a zero in its shape cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _layout(object_id: bytes, sizes: Sequence[int], meta: bytes) -> tuple[bytes, list[int], int]:
    """Return what stands before the buffers, the offset of each, and the size of all."""
    if not 1 <= len(object_id) <= _LONGEST_ID:
        raise ValueError(f"object id of {len(object_id)} bytes; 1 to {_LONGEST_ID} are possible")
    before = _HEADER.size + _RANGE.size * len(sizes) + len(meta)
    start = -(-before // ALIGNMENT) * ALIGNMENT if sizes else before
    places, length = in_body(sizes)
    places = [start + place for place in places]
    at = start + length
    header = _HEADER.pack(_MAGIC, len(object_id), object_id, len(sizes), len(meta), at)
    table = b"".join([_RANGE.pack(place, size) for place, size in zip(places, sizes, strict=True)])
    return header + table + meta, places, at


def in_body(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where buffers of these sizes lie in what `body` returns, and how large that is."""
    at, places = 0, []
    for size in sizes:
        at = -(-at // ALIGNMENT) * ALIGNMENT
        places.append(at)
        at += size
    return places, at


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
        copy_into(target, place, view)


def _parse(whole: memoryview, object_id: bytes) -> tuple[bytes, list[tuple[int, int]], int]:
    """Return an object's meta, where its buffers lie, and the size of all."""
    if whole.nbytes >= _HEADER.size:
        magic, id_length, padded_id, count, meta_length, size = _HEADER.unpack_from(whole)
        if magic == _MAGIC and padded_id[:id_length] == object_id and size <= whole.nbytes:
            at = _HEADER.size + _RANGE.size * count
            ranges = list(_RANGE.iter_unpack(whole[_HEADER.size : at]))
            return bytes(whole[at : at + meta_length]), ranges, size
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


def _nothing() -> None:
    """Do nothing."""


def _before_fork() -> None:
    # Parent and child would share the locks of what is kept, and each unlock what the other views.
    for store in list(_stores):
        store.mappings.abandon()


def _after_fork() -> None:
    for store in list(_stores):
        store._forked()


# The one thing here that is not an object's: a child must not reuse its parent's files, nor wait for its locks.
_stores = weakref.WeakSet()
os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
