"""The objects of one session: written, mapped, deleted. See the package for how that goes together."""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Final

from rabbitry_broker.shared_memory.claims import SUFFIX, claim
from rabbitry_broker.shared_memory.files import is_orphan, unlink
from rabbitry_broker.shared_memory.layout import Buffer, copy, flat, lay_out, parse, pieces, write
from rabbitry_broker.shared_memory.mappings import Mappings, map_privately
from rabbitry_broker.shared_memory.pool import KEPT_SECONDS, Pool, capacity_in
from rabbitry_broker.shared_memory.recycling import Recycler
from rabbitry_broker.shared_memory.room import Room
from rabbitry_broker.shared_memory.sessions import LOCK, Session, default_directory

# What is received goes through so much memory, which stays in the processor's cache, or into a mapping in such pieces.
_PIECE_BYTES: Final = 256 << 10
# Of what a process may keep for itself, and of all shared memory: what the host's pool may hold. A gigabyte is what a
# shuffle of some nodes drops at once; it is there for some seconds only, and given back where room is short.
_POOL_SHARE: Final = 4
_POOL_OF_ALL: Final = 16

# The one thing here that is not an object's: a child must not reuse its parent's files, nor wait for its locks.
_stores: weakref.WeakSet[SharedMemoryStore]


class SharedMemoryStore:
    """The objects of one session on this host. Any thread may call anything; a forked child may go on using it.

    Call `trim` about once a second: it gives back what is kept for reuse and was not.

    Args:
        session_id: letters, digits, `_` and `.`; processes with the same id share objects.
        limit_bytes: what all objects of the session may take together; None for what the file system has.
        recycle_bytes: what deleted files this process may keep for reuse.
        directory: where the files are; None for /dev/shm, or the temporary directory where there is none.
        join: take part in the session at once; else that is for `join` to do.

    Attributes:
        room: what objects may take.
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
        join: bool = True,
    ) -> None:
        if not session_id or not session_id.isascii() or not all(char.isalnum() or char in "_." for char in session_id):
            raise ValueError(f"session id {session_id!r} may have letters, digits, '_' and '.' only")
        self.session_id = session_id
        self.directory = directory or default_directory()
        self._session = Session(self.directory, session_id)
        self._start = self._session.start
        self.room = Room(self.directory, limit_bytes, self._session.used_bytes)
        self._recycle_bytes = recycle_bytes
        self._pool = Pool(self._start, min(_POOL_SHARE * recycle_bytes, self.capacity_bytes // _POOL_OF_ALL))
        self._recycler = Recycler(self._start, recycle_bytes, self._pool)
        self._numbers = itertools.count()
        self.mappings = Mappings()
        self.on_kept: Callable[[], object] = _nothing
        if join:
            self.join()

    def join(self) -> None:
        """Take part in the session. Once a process, and before anything else."""
        self._session.join()
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
        views = [flat(buffer) for buffer in buffers]
        head, places, size = lay_out(object_id, [view.nbytes for view in views], meta)
        self._make(
            object_id,
            size,
            lambda target: copy(target, head, places, views),
            lambda file: write(file, pieces(head, places, views)),
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
        head, places, size = lay_out(object_id, sizes, b"")
        start = places[0] if places else size

        def into(target: mmap.mmap) -> None:
            target[: len(head)] = head
            with memoryview(target) as whole:
                for at in range(start, size, _PIECE_BYTES):
                    with whole[at : min(at + _PIECE_BYTES, size)] as piece:
                        fill(piece)

        def through(file: int) -> None:
            write(file, [head, bytes(start - len(head))])
            with memoryview(bytearray(min(_PIECE_BYTES, size - start))) as buffer:
                for at in range(start, size, _PIECE_BYTES):
                    with buffer[: min(_PIECE_BYTES, size - at)] as piece:
                        fill(piece)
                        write(file, [piece])

        self._make(object_id, size, into, through)

    def _make(
        self, object_id: bytes, size: int, into: Callable[[mmap.mmap], None], through: Callable[[int], None]
    ) -> None:
        """Write an object: `into` the mapping of a file that is used again, or `through` a descriptor of a new one."""
        path = self._start + object_id.hex()
        if self._recycler.write(size, object_id, path, into) or self._write_again(size, path, through):
            return
        self._session.join()
        self.room.require(size, lambda: self.trim(0.0))
        temporary = f"{path}.{os.getpid()}.{next(self._numbers)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(temporary, flags, 0o600)
        try:
            through(file)
            os.rename(temporary, path)
        except BaseException as error:
            unlink(temporary)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self.room.missing(size) from error
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
            unlink(temporary)
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
            keep: if it is large, keep the mapping for the next time (see `shared_memory.mappings`).

        Raises:
            FileNotFoundError: it is not there, is not ours, or is just being deleted.
        """
        whole = self._map(object_id, keep=keep)
        meta, ranges, _ = parse(whole, object_id)
        return meta, [whole[start : start + length] for start, length in ranges]

    def body(self, object_id: bytes) -> tuple[list[int], memoryview]:
        """Map an object and return the size of each buffer, and all of them with what lies between, for `receive`.

        Raises:
            FileNotFoundError: as `open`.
        """
        whole = self._map(object_id, keep=False)
        _, ranges, size = parse(whole, object_id)
        return [length for _, length in ranges], whole[ranges[0][0] if ranges else size : size]

    def claim(self, object_id: bytes, patience: float) -> AbstractContextManager[bool]:
        """Hold, in a `with` statement, what only one process of this host does for an object at a time.

        See `claims.claim`.
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
            mapping = map_privately(file)
            kept = keep and self.mappings.keep(file, mapping, path)
            whole = memoryview(mapping).toreadonly()
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
        for entry in self._session.files():
            rest = entry.name.rpartition("-")[2]
            if "." in rest and capacity_in(rest) is None and is_orphan(entry.path):
                unlink(entry.path)
                removed += 1
        return removed

    def names(self) -> list[bytes]:
        """Return the ids of all objects of the session."""
        found = []
        for entry in self._session.files():
            text = entry.name.rpartition("-")[2]
            if "." not in text and text != LOCK:
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

        See `Session.keep`.
        """
        return self._session.keep()

    def stop_keeping(self) -> None:
        """Take back what `keep` said. May be called twice."""
        self._session.stop_keeping()

    def is_kept(self) -> bool:
        """True if a process looks after the session's objects (see `keep`). HOT PATH: three system calls."""
        return self._session.is_kept()

    def clear(self) -> None:
        """Delete all files of the session, whoever made them, and let go. Views stay valid. May be called twice."""
        self.close()
        for entry in self._session.files():
            unlink(entry.path)

    def close(self) -> None:
        """Leave the session and let go of what is kept for reuse. Whoever leaves last deletes the session's files.

        Views stay valid. May be called twice; `create` joins the session again.
        """
        self.stop_keeping()
        self.mappings.abandon()
        self._recycler.close()
        self._session.leave()

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the session's files may take: its limit, or all that the file system has but a reserve."""
        return self.room.capacity_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes that the session's files take (those without a name, still viewed, not counted)."""
        return self._session.used_bytes()

    def _forked(self) -> None:
        """Start anew in a forked child: what the parent keeps for reuse is the parent's."""
        self._pool.forget_in_child()
        self._recycler.abandon()
        self._recycler = Recycler(self._start, self._recycle_bytes, self._pool)
        self.room.start_anew()
        self.stop_keeping()


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


def _nothing() -> None:
    """Do nothing."""


def _before_fork() -> None:
    # Parent and child would share the locks of what is kept, and each unlock what the other views.
    for store in list(_stores) if _stores else ():
        store.mappings.abandon()


def _after_fork() -> None:
    for store in list(_stores) if _stores else ():
        store._forked()


# The one thing here that is not an object's: a child must not reuse its parent's files, nor wait for its locks.
_stores = weakref.WeakSet()
os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
