"""What Redis does besides dying: its ways to keep data, a full memory, a failover to the replica."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry.core.resolve import inbox
from rabbitry.exceptions import ActorError
from tests.chaos.conftest import call_failed
from tests.chaos.ledger import Ledger
from tests.chaos.leftovers import assert_nothing_left
from tests.chaos.stage import NODE_LEASE, Stage
from tests.chaos.workload import ACTOR_LOST, Counter, Echo, Workload, plain
from tests.sentinels import Sentinels
from tests.servers import RabbitMQServer, RedisServer

SUBMISSIONS = 100
FULL_SECONDS = NODE_LEASE + 2


def probe(ledger: Ledger) -> None:
    assert rabbitry.get(plain.remote(ledger.path, "probe", 1), timeout=5) == 4


@pytest.fixture
def make_stage(
    servers: tuple[RabbitMQServer, RedisServer],
    start_redis: Callable[..., RedisServer],
    seed: int,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[RedisServer, str | None], Stage]]:
    """Return a function that makes a stage on a Redis of the test's own, from `start_redis`, which outlives it."""
    print(f"RABBITRY_CHAOS_SEED={seed}")
    rabbitmq, _ = servers
    rabbitmq.start()
    made: list[Stage] = []

    def make(server: RedisServer, store_url: str | None = None) -> Stage:
        stage = Stage(rabbitmq, server, seed, store_url=store_url)
        made.append(stage)
        stage.start()
        return stage

    yield make
    try:
        for stage in made:
            if not call_failed(request):
                assert_nothing_left(stage)
    finally:
        for stage in made:
            print(stage.logs())
            stage.stop()


def test_everysec_loses_nothing_when_the_process_is_killed(
    make_stage: Callable[..., Stage], start_redis: Callable[..., RedisServer], ledger: Ledger
):
    """What was written is with the kernel, and survives the process (not the machine: see docs/deployment.md)."""
    stage = make_stage(start_redis(appendonly=True, appendfsync="everysec"))
    workload = Workload(ledger, stage.random)
    for _ in range(3):
        workload.submit(SUBMISSIONS // 3)
        stage.restart_redis()
        stage.healed()
        stage.recovery("kill -9 of Redis with appendfsync everysec", lambda: probe(ledger))
    workload.finish()


def append_only_file(server: RedisServer) -> Path:
    """Return the file that a server appends to now."""
    (path,) = [*server.directory.glob("appendonlydir/*.incr.aof"), *server.directory.glob("appendonly.aof")]
    return path


def test_what_the_death_of_the_machine_costs_with_everysec(
    make_stage: Callable[..., Stage], start_redis: Callable[..., RedisServer], ledger: Ledger
):
    """The last second: what had been written before it stays, durable actors go back by it, and work goes on."""
    server = start_redis(appendonly=True, appendfsync="everysec", config={"auto-aof-rewrite-percentage": "0"})
    stage = make_stage(server)
    counter, mortal = Counter.remote(), Counter.remote()
    assert (
        rabbitry.get([each.increment.remote() for _ in range(20) for each in (counter, mortal)], timeout=20)[-1] == 20
    )
    kept = [rabbitry.put(b"kept" * 50_000), rabbitry.put("kept")]
    workload = Workload(ledger, stage.random)
    workload.submit(SUBMISSIONS // 2)
    workload.finish()
    on_disk = append_only_file(server).stat().st_size
    # From here on all that is answered is in the kernel's memory only.
    told = rabbitry.get([each.increment.remote() for _ in range(10) for each in (counter, mortal)], timeout=20)[-1]
    assert told == 30
    newcomer = Counter.options(name="newcomer", namespace="chaos").remote()
    assert rabbitry.get(newcomer.increment.remote(), timeout=20) == 1
    known = [plain.remote(ledger.path, f"known-{number}", number) for number in range(20)]
    assert rabbitry.get(known, timeout=20)[-1] == 58
    pid = rabbitry.get(mortal.pid.remote(), timeout=20)
    server.kill()
    os.kill(pid, signal.SIGKILL)
    os.truncate(append_only_file(server), on_disk)
    server.start()
    stage.healed()
    stage.recovery("the death of the machine of Redis with appendfsync everysec", lambda: probe(ledger))
    assert [rabbitry.get(each, timeout=20) for each in kept] == [b"kept" * 50_000, "kept"]
    assert rabbitry.get(known, timeout=20)[-1] == 58, "what the driver was told is not forgotten"
    assert rabbitry.get(counter.increment.remote(), timeout=20) == 31, "its process knows better than Redis"
    assert rabbitry.get(mortal.increment.remote(), timeout=20) == 21
    with pytest.raises(rabbitry.exceptions.ActorError):
        rabbitry.get(newcomer.increment.remote(), timeout=20)
    workload.submit(SUBMISSIONS // 2)
    workload.finish()


def test_work_waits_while_redis_is_full(
    make_stage: Callable[..., Stage], start_redis: Callable[..., RedisServer], ledger: Ledger
):
    server = start_redis(appendonly=True)
    stage = make_stage(server)
    workload = Workload(ledger, stage.random)
    workload.submit(SUBMISSIONS)
    dead = Echo.remote(ledger.path)
    rabbitry.kill(dead)
    with pytest.raises(ActorError):
        rabbitry.get(dead.say.remote("dead", 0), timeout=20)  # from here on this driver knows
    living: list[int] = []

    def make_room() -> None:
        # By another thread than that which submits: it waits for room.
        time.sleep(FULL_SECONDS)
        living.append(len([node for node in rabbitry.nodes() if node["Alive"]]))
        with server.client() as client:
            client.config_set("maxmemory", 0)

    with server.client() as client:
        # Nothing that is deleted meanwhile makes room for anything.
        client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
    started = time.monotonic()
    operator = threading.Thread(target=make_room, name="operator")
    operator.start()
    try:
        for number in range(50):
            ledger.add(f"late-{number}", plain.remote(ledger.path, f"late-{number}", number), number * 3 + 1)
        ledger.add("dead-late", dead.say.remote("dead-late", 0), "never", errors=ACTOR_LOST, runs=0)
        last = plain.remote(ledger.path, "last", 1)
        assert rabbitry.get(last, timeout=FULL_SECONDS + 10) == 4
        assert time.monotonic() - started >= FULL_SECONDS, "a full Redis takes results"
    finally:
        operator.join()
    assert living == [2], "a full Redis makes nodes die"
    stage.healed()
    stage.recovery("a full Redis", lambda: probe(ledger))
    workload.submit(SUBMISSIONS // 2)
    workload.finish()


def test_work_goes_on_with_the_replica_after_a_failover(
    sentinels: Sentinels, make_stage: Callable[..., Stage], ledger: Ledger
):
    """What the replica had not received when its master died is lost, so the master dies when nothing is on its way."""
    stage = make_stage(sentinels.servers[0], sentinels.url)
    counter = Counter.remote()
    assert rabbitry.get([counter.increment.remote() for _ in range(20)], timeout=20)[-1] == 20
    for number in range(20):
        ledger.add(f"plain-{number}", plain.remote(ledger.path, f"plain-{number}", number), number * 3 + 1)
    ledger.check()
    kept = rabbitry.put(b"kept" * 50_000)
    with sentinels.servers[0].client() as client:
        assert client.wait(1, 5000) == 1
    sentinels.servers[0].kill()
    stage.healed()
    stage.recovery("the death of the master", lambda: probe(ledger))
    workload = Workload(ledger, stage.random)
    workload.submit(SUBMISSIONS)
    workload.finish()
    assert rabbitry.get(counter.increment.remote(), timeout=20) == 21
    assert rabbitry.get(kept, timeout=10) == b"kept" * 50_000
    assert sentinels.master() is sentinels.servers[1]


def test_a_durable_call_is_answered_once_a_replica_has_it(
    sentinels: Sentinels, make_stage: Callable[..., Stage], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """And so the replica knows of it when the master is lost the moment after."""
    monkeypatch.setenv("RABBITRY_REPLICAS_TIMEOUT", "25")
    monkeypatch.setattr(inbox, "KEY_POLL_SECONDS", 600.0)  # nothing but the answer tells the caller
    stage = make_stage(sentinels.servers[0], sentinels.url)
    counter = Counter.options(durable_replicas=1).remote()
    assert rabbitry.get([counter.increment.remote() for _ in range(20)])[-1] == 20
    master, replica = sentinels.servers
    resumed = threading.Event()

    def resume() -> None:
        resumed.set()
        replica.resume()

    timer = threading.Timer(0.4, resume)  # before the Sentinels believe that it is gone
    replica.pause()
    timer.start()
    try:
        assert rabbitry.get(counter.increment.remote()) == 21
        assert resumed.is_set(), "no replica had it"
    finally:
        timer.join()
    assert rabbitry.get([counter.increment.remote() for _ in range(20)])[-1] == 41
    master.kill()
    stage.healed()
    monkeypatch.undo()
    stage.recovery("the death of the master right after a durable call", lambda: probe(ledger))
    assert sentinels.master() is replica
    with replica.client() as client:
        assert client.exists(*client.keys("*actor:*:state")) == 1, "its state is there"
    assert rabbitry.get(counter.increment.remote(), timeout=20) == 42
