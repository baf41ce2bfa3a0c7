"""What processes of a host share besides objects: files to be written again, and who does what only one needs to do."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitry_broker.shared_memory import SharedMemoryStore, default_directory, files, pool, recycling
from rabbitry_broker.shared_memory.claims import claim
from rabbitry_broker.shared_memory.pool import Pool
from tests.servers import wait_until

MIB = 1 << 20


@pytest.fixture
def session() -> Iterator[str]:
    name = f"reuse{os.urandom(4).hex()}"
    yield name
    SharedMemoryStore(name).clear()


def inode(store: SharedMemoryStore, key: bytes) -> int:
    return os.stat(f"{default_directory()}/rabbitry-{store.session_id}-{key.hex()}").st_ino


def pooled(store: SharedMemoryStore) -> list[str]:
    start = f"rabbitry-{store.session_id}-pool."
    return [name for name in os.listdir(default_directory()) if name.startswith(start)]


def test_a_file_that_another_process_made_is_used_again_by_any(session: str) -> None:
    maker, sweeper, next_one = (SharedMemoryStore(session) for _ in range(3))
    maker.create(b"a", [b"a" * 2 * MIB])
    before = inode(maker, b"a")
    sweeper.delete([b"a"])
    next_one.create(b"b", [b"b" * (2 * MIB - 100)])
    assert inode(next_one, b"b") == before
    assert bytes(maker.open(b"b")[1][0]) == b"b" * (2 * MIB - 100)
    assert not pooled(maker)


def test_what_somebody_views_is_not_used_again(session: str) -> None:
    maker, sweeper = SharedMemoryStore(session), SharedMemoryStore(session)
    maker.create(b"a", [b"a" * 2 * MIB])
    _, views = maker.open(b"a")
    sweeper.delete([b"a"])
    assert not pooled(maker)
    maker.create(b"b", [b"b" * 2 * MIB])
    assert bytes(views[0]) == b"a" * 2 * MIB


def test_the_pool_is_bounded_and_given_back(session: str) -> None:
    maker, sweeper = (SharedMemoryStore(session, recycle_bytes=2 * MIB) for _ in range(2))
    keys = [b"%d" % number for number in range(8)]
    for key in keys:
        maker.create(key, [bytes(MIB)])
    sweeper.delete(keys)
    assert len(pooled(maker)) == 3, "4 MiB, and each takes a little more than one"
    maker.trim(60.0)
    assert len(pooled(maker)) == 3
    maker.trim(0.0)
    assert not pooled(maker)
    assert maker.used_bytes == 0


def test_what_waits_too_long_goes_with_the_orphans(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, sweeper = SharedMemoryStore(session), SharedMemoryStore(session)
    maker.create(b"a", [bytes(2 * MIB)])
    sweeper.delete([b"a"])
    sweeper.remove_orphans()
    assert pooled(maker)
    later = time.time() + pool.KEPT_SECONDS + 1
    monkeypatch.setattr(pool.time, "time", lambda: later)
    sweeper.remove_orphans()
    assert not pooled(maker)


def test_room_is_made_of_the_pool(session: str) -> None:
    maker, sweeper = SharedMemoryStore(session, limit_bytes=5 * MIB), SharedMemoryStore(session)
    maker.create(b"a", [bytes(3 * MIB)])
    sweeper.delete([b"a"])
    assert pooled(maker)
    maker.create(b"b", [bytes(4 * MIB)])
    assert not pooled(maker)


def test_two_never_take_the_same_file(session: str) -> None:
    maker, sweeper = SharedMemoryStore(session), SharedMemoryStore(session)
    wrong: list[int] = []

    def work(number: int) -> None:
        store = SharedMemoryStore(session)
        for turn in range(30):
            key = b"%d.%d" % (number, turn)
            value = bytes((number,)) * MIB
            store.create(key, [value])
            if bytes(store.open(key)[1][0]) != value:
                wrong.append(number)
            sweeper.delete([key])

    for key in (b"x", b"y"):
        maker.create(key, [bytes(MIB)])
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    sweeper.delete([b"x", b"y"])
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_a_writer_that_fails_leaves_no_half_object(session: str) -> None:
    maker, sweeper, next_one = (SharedMemoryStore(session) for _ in range(3))
    maker.create(b"a", [bytes(2 * MIB)])
    sweeper.delete([b"a"])

    def fill(piece: memoryview) -> None:
        raise RuntimeError("it broke off")

    with pytest.raises(RuntimeError):
        next_one.receive(b"b", [2 * MIB], fill)
    with pytest.raises(FileNotFoundError):
        maker.open(b"b")
    assert maker.used_bytes == 0


def test_what_a_killed_writer_held_is_nobodys_and_goes_with_the_orphans(
    session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, sweeper = SharedMemoryStore(session), SharedMemoryStore(session)
    maker.create(b"a", [bytes(2 * MIB)])
    sweeper.delete([b"a"])
    start = f"{default_directory()}/rabbitry-{session}-"
    program = (
        "import sys, time\nfrom rabbitry_broker.shared_memory.pool import Pool\n"
        f"taken = Pool({start!r}, 1 << 30).take(2 << 20, {start + 'ab.1.2'!r})\n"
        "assert taken\nprint('taken', flush=True)\ntime.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    monkeypatch.setattr(files, "_ORPHAN_S", -1.0)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        assert Pool(start, 1 << 30).take(2 * MIB, f"{start}cd.3.4") is None
        assert maker.remove_orphans() == 0
        process.kill()
    wait_until(maker.remove_orphans, "it is deleted")
    assert maker.used_bytes == 0


def test_two_that_delete_the_same_object_do_not_empty_the_next_one(
    session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, slow, quick, next_one = (SharedMemoryStore(session) for _ in range(4))
    maker.create(b"a", [b"a" * 2 * MIB])
    before = inode(maker, b"a")
    stands_for = recycling._stands_for

    def overtaken(path: str, file: int) -> bool:
        found = stands_for(path, file)
        monkeypatch.setattr(recycling, "_stands_for", stands_for)
        # Between the slow one's look at the file and its lock another one deletes it, and it is used again.
        quick.delete([b"a"])
        next_one.create(b"b", [b"b" * 2 * MIB])
        return found

    monkeypatch.setattr(recycling, "_stands_for", overtaken)
    slow.delete([b"a"])
    assert inode(maker, b"b") == before
    assert bytes(maker.open(b"b")[1][0]) == b"b" * 2 * MIB


def test_a_file_that_is_being_written_is_nobody_elses(session: str) -> None:
    maker, writer, other = (SharedMemoryStore(session) for _ in range(3))
    maker.create(b"a", [bytes(2 * MIB)])
    other.delete([b"a"])
    assert len(pooled(maker)) == 1

    def fill(piece: memoryview) -> None:
        assert not pooled(maker)
        other.create(b"c", [b"c" * 2 * MIB])
        piece[:] = b"b" * piece.nbytes

    writer.receive(b"b", [2 * MIB], fill)
    assert bytes(maker.open(b"b")[1][0]) == b"b" * 2 * MIB
    assert bytes(maker.open(b"c")[1][0]) == b"c" * 2 * MIB


def test_settled_says_that_an_object_was_on_record_until_its_file_is_used_again(session: str) -> None:
    store = SharedMemoryStore(session)
    store.settle(b"nothing")
    assert not store.is_settled(b"nothing")
    for key in (b"a", b"b", b"c"):
        store.create(key, [bytes(2 * MIB)])
        assert not store.is_settled(key)
        assert store.age(key) < 30.0
        store.settle(key)
        assert store.is_settled(key)
        assert store.age(key) < 30.0, "since it was settled"
        store.delete([key])  # the next one is written into the same file
    other = SharedMemoryStore(session)
    store.create(b"d", [bytes(2 * MIB)])
    store.settle(b"d")
    other.delete([b"d"])
    other.create(b"e", [bytes(2 * MIB)])
    assert not other.is_settled(b"e")


def test_one_at_a_time_holds_a_claim(tmp_path: Path) -> None:
    path = str(tmp_path / "thing")
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with claim(path, 30.0) as held:
                assert held
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 80
    assert max(most) == 1
    assert not os.listdir(tmp_path)


def test_a_claim_of_one_that_was_killed_is_free_and_of_one_that_hangs_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "thing")
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    with claim(path, 0.05) as held:
        assert not held
    os.close(file)  # as the kernel does for a process that is killed
    with claim(path, 0.0) as held:
        assert held
    assert not os.listdir(tmp_path)


def test_a_claim_goes_with_its_holder_whatever_is_raised(tmp_path: Path) -> None:
    path = str(tmp_path / "thing")
    with pytest.raises(RuntimeError), claim(path, 1.0):
        raise RuntimeError
    with claim(path, 0.0) as held:
        assert held
