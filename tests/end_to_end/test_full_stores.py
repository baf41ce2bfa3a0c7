"""Stores without room: Redis at its limit, shared memory at its own, a tiny /dev/shm; and places to spill to."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster_utils import Cluster
from rabbitry.exceptions import ActorUnavailableError, ObjectStoreFullError, OutOfDiskError
from tests.end_to_end.conftest import node_environment
from tests.end_to_end.inspection import objects_kept, wait_until
from tests.servers import RedisServer

MEBIBYTE = 1 << 20
LIMIT = 96 * MEBIBYTE

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _writers_wait_for_room_but_not_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITRY_STORE_FULL_SECONDS", "3")


def large(mebibytes: int = 8, value: int = 1) -> Any:
    return numpy.full(mebibytes * MEBIBYTE, value, numpy.uint8)


@rabbitry.remote
def identity(value: Any) -> Any:
    return value


@rabbitry.remote(max_retries=0)
def make(mebibytes: int) -> Any:
    return large(mebibytes)


@rabbitry.remote(max_retries=0)
def make_small(count: int) -> Any:
    return [rabbitry.put(os.urandom(50_000)) for _ in range(count)]


def limit_redis(room: int) -> None:
    """Leave the session's Redis so many bytes of room."""
    store = current.client().store
    used = dict(line.split(b":", 1) for line in store.call(b"INFO", b"memory").splitlines() if b":" in line)
    store.call(b"CONFIG", b"SET", b"maxmemory", int(used[b"used_memory"]) + room)


@pytest.fixture(params=["embedded", "rabbitmq"])
def limited(
    request: pytest.FixtureRequest,
    start_redis: Callable[..., RedisServer],
    session_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """A session whose Redis has a limit; in a cluster, large values are written to it at once."""
    if request.param == "embedded":
        rabbitry.init(num_cpus=2, log_to_driver=False)
        try:
            limit_redis(48 * MEBIBYTE)
            yield "embedded"
        finally:
            rabbitry.shutdown()
        return
    monkeypatch.setenv("RABBITRY_VALUE_COPIES", "eager")
    broker = request.getfixturevalue("rabbitmq_server")
    vhost = f"full-{os.getpid()}"
    server = start_redis(config={"maxmemory": "48mb"})
    cluster = Cluster(engine="rabbitmq", broker_url=broker.add_vhost(vhost), store_url=server.url)
    try:
        cluster.add_node(num_cpus=2)
        cluster.connect(log_to_driver=False)
        cluster.wait_for_nodes(10)
        yield "rabbitmq"
    finally:
        cluster.shutdown()
        broker.delete_vhost(vhost)


def fill(refs: list[Any], value: Callable[[], Any]) -> ObjectStoreFullError:
    """Put values until there is no room; return the error."""
    for _ in range(5_000):
        try:
            refs.append(rabbitry.put(value()))
        except ObjectStoreFullError as error:
            return error
    raise AssertionError("the store is never full")


def test_small_values_fill_redis_and_the_cluster_goes_on(limited: str) -> None:
    refs: list[Any] = []
    error = fill(refs, lambda: os.urandom(50_000))
    assert "an object of 50,0" in str(error)
    assert "maxmemory" in str(error)
    del error  # its traceback has the refs
    assert rabbitry.get(identity.remote("small"), timeout=20) == "small"
    with pytest.raises(ObjectStoreFullError):
        rabbitry.get(make_small.remote(1000), timeout=30)
    assert rabbitry.get(identity.remote("still"), timeout=20) == "still"
    assert {len(value) for value in rabbitry.get(refs)} == {50_000}
    del refs[10:]
    gc.collect()
    wait_until(lambda: len(rabbitry.get(rabbitry.put(b"x" * 50_000))) == 50_000)
    assert len(rabbitry.get(make_small.remote(50), timeout=30)) == 50


def test_large_values_fill_redis_and_nothing_is_dropped(limited: str) -> None:
    if limited == "embedded":
        pytest.skip("large values are in shared memory there")
    refs: list[Any] = []
    error = fill(refs, large)
    assert f"an object of {8 * MEBIBYTE:,}" in str(error)
    assert "maxmemory" in str(error)
    del error  # its traceback has the refs
    assert rabbitry.get(identity.remote("small"), timeout=20) == "small"
    with pytest.raises(ObjectStoreFullError):
        rabbitry.get(make.remote(16), timeout=30)
    assert [int(value[-1]) for value in rabbitry.get(refs)] == [1] * len(refs)

    # A writer that waits gets the room that another one leaves.
    written: list[Any] = []

    def write(into: list[Any]) -> None:
        into.append(rabbitry.put(large(8, 2)))

    thread = threading.Thread(target=write, args=(written,))
    thread.start()
    time.sleep(0.5)
    del refs[:2]
    gc.collect()
    thread.join()
    assert int(rabbitry.get(written[0])[-1]) == 2
    del refs, written
    gc.collect()
    wait_until(lambda: not objects_kept(), text=objects_kept)


@pytest.mark.long
@pytest.mark.parametrize("limited", ["rabbitmq"], indirect=True)
def test_a_durable_actor_whose_state_has_no_room_says_so_and_the_cluster_goes_on(limited: str) -> None:
    @rabbitry.remote(num_cpus=0, durable=True)
    class Grows:
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def add(self, size: int) -> int:
            self.parts.append(os.urandom(size))
            return len(self.parts)

    nodes = [node["NodeID"] for node in rabbitry.nodes()]
    actor = Grows.remote()
    with pytest.raises(ActorUnavailableError, match=r"state of durable actor Grows cannot be committed: .*maxmemory"):
        rabbitry.get([actor.add.remote(4 * MEBIBYTE) for _ in range(12)], timeout=60)
    del actor
    assert rabbitry.get(identity.remote(identity.remote(1)), timeout=60) == 1
    assert [node["NodeID"] for node in rabbitry.nodes() if node["Alive"]] == nodes


def test_a_value_larger_than_all_there_is_fails(limited: str, tmp_path: Path) -> None:
    hole = tmp_path / "hole"
    with hole.open("wb") as file:
        os.ftruncate(file.fileno(), 1 << 40)  # takes no space
    array = numpy.asarray(numpy.memmap(hole, numpy.uint8, "r"))
    with pytest.raises(
        OutOfDiskError if limited == "embedded" else ObjectStoreFullError,
        match=r"an object of 1,099,511,[0-9,]+ bytes does not fit in the [0-9,]+ ",
    ):
        rabbitry.put(array)


# -- shared memory ---------------------------------------------------------------------------------------------------


def test_the_limit_of_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITRY_SPILL_URL", "off")
    rabbitry.init(num_cpus=1, object_store_memory=LIMIT, log_to_driver=False)
    try:
        refs: list[Any] = []
        error = fill(refs, large)
        assert f"{LIMIT:,}" in str(error)
        del error
        assert 8 <= len(refs) <= 12
        with pytest.raises(ObjectStoreFullError):
            rabbitry.get(make.remote(16), timeout=30)
        del refs[:4]
        assert rabbitry.get(make.remote(8), timeout=30).nbytes == 8 * MEBIBYTE
        assert rabbitry.cluster_resources()["object_store_memory"] == LIMIT
    finally:
        rabbitry.shutdown()


SMALL_MEMORY = """
import logging, numpy, rabbitry
rabbitry.init(num_cpus=2, log_to_driver=False)

@rabbitry.remote
def same(value):
    return value

@rabbitry.remote
def make(at):
    return numpy.full(3_000_000, at, "int64")

values = [numpy.full(3_000_000, at, "int64") for at in range(8)]  # 24 MB each
refs = [rabbitry.put(value) for value in values]
assert all((rabbitry.get(ref) == value).all() for ref, value in zip(refs, values))
assert (rabbitry.get(same.remote(refs[7])) == 7).all()
assert [int(value[-1]) for value in rabbitry.get([make.remote(at) for at in range(6)])] == list(range(6))
print("all there")
"""


def test_a_small_dev_shm_is_stepped_over(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SMALL_MEMORY)
    command = f"mount -t tmpfs -o size=64m tmpfs /dev/shm && exec {sys.executable} {program}"
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]).returncode:
        pytest.skip("needs root and mount namespaces")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], env=node_environment(), capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all there\n"
    assert done.stderr.count("shared memory has no room") == 1
    assert "slower" in done.stderr


# -- spilling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["default", "argument", "directory", "file url", "fsspec"])
def test_what_has_no_room_is_spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    place = tmp_path / "spilled"
    place.mkdir()
    if kind == "fsspec":
        pytest.importorskip("fsspec")
    url = {"directory": str(place), "file url": f"file://{place}", "fsspec": f"local://{place}"}.get(kind, "")
    monkeypatch.setenv("RABBITRY_SPILL_URL", url)
    argument = {"object_spilling_directory": str(place)} if kind == "argument" else {}

    def files() -> list[Path]:
        return [path for path in place.rglob("*") if path.is_file() and "rabbitry-spill" in str(path)]

    context = rabbitry.init(num_cpus=2, object_store_memory=LIMIT, log_to_driver=False, **argument)
    try:
        if kind == "default":
            place = Path(context.address_info["session_dir"])
        refs = [rabbitry.put(large(8, at)) for at in range(20)]
        refs += [make.remote(8) for _ in range(4)]
        assert [int(value[-1]) for value in rabbitry.get(refs)] == [*range(20), 1, 1, 1, 1]
        assert len(files()) >= 12
        assert rabbitry.get(identity.remote(refs[19]))[0] == 19
        assert rabbitry.get(identity.remote(large(8, 7)))[0] == 7, "an argument"
        if kind != "fsspec":
            assert {path.stat().st_mode & 0o777 for path in files()} == {0o600}
        last = refs[19]
        # Without the help of the collector of cycles: an error on the way to the disk must not keep what it saw.
        del refs
        wait_until(lambda: len(files()) <= 1)
        assert int(rabbitry.get(last)[-1]) == 19
        del last
        wait_until(lambda: not files() and not objects_kept(), text=lambda: (files(), objects_kept()))
    finally:
        rabbitry.shutdown()
    assert not files()


def test_a_cluster_spills_what_redis_has_no_room_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_redis: Callable[..., RedisServer],
    rabbitmq_server: Any,
) -> None:
    monkeypatch.setenv("RABBITRY_SPILL_URL", str(tmp_path))
    monkeypatch.setenv("RABBITRY_SHARED_MEMORY_LIMIT", str(24 * MEBIBYTE))
    vhost = f"spill-{os.getpid()}"
    server = start_redis(config={"maxmemory": "48mb"})
    cluster = Cluster(engine="rabbitmq", broker_url=rabbitmq_server.add_vhost(vhost), store_url=server.url)
    try:
        cluster.add_node(num_cpus=2)
        cluster.connect(log_to_driver=False)
        cluster.wait_for_nodes(10)
        # First shared memory, then Redis, then the disk.
        refs = [rabbitry.put(large(8, at)) for at in range(12)] + [make.remote(16)]
        assert [int(value[-1]) for value in rabbitry.get(refs)] == [*range(12), 1]
        assert objects_kept()["file"] and objects_kept()["x"]
        assert any(path.is_file() for path in tmp_path.rglob("*"))
        assert rabbitry.get(identity.remote(refs[9]))[0] == 9
        del refs
        gc.collect()
        wait_until(lambda: not any(path.is_file() for path in tmp_path.rglob("*")))
    finally:
        cluster.shutdown()
        rabbitmq_server.delete_vhost(vhost)
