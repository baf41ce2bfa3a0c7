"""Objects in shared memory are whole or not there, stay as long as they are viewed, and leave nothing behind."""

from __future__ import annotations

import gc
import os
import pickle
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rabbitry_broker import machine
from rabbitry_broker.shared_memory import (
    ALIGNMENT,
    ObjectStoreFull,
    SharedMemoryStore,
    default_directory,
    files,
    room,
    sweep_dead_sessions,
)

MIB = 1 << 20
Make = Callable[..., SharedMemoryStore]


@pytest.fixture
def session() -> str:
    return f"test{os.urandom(4).hex()}"


@pytest.fixture
def make(session: str) -> Iterator[Make]:
    """Return a function that makes stores of one session, as several processes would."""
    made: list[SharedMemoryStore] = []

    def store(**options: object) -> SharedMemoryStore:
        made.append(SharedMemoryStore(session, **options))  # type: ignore[arg-type]
        return made[-1]

    yield store
    for each in made:
        each.clear()
    assert _files(session) == []


def _files(session: str) -> list[str]:
    return sorted(name for name in os.listdir(default_directory()) if name.startswith(f"rabbitry-{session}-"))


def _run(program: str, *args: str) -> str:
    path = [folder for folder in sys.path if folder]
    code = f"import sys; sys.path[:0] = {path!r}\nfrom rabbitry_broker.shared_memory import *\n{program}"
    run = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode in (0, -9), run.stderr
    return run.stdout


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    buffers=st.lists(st.binary(max_size=300), max_size=5),
    meta=st.binary(max_size=100),
    key=st.binary(min_size=1, max_size=36),
)
def test_object_opens_as_it_was_written(make: Make, buffers: list[bytes], meta: bytes, key: bytes) -> None:
    store = make()
    store.create(key, buffers, meta)
    found_meta, views = store.open(key)
    assert found_meta == meta
    assert [bytes(view) for view in views] == buffers
    assert all(view.readonly for view in views)
    store.delete([key])
    store.close()


def test_arrays_are_mapped_aligned_and_read_only(make: Make) -> None:
    arrays: list[np.ndarray[Any, Any]] = [
        np.arange(100_001, dtype=np.int64),
        np.ones(7, dtype=np.uint8),
        np.zeros((0, 3)),
        np.random.default_rng(1).random((300, 300)),
    ]
    make().create(b"id", [array.data for array in arrays])
    _, views = make().open(b"id")
    for array, view in zip(arrays, views, strict=True):
        mapped = np.frombuffer(view, dtype=array.dtype).reshape(array.shape)
        assert mapped.ctypes.data % ALIGNMENT == 0
        assert not mapped.flags.writeable
        np.testing.assert_array_equal(mapped, array)


def test_thousands_of_buffers_are_written(make: Make) -> None:
    store = make()
    buffers = [b"%d" % number for number in range(5000)]
    store.create(b"id", buffers)
    assert [bytes(view) for view in store.open(b"id")[1]] == buffers


def test_write_that_comes_in_pieces_is_completed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda file, pieces: writev(file, [memoryview(pieces[0])[:7]]))
    store = make()
    store.create(b"id", [b"x" * 100, b"", b"y" * 15], b"meta")
    meta, views = store.open(b"id")
    assert (meta, [bytes(view) for view in views]) == (b"meta", [b"x" * 100, b"", b"y" * 15])


def test_files_belong_to_the_user_alone(make: Make, session: str) -> None:
    make().create(b"\xab", [b"x"])
    assert _files(session) == [f"rabbitry-{session}-ab", f"rabbitry-{session}-lock"]
    for name in _files(session):
        assert stat.S_IMODE(os.stat(os.path.join(default_directory(), name)).st_mode) == 0o600


def test_missing_and_deleted_objects_are_not_found(make: Make) -> None:
    store = make()
    with pytest.raises(FileNotFoundError):
        store.open(b"id")
    store.create(b"id", [b"x"])
    store.delete([b"id", b"never there"])
    with pytest.raises(FileNotFoundError):
        make().open(b"id")


@pytest.mark.parametrize("size", [100, 2 * MIB])
def test_views_outlive_deletion_clearing_and_reuse(make: Make, size: int) -> None:
    maker, reader = make(), make()
    maker.create(b"old", [b"o" * size])
    _, (view,) = reader.open(b"old")
    part = view[10:20]
    del view
    maker.delete([b"old"])
    for number in range(3):
        maker.create(b"%d" % number, [b"n" * size])
    reader.clear()
    gc.collect()
    assert bytes(part) == b"o" * 10


def test_replacing_an_object_keeps_the_views_of_the_old_one(make: Make) -> None:
    store = make()
    store.create(b"id", [b"o" * 2 * MIB])
    _, (old,) = store.open(b"id")
    make().create(b"id", [b"n" * 2 * MIB])
    _, (new,) = store.open(b"id")
    assert bytes(old[:1]) == b"o" and bytes(new[:1]) == b"n"
    store.delete([b"id"])
    assert bytes(old[-1:]) == b"o" and bytes(new[-1:]) == b"n"


def _inode(store: SharedMemoryStore, key: bytes) -> int:
    return os.stat(f"{store.directory}/rabbitry-{store.session_id}-{key.hex()}").st_ino


def test_file_that_nobody_views_is_used_again(make: Make) -> None:
    store = make()
    store.create(b"a", [b"a" * 2 * MIB], b"first")
    inode = _inode(store, b"a")
    for round_ in range(3):
        key = b"b%d" % round_
        store.delete([b"a" if not round_ else b"b%d" % (round_ - 1)])
        store.create(key, [bytes([round_]) * (2 * MIB - 100 * round_)], b"meta%d" % round_)
        assert _inode(store, key) == inode
        reader = make()
        meta, (view,) = reader.open(key)
        assert meta == b"meta%d" % round_ and bytes(view) == bytes([round_]) * (2 * MIB - 100 * round_)
        del view
        gc.collect()
        reader.mappings.settle()


def test_file_that_somebody_views_is_not_used_again(make: Make) -> None:
    store = make()
    store.create(b"a", [b"a" * 2 * MIB])
    inode = _inode(store, b"a")
    _, (view,) = make().open(b"a")
    store.delete([b"a"])
    store.create(b"b", [b"b" * 2 * MIB])
    assert _inode(store, b"b") != inode
    assert bytes(view[:1]) == b"a"


def test_file_of_another_size_is_not_used_again(make: Make) -> None:
    store = make()
    store.create(b"a", [bytes(8 * MIB)])
    inode = _inode(store, b"a")
    store.delete([b"a"])
    store.create(b"b", [bytes(2 * MIB)])
    assert _inode(store, b"b") != inode
    store.create(b"c", [bytes(9 * MIB)])
    assert _inode(store, b"c") != inode


def test_file_that_another_process_made_is_deleted_and_its_memory_freed(make: Make) -> None:
    maker, other = make(), make()
    for key in (b"a", b"b"):
        # The second is written into the file of the first, which its maker then keeps mapped.
        maker.create(key, [bytes(2 * MIB)])
        if key == b"a":
            maker.delete([key])
    assert maker.used_bytes >= 2 * MIB
    other.delete([b"b"])
    assert other.used_bytes == 2 * MIB + 4096, "it is kept for whoever writes next"
    other.trim(0.0)
    assert other.used_bytes == 0
    maker.trim(0.0)
    maker.delete([b"b"])
    maker.create(b"c", [b"c" * 2 * MIB])
    assert bytes(other.open(b"c")[1][0][-1:]) == b"c"


def test_trim_gives_back_what_is_kept_for_reuse(make: Make, session: str) -> None:
    store = make()
    store.create(b"a", [bytes(2 * MIB)])
    store.delete([b"a"])
    assert store.used_bytes >= 2 * MIB
    store.trim(60.0)
    assert store.used_bytes >= 2 * MIB
    store.trim(0.0)
    assert store.used_bytes == 0
    assert _files(session) == [f"rabbitry-{session}-lock"]


def test_reuse_is_bounded(make: Make) -> None:
    store = make(recycle_bytes=5 * MIB)
    keys = [b"%d" % number for number in range(6)]
    for key in keys:
        store.create(key, [bytes(2 * MIB - 4096)])
    store.delete(keys)
    assert store.used_bytes <= 5 * MIB
    none = make(recycle_bytes=0)
    none.create(b"x", [bytes(2 * MIB)])
    before = none.used_bytes
    none.delete([b"x"])
    assert none.used_bytes <= before - 2 * MIB


def test_forked_child_does_not_touch_what_its_parent_keeps(make: Make) -> None:
    store = make()
    store.create(b"a", [b"a" * 2 * MIB])
    store.delete([b"a"])
    child = os.fork()
    if child == 0:
        try:
            store.create(b"child", [b"c" * 2 * MIB])
            store.delete([b"child"])
            store.create(b"child", [b"c" * 2 * MIB])
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.create(b"parent", [b"p" * 2 * MIB])
    assert bytes(store.open(b"child")[1][0]) == b"c" * 2 * MIB
    assert bytes(store.open(b"parent")[1][0]) == b"p" * 2 * MIB


def test_readers_racing_with_reuse_see_whole_objects_only(make: Make) -> None:
    store, size, errors = make(), MIB + 17, []
    done = threading.Event()

    def read() -> None:
        reader = make()
        while not done.is_set():
            for number in range(4):
                try:
                    meta, (view,) = reader.open(b"%d" % number)
                except FileNotFoundError:
                    continue
                value = bytes(view)
                if value != meta * size or view.nbytes != size or meta[0] % 4 != number:
                    errors.append((number, meta))
                del view

    threads = [threading.Thread(target=read, name=f"reader-{number}") for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(200):
            key = b"%d" % (round_ % 4)
            store.create(key, [bytes([round_]) * size], bytes([round_]))
            store.delete([key])
    finally:
        done.set()
        for thread in threads:
            thread.join(20)
    assert not errors


def test_threads_may_write_and_delete_at_once(make: Make) -> None:
    store, errors = make(), []

    def work(number: int) -> None:
        try:
            for round_ in range(30):
                key, value = b"%d-%d" % (number, round_), bytes([number, round_]) * (MIB // 2 + number)
                store.create(key, [value])
                assert bytes(store.open(key)[1][0]) == value
                store.delete([key])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,), name=f"writer-{number}") for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    store.trim(0.0)
    assert store.used_bytes == 0


def test_put_larger_than_the_file_system_is_refused(make: Make) -> None:
    store = make()
    found = os.statvfs(store.directory)
    free = found.f_bavail * found.f_frsize
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _path: _small(found))
        with pytest.raises(ObjectStoreFull) as caught:
            store.create(b"id", [bytes(65 * MIB)])
    assert caught.value.needed > 65 * MIB and 0 < caught.value.free < 64 * MIB < free
    assert f"{caught.value.needed:,}" in str(caught.value) and f"{caught.value.free:,}" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert store.used_bytes == 0


def _small(found: os.statvfs_result) -> os.statvfs_result:
    """Return what the default /dev/shm of a container says."""
    block = found.f_frsize
    return os.statvfs_result((block, block, 64 * MIB // block, 64 * MIB // block, 64 * MIB // block, *found[5:]))


def test_put_larger_than_memory_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 10 * MIB)
    with pytest.raises(ObjectStoreFull, match="the machine's memory"):
        make().create(b"id", [bytes(64 * MIB)])


def test_many_small_ones_do_not_fill_the_machine_either(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store, written = make(), 0
    monkeypatch.setattr(machine, "available_memory", lambda: (4 << 30) - written)
    monkeypatch.setattr(machine, "total_memory", lambda: 1 << 40)
    room._machine_reserve.cache_clear()

    def fill() -> None:
        nonlocal written
        for number in range(5000):
            store.create(b"%d" % number, [bytes(MIB)])
            written += 1 << 25  # as if it were 32 times as large

    with pytest.raises(ObjectStoreFull, match="the machine's memory"):
        fill()
    room._machine_reserve.cache_clear()
    # A GiB is left to others, as far as can be seen by one who looks after each 64 MiB of its own.
    assert (3 << 30) - (2 << 25) <= written <= (3 << 30) + (65 << 25)


def test_full_file_system_leaves_nothing_of_the_attempt(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    writev, calls = os.writev, []

    def full(file: int, pieces: list[memoryview]) -> int:
        calls.append(file)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return writev(file, [memoryview(pieces[0])[:10]])

    monkeypatch.setattr(os, "writev", full)
    store = make()
    with pytest.raises(ObjectStoreFull):
        store.create(b"id", [bytes(1000)])
    assert store.used_bytes == 0
    with pytest.raises(FileNotFoundError):
        store.open(b"id")


def test_limit_of_the_session_is_kept(make: Make) -> None:
    store = make(limit_bytes=10 * MIB)
    for number in range(34):
        store.create(b"%d" % number, [bytes(300_000)])
    with pytest.raises(ObjectStoreFull, match="limit is 10,485,760 bytes"):
        store.create(b"one more", [bytes(300_000)])
    assert store.used_bytes <= 10 * MIB
    store.delete([b"%d" % number for number in range(100)])
    store.create(b"again", [bytes(2 * MIB)])


def test_what_is_kept_for_reuse_makes_room(make: Make) -> None:
    store = make(limit_bytes=10 * MIB)
    store.create(b"a", [bytes(8 * MIB)])
    store.delete([b"a"])
    store.create(b"b", [bytes(5 * MIB)])
    assert store.used_bytes < 6 * MIB


def test_sessions_with_like_names_are_apart(session: str) -> None:
    one, other = SharedMemoryStore(session), SharedMemoryStore(session + ".x")
    one.create(b"id", [b"one"])
    other.create(b"id", [b"other"])
    one.clear()
    assert bytes(other.open(b"id")[1][0]) == b"other"
    other.clear()
    assert _files(session) == [] and _files(session + ".x") == []


@pytest.mark.parametrize("name", ["", "a-b", "a/b", "a b", "ä"])
def test_odd_session_ids_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="session id"):
        SharedMemoryStore(name)


def test_odd_object_ids_are_refused(make: Make) -> None:
    for key in (b"", bytes(37)):
        with pytest.raises(ValueError, match="object id"):
            make().create(key, [b"x"])


def test_other_process_maps_the_same_object(make: Make, session: str) -> None:
    make().create(b"id", [b"value" * 1000], b"meta")
    program = "meta, (view,) = SharedMemoryStore(sys.argv[1]).open(b'id'); print(meta, len(view), bytes(view[:5]))"
    assert _run(program, session) == "b'meta' 5000 b'value'\n"


def test_last_process_to_leave_clears_up(session: str) -> None:
    one, other = SharedMemoryStore(session), SharedMemoryStore(session)
    one.create(b"id", [b"x"])
    one.close()
    assert other.open(b"id")
    other.close()
    assert _files(session) == []


KILLED = """
import os, signal
store = SharedMemoryStore(sys.argv[1])
store.create(b"id", [bytes(100)])
store.create(b"big", [bytes(2 << 20)])
store.delete([b"big"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_session_is_swept_by_the_next(session: str) -> None:
    _run(KILLED, session)
    assert len(_files(session)) == 3
    with_another = SharedMemoryStore(session + "next")
    assert _files(session) == []
    with_another.clear()
    assert _files(session + "next") == []


def test_what_is_written_after_the_session_was_cleared_goes_with_its_writer(session: str) -> None:
    late, owner = SharedMemoryStore(session), SharedMemoryStore(session)
    owner.clear()
    late.create(bytes(28), [bytes(100)])
    assert len(_files(session)) == 1, "and there is no lock file"
    sweep_dead_sessions()
    assert len(_files(session)) == 1, "too young: somebody may be about to lock"
    late.close()
    assert _files(session) == []


def test_what_is_written_after_the_session_was_cleared_is_swept_if_its_writer_is_killed(
    session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = Path(default_directory(), f"rabbitry-{session}-{bytes(28).hex()}")
    odd = Path(default_directory(), f"rabbitry-{session}-notes")
    for path in (stray, odd):
        path.write_bytes(b"x")
    monkeypatch.setattr(files, "_ORPHAN_S", -1.0)
    try:
        sweep_dead_sessions()
        assert not stray.exists()
        assert odd.exists(), "nothing of ours"
    finally:
        odd.unlink()


def test_sweep_spares_the_living(make: Make) -> None:
    store = make()
    store.create(b"id", [b"x"])
    sweep_dead_sessions()
    assert bytes(store.open(b"id")[1][0]) == b"x"


def test_what_a_killed_process_had_in_hand_is_removed(
    make: Make, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    _run(KILLED, session)
    unfinished = Path(default_directory(), f"rabbitry-{session}-{b'x'.hex()}.1.2")
    unfinished.write_bytes(b"half")
    store.create(b"mine", [bytes(2 * MIB)])
    store.delete([b"mine"])
    assert store.remove_orphans() == 0, "too young to be sure"
    monkeypatch.setattr(files, "_ORPHAN_S", -1.0)
    assert store.remove_orphans() == 2
    assert not unfinished.exists()
    assert store.open(b"id")
    store.create(b"mine", [bytes(2 * MIB)])
    assert store.open(b"mine")


def test_planted_file_is_not_opened(make: Make, session: str) -> None:
    store = make()
    planted = Path(default_directory(), f"rabbitry-{session}-{b'id'.hex()}")
    for text in (b"", b"short", b"WSM1" + bytes(60), bytes(1000)):
        planted.write_bytes(text)
        with pytest.raises(FileNotFoundError):
            store.open(b"id")
    planted.unlink()
    target = planted.with_suffix(".target")
    target.write_bytes(b"secret")
    planted.symlink_to(target)
    with pytest.raises(FileNotFoundError, match="another user"):
        store.open(b"id")
    if os.geteuid() == 0:
        planted.unlink()
        store.create(b"id", [b"x"])
        os.chown(planted, 12345, -1)
        with pytest.raises(FileNotFoundError, match="another user"):
            store.open(b"id")


def test_a_full_store_says_what_there_is() -> None:
    assert str(ObjectStoreFull(2000, 1000, "x")) == "an object of 2,000 bytes does not fit in the 1,000 bytes left in x"
    assert str(ObjectStoreFull(2000, 0, "x")) == "an object of 2,000 bytes does not fit as no room is left in x"
    assert str(ObjectStoreFull(0, 0, "x")) == "there is no room in x"
