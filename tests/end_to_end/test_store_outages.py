"""What a client does while Redis is away: timeouts hold, everything else waits, and nothing is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster_utils import Cluster
from rabbitry.exceptions import GetTimeoutError, RayActorError, TaskCancelledError
from tests.end_to_end.inspection import wait_until
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(120)

PATIENCE_SECONDS = 60.0  # of calls without a timeout: one with a timeout that takes as long has none


@pytest.fixture
def store_server(request: pytest.FixtureRequest, start_redis: Callable[..., RedisServer]) -> Iterator[RedisServer]:
    """The Redis, of this test's own, of a session on RabbitMQ."""
    broker = request.getfixturevalue("rabbitmq_server")
    vhost = f"outage-{os.getpid()}"
    server = start_redis(appendonly=True, appendfsync="always")
    cluster = Cluster(engine="rabbitmq", broker_url=broker.add_vhost(vhost), store_url=server.url)
    try:
        cluster.add_node(num_cpus=2)
        cluster.connect(log_to_driver=False)
        cluster.wait_for_nodes(10)
        yield server
    finally:
        if not server.running:
            server.start()
        cluster.shutdown()
        broker.delete_vhost(vhost)


@rabbitry.remote
def add(x: int, y: int = 1) -> int:
    return x + y


@rabbitry.remote(max_calls=1)
def add_in_a_new_process(x: int) -> int:
    return x + 1


@rabbitry.remote
def numbers() -> Iterator[int]:
    yield from range(3)


@rabbitry.remote
class Actor:
    def add(self, x: int) -> int:
        return x + 1


def test_timeouts_hold_and_calls_wait_while_redis_is_away(store_server: RedisServer) -> None:
    client = current.client()
    actor = Actor.remote()
    assert rabbitry.get([add.remote(1), actor.add.remote(1)]) == [2, 2]
    outcomes: dict[str, Any] = {}

    def note(name: str, call: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                outcomes[name] = call()
            except BaseException as error:
                outcomes[name] = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    store_server.stop()
    calls = {
        "put": lambda: rabbitry.get(rabbitry.put([rabbitry.put(1)])),
        "chain": lambda: rabbitry.get(add.remote(add.remote(add.remote(0)))),
        "new function": lambda: rabbitry.get(rabbitry.remote(lambda: 5).remote()),
        "new actor": lambda: rabbitry.get(Actor.remote().add.remote(1)),
        "call": lambda: rabbitry.get(actor.add.remote(add.remote(1))),
        "stream": lambda: [rabbitry.get(each) for each in numbers.options(num_returns="streaming").remote()],
        "future": lambda: add.remote(4).future().result(PATIENCE_SECONDS),
    }
    threads = [note(name, call) for name, call in calls.items()]
    wait_until(lambda: client.in_flight)
    started = time.monotonic()
    waiting = add.remote(1, 2)
    for timeout in (0, 0.3):
        assert rabbitry.wait([waiting], timeout=timeout) == ([], [waiting])
        with pytest.raises(GetTimeoutError):
            rabbitry.get(waiting, timeout=timeout)
        with pytest.raises(GetTimeoutError):
            rabbitry.get([waiting, waiting], timeout=timeout)
    assert time.monotonic() - started < PATIENCE_SECONDS / 2, "a timeout waited for the server"
    store_server.start()
    for thread in threads:
        thread.join(60)
    nested = outcomes.pop("put")
    assert rabbitry.get(nested) == [1]
    assert outcomes == {
        "chain": 3, "new function": 5, "new actor": 2, "call": 3, "stream": [0, 1, 2], "future": 5,
    }  # fmt: skip
    assert rabbitry.get(waiting, timeout=60) == 3


def test_timeouts_hold_while_redis_is_silent(store_server: RedisServer) -> None:
    """Its process is stopped: connections are there, and taken, and nobody answers."""
    assert rabbitry.get(add.remote(1)) == 2
    waited = [add.options(num_cpus=99).remote(1) for _ in range(2)]
    resumed = threading.Event()

    def resume() -> None:
        resumed.set()
        store_server.resume()

    store_server.pause()
    timer = threading.Timer(20.0, resume)  # a reply may take 30 s otherwise
    timer.start()
    try:
        with pytest.raises(GetTimeoutError):
            rabbitry.get(waited[0], timeout=0.5)
        assert rabbitry.wait(waited, timeout=0.5) == ([], waited)
        assert not resumed.is_set()
    finally:
        timer.cancel()
        store_server.resume()
    assert rabbitry.get(add.remote(1), timeout=60) == 2


@pytest.mark.parametrize("session", ["embedded", "rabbitmq"], indirect=True)
def test_processes_that_begin_while_connections_break_do_their_work(session: str) -> None:
    breaker = current.client().store.open_connection("breaks")
    ended = threading.Event()

    def break_connections() -> None:
        while not ended.wait(0.05):
            breaker.call(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")

    thread = threading.Thread(target=break_connections)
    thread.start()
    try:
        for number in range(10):
            actor = Actor.options(num_cpus=0).remote()  # type: ignore[attr-defined]
            assert (
                rabbitry.get([actor.add.remote(number), add_in_a_new_process.remote(number)], timeout=60)
                == [number + 1] * 2
            )
    finally:
        ended.set()
        thread.join()
        breaker.close()


@rabbitry.remote(num_cpus=0, max_restarts=1, max_task_retries=10)
class Detached:
    def pid(self) -> int:
        return os.getpid()


@pytest.mark.parametrize("session", ["embedded", "rabbitmq"], indirect=True)
def test_an_actor_that_is_killed_while_its_node_hears_nothing_ends_all_the_same(session: str) -> None:
    breaker = current.client().store.open_connection("breaks")
    actor = Detached.options(name="unheard", lifetime="detached").remote()
    pid = rabbitry.get(actor.pid.remote(), timeout=60)
    breaker.call(b"CLIENT", b"KILL", b"TYPE", b"pubsub")
    rabbitry.kill(actor, no_restart=False)
    wait_until(lambda: not is_alive(pid))
    second = rabbitry.get(actor.pid.remote(), timeout=60)
    assert second != pid
    breaker.call(b"CLIENT", b"KILL", b"TYPE", b"pubsub")
    rabbitry.kill(actor)
    wait_until(lambda: not is_alive(second))
    breaker.close()
    with pytest.raises(RayActorError):
        rabbitry.get(actor.pid.remote(), timeout=60)


@rabbitry.remote(max_retries=0)
def go_on_for_ever(path: str) -> None:
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    try:
        while True:
            time.sleep(0.01)
    finally:
        os.remove(path)


@pytest.mark.parametrize("session", ["embedded", "rabbitmq"], indirect=True)
def test_a_task_that_is_cancelled_while_its_node_hears_nothing_ends_all_the_same(session: str, tmp_path: Path) -> None:
    breaker = current.client().store.open_connection("breaks")
    path = tmp_path / "runs"
    ref = go_on_for_ever.remote(str(path))
    wait_until(path.exists)
    breaker.call(b"CLIENT", b"KILL", b"TYPE", b"pubsub")
    rabbitry.cancel(ref)
    breaker.close()
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=60)
    wait_until(lambda: not path.exists())


def is_alive(pid: int) -> bool:
    """True while there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
