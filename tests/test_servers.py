"""The servers of the fixtures really start, lose nothing that they promised to keep, and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pika
import pytest
import redis
from pika.exceptions import AMQPError
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import Engine
from tests.processes import MARKER_VARIABLE, find_processes
from tests.server_binaries import REDIS_URL_VARIABLE, find_redis_server
from tests.servers import RabbitMQServer, RedisServer, ServerError, free_port, wait_until


def test_a_port_is_given_to_one_server_and_not_to_the_next(
    start_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    assert len({free_port() for _ in range(100)}) == 100
    second = RedisServer(tmp_path / "second", port=start_redis().port)
    with pytest.raises(ServerError, match="ended while starting"):
        second.start()


def put_on_queue(url: str, queue: str, body: bytes) -> None:
    """Put one persistent message on a durable queue and wait for the confirm."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    connection.close()


def take_from_queue(url: str, queue: str) -> bytes | None:
    """Take one message off a queue; None if it is empty."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    body: bytes | None = connection.channel().basic_get(queue, auto_ack=True)[2]
    connection.close()
    return body


def test_redis_answers_by_tcp_and_by_socket(redis_server: RedisServer) -> None:
    for url in (redis_server.url, redis_server.unix_url):
        with redis.Redis.from_url(url) as client:
            assert client.ping()


def test_redis_with_an_append_only_file_keeps_its_data_when_killed(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(appendonly=True, appendfsync="always")
    with server.client() as client:
        client.set("kept", "yes")
    port = server.port
    server.kill()
    assert not server.running
    with pytest.raises(redis.ConnectionError), server.client() as client:
        client.ping()
    server.start()
    assert server.port == port
    with server.client() as client:
        assert client.get("kept") == b"yes"


def test_redis_without_a_file_forgets_on_restart(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    with server.client() as client:
        client.set("kept", "no")
    server.restart()
    with server.client() as client:
        assert client.get("kept") is None


def test_redis_with_a_password_refuses_others(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(password="open/se:same@")
    with server.client() as client:
        assert client.ping()
    with redis.Redis.from_url(server.unix_url) as client:
        assert client.ping()
    with pytest.raises(redis.AuthenticationError), redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()


def test_redis_that_cannot_start_says_why(start_redis: Callable[..., RedisServer]) -> None:
    with pytest.raises(ServerError, match="no-such-directive"):
        start_redis(config={"no-such-directive": "1"})


def test_a_paused_redis_does_not_answer_until_it_is_resumed(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    server.pause()
    impatient = redis.Redis(port=server.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.TimeoutError), impatient as client:
        client.ping()
    server.resume()
    with server.client() as client:
        assert client.ping()


def test_rabbitmq_keeps_confirmed_messages_when_killed(start_rabbitmq: Callable[..., RabbitMQServer]) -> None:
    server = start_rabbitmq(config={"consumer_timeout": "10000"})
    assert server.evaluate("application:get_env(rabbit, consumer_timeout).") == "{ok,10000}"
    put_on_queue(server.url, "kept", b"after a crash")
    first, port = server.pid, server.port
    server.kill()
    with pytest.raises((OSError, AMQPError)):
        put_on_queue(server.url, "kept", b"too late")
    server.start()
    assert server.pid != first
    assert server.port == port
    assert take_from_queue(server.url, "kept") == b"after a crash"


def test_rabbitmq_takes_orders(rabbitmq_server: RabbitMQServer) -> None:
    assert rabbitmq_server.user in rabbitmq_server.ctl("list_users")
    assert rabbitmq_server.evaluate("1 + 1.") == "2"
    with pytest.raises(ServerError, match="badarith"):
        rabbitmq_server.evaluate("1 / 0.")
    with pytest.raises(ServerError, match="rabbitmqctl"):
        rabbitmq_server.ctl("set_user_tags", "nobody", "management")


def test_an_order_that_did_not_reach_rabbitmq_is_given_again(
    rabbitmq_server: RabbitMQServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = ["erl_call: failed to connect to node x@localhost"]

    def run_or_fail(command: Sequence[str], *, timeout: float, text: str) -> str:
        if lost:
            raise ServerError(lost.pop())
        if not text:
            raise ServerError("the node refuses")
        return text

    monkeypatch.setattr(rabbitmq_server, "_run", run_or_fail)
    assert rabbitmq_server._call_into(["erl_call"], "1 + 1.", 30.0) == "1 + 1."
    with pytest.raises(ServerError, match="refuses"):
        rabbitmq_server._call_into(["erl_call"], "", 30.0)


def test_a_vhost_is_empty_and_goes_with_its_queues(rabbitmq_server: RabbitMQServer) -> None:
    url = rabbitmq_server.add_vhost("passing")
    put_on_queue(url, "one", b"")
    put_on_queue(url, "two words", b"")
    assert rabbitmq_server.queues("passing") == ["one", "two words"]
    rabbitmq_server.delete_vhost("passing")
    rabbitmq_server.delete_vhost("passing")
    with pytest.raises(AMQPError):
        pika.BlockingConnection(pika.URLParameters(url))


def test_each_engine_begins_empty(engine: Engine) -> None:
    assert engine.keys() == []
    assert engine.queues() == []
    with redis.Redis.from_url(engine.store_url) as client:
        client.set(f"{engine.prefix}key", 1)
    assert engine.keys() == [f"{engine.prefix}key"]
    assert engine.endpoint.embedded == (engine.name == "embedded")
    if engine.broker_url:
        put_on_queue(engine.broker_url, "queue", b"")
        assert engine.queues() == ["queue"]


SESSION_OF_ONE_TEST = """
import os, pathlib, time, pytest

def test_that_hangs(redis_server, request):
    redis_server.client().set("a", 1)
    pathlib.Path({note!r}).write_text(os.environ[{marker!r}])
    time.sleep(60)
"""


@pytest.mark.skipif(find_redis_server() is None, reason="needs a redis-server binary")
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_interrupted_session_leaves_nothing(tmp_path: Path, signal_name: str) -> None:
    here = Path(__file__).parent
    note = tmp_path / "note"
    (tmp_path / "test_inner.py").write_text(SESSION_OF_ONE_TEST.format(note=str(note), marker=MARKER_VARIABLE))
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\nfrom tests.conftest import pytest_configure\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])}
    environment.pop(REDIS_URL_VARIABLE, None)
    arguments = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}", "-c", os.devnull]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments, str(tmp_path / "test_inner.py")],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until(lambda: note.exists() and note.read_text(), "the inner session runs its test", timeout=20)
        session_dir = note.read_text()
        assert any("redis-server" in command for command in find_processes(session_dir).values())
        process.send_signal(getattr(signal, signal_name))
        process.communicate(timeout=20)
        wait_until(lambda: not find_processes(session_dir), "its processes are gone", timeout=10)
        wait_until(lambda: not Path(session_dir).exists(), "its directory is gone", timeout=10)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
