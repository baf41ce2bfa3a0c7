"""Accounts with the least that a driver and a node need, as docs/security.md gives them: all works, and no more."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pika
import pytest
import redis
from pika.exceptions import ChannelClosedByBroker

import rabbitry
from rabbitry.autoscaler.sdk import request_resources
from rabbitry.experimental import internal_kv
from rabbitry.util.placement_group import placement_group, remove_placement_group
from rabbitry.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from rabbitry.util.state import list_nodes, list_tasks
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError
from rabbitry_broker.queues import open_publisher
from rabbitry_broker.store.redis.connection import Connection
from tests.redis_cluster import RedisCluster
from tests.servers import RabbitMQServer, RedisServer, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
LARGE_BYTES = 600_000
NODE_STOP_SECONDS = 20
ACCESS_REFUSED = 403


def documented(command: str) -> list[list[str]]:
    """Return the command lines that stand in the page's frame of such commands, taken apart."""
    frame = re.search(rf"```text\n({command} .*?)```", PAGE.read_text(), re.DOTALL)
    assert frame is not None, f"{PAGE} has no frame of {command}"
    return [shlex.split(line) for line in frame[1].splitlines()]


@dataclass(frozen=True)
class Account:
    """What one kind of process logs in with."""

    broker_url: str
    store_url: str

    def environment(self, prefix: str, secret: str) -> dict[str, str]:
        return {
            "RABBITRY_BROKER_URL": self.broker_url,
            "RABBITRY_STORE_URL": self.store_url,
            "RABBITRY_PREFIX": prefix,
            "RABBITRY_SECRET": secret,
        }


@dataclass(frozen=True)
class Accounts:
    """A cluster's servers and the two accounts on them."""

    redis: list[RedisServer]
    prefix: str
    secret: str
    driver: Account
    node: Account

    def denied(self) -> list[str]:
        """Return what Redis has refused these accounts so far."""
        found = []
        for server in self.redis:
            with server.client() as client:
                found += [f"{each['username']}: {each['reason']} {each['object']}" for each in client.acl_log()]
        return found


@pytest.fixture
def redis_servers(start_redis: Callable[..., RedisServer]) -> list[RedisServer]:
    """The Redis that accounts are made on."""
    return [start_redis(password="admin-" + secrets.token_hex(4), version=(7,))]


@pytest.fixture
def accounts(redis_servers: list[RedisServer], rabbitmq_server: RabbitMQServer) -> Iterator[Accounts]:
    """A virtual host, and a Redis or a Redis Cluster, with both accounts; nobody else may enter."""
    spread = len(redis_servers) > 1
    tag = secrets.token_hex(3)
    vhost, prefix = f"least-{tag}", f"w{tag}:"
    passwords = {"driver": secrets.token_hex(8), "node": secrets.token_hex(8)}
    names = {kind: f"rabbitry-{kind}-{tag}" for kind in passwords}
    rabbitmq_server.add_vhost(vhost)
    for server in redis_servers:
        with server.client() as admin:
            for words in documented("ACL SETUSER"):
                kind = words[2].removeprefix("rabbitry-")
                said = [word.replace("rabbitry:", f"{{{prefix}}}" if spread else prefix) for word in words]
                said = [f">{passwords[kind]}" if word.startswith(">") else word for word in said]
                if spread:
                    said += [f"~{{{prefix}}}", f"~{prefix}x:{{*", "+cluster|slots"]
                admin.execute_command(*said)
    for kind, name in names.items():
        rabbitmq_server.evaluate(
            f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{passwords[kind]}">>, <<"test">>).'
        )
    for _, _, _, user, *patterns in documented("set_permissions"):
        configure, write, read = (each.replace("rabbitry:", prefix) for each in patterns)
        name = names[user.removeprefix("rabbitry-")]
        rabbitmq_server.evaluate(
            f'rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"{vhost}">>, '
            f'<<"{configure}">>, <<"{write}">>, <<"{read}">>, <<"test">>).'
        )
    made = {
        kind: Account(
            f"amqp://{names[kind]}:{passwords[kind]}@127.0.0.1:{rabbitmq_server.port}/{vhost}",
            f"redis{'+cluster' * spread}://rabbitry-{kind}:{passwords[kind]}@127.0.0.1:{redis_servers[0].port}/0",
        )
        for kind in passwords
    }
    try:
        yield Accounts(redis_servers, prefix, secrets.token_hex(16), made["driver"], made["node"])
    finally:
        for name in names.values():
            rabbitmq_server.evaluate(f'rabbit_auth_backend_internal:delete_user(<<"{name}">>, <<"test">>).')
        rabbitmq_server.delete_vhost(vhost)


def command(accounts: Accounts, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a `rabbitry` command with the account of a node."""
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, **accounts.node.environment(accounts.prefix, accounts.secret), "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-m", "rabbitry_workers", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@rabbitry.remote
def double(value):
    print("doubling")
    return 2 * value


@rabbitry.remote
def large():
    return b"x" * LARGE_BYTES


@rabbitry.remote
def large_size(value):
    return len(value)


@rabbitry.remote
def nested(value):
    return rabbitry.get(double.remote(value)) + len(rabbitry.get(rabbitry.put(b"y" * LARGE_BYTES)))


@rabbitry.remote(num_returns="streaming")
def items(count):
    yield from range(count)


@rabbitry.remote(max_retries=0)
def once():
    return "once"


@rabbitry.remote
def asleep():
    import time

    time.sleep(60)


@rabbitry.remote(num_cpus=0)
class Plain:
    def add(self, value):
        return value + 1


@rabbitry.remote(num_cpus=0, durable=True, max_restarts=-1, max_task_retries=-1)
class Counter:
    def __init__(self):
        self.value = 0

    def increment(self):
        self.value += 1
        return self.value

    def pid(self):
        return os.getpid()


def all_kinds_of_work() -> None:
    """Use what an ordinary program uses."""
    assert rabbitry.get([double.remote(each) for each in range(50)], timeout=30) == list(range(0, 100, 2))
    assert rabbitry.get(double.remote(double.remote(large_size.remote(large.remote()))), timeout=30) == 4 * LARGE_BYTES
    assert rabbitry.get(nested.remote(3), timeout=30) == 6 + LARGE_BYTES
    assert rabbitry.get(rabbitry.put([rabbitry.put(1)]), timeout=30)
    assert [rabbitry.get(each, timeout=30) for each in items.remote(5)] == list(range(5))
    assert rabbitry.get(once.remote(), timeout=30) == "once"
    refs = [double.remote(each) for each in range(4)]
    ready, _ = rabbitry.wait(refs, num_returns=4, timeout=30)
    assert len(ready) == 4
    sleeper = asleep.remote()
    rabbitry.cancel(sleeper, force=True)
    with pytest.raises((rabbitry.exceptions.TaskCancelledError, rabbitry.exceptions.WorkerCrashedError)):
        rabbitry.get(sleeper, timeout=30)
    plain = Plain.options(name="plain", lifetime="detached", get_if_exists=True).remote()
    assert rabbitry.get(rabbitry.get_actor("plain").add.remote(1), timeout=30) == 2
    counter = Counter.remote()
    assert rabbitry.get([counter.increment.remote() for _ in range(3)], timeout=30) == [1, 2, 3]
    os.kill(rabbitry.get(counter.pid.remote(), timeout=30), signal.SIGKILL)
    assert rabbitry.get(counter.increment.remote(), timeout=30) == 4
    rabbitry.kill(plain)
    assert rabbitry.cluster_resources()["CPU"] == 4
    group = placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD")
    assert group.wait(30)
    inside = PlacementGroupSchedulingStrategy(group)
    assert rabbitry.get(double.options(scheduling_strategy=inside).remote(4), timeout=30) == 8
    remove_placement_group(group)
    internal_kv._internal_kv_put("key", "value", namespace="test")
    assert internal_kv._internal_kv_get("key", namespace="test") == b"value"
    internal_kv._internal_kv_del("key", namespace="test")
    request_resources(num_cpus=1)
    wait_until(lambda: list_tasks(filters=[("state", "=", "FINISHED")]), "events of tasks have come", timeout=30)
    assert {node.state for node in list_nodes()} == {"ALIVE"}


@pytest.fixture
def nodes(accounts: Accounts) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two nodes that log in as nodes; what they say is shown."""
    started = [command(accounts, "start", "--num-cpus=2", f"--name=n{number}") for number in range(2)]
    try:
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                print(process.communicate(timeout=NODE_STOP_SECONDS)[0].decode(errors="replace")[-3000:])
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise


@pytest.mark.timeout(120)
def test_drivers_and_nodes_work_with_the_documented_accounts(
    accounts: Accounts, nodes: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
):
    for name, value in accounts.driver.environment(accounts.prefix, accounts.secret).items():
        monkeypatch.setenv(name, value)
    rabbitry.init(address="auto")
    try:
        wait_until(lambda: rabbitry.cluster_resources().get("CPU") == 4, "both nodes are there", timeout=30)
        all_kinds_of_work()
    finally:
        rabbitry.shutdown()
    status = command(accounts, "status")
    assert b"nodes: 2" in status.communicate(timeout=30)[0]
    stop = command(accounts, "stop", "n0")
    stop.communicate(timeout=30)
    assert nodes[0].wait(NODE_STOP_SECONDS) == 0
    assert accounts.denied() == []


class TestOnRedisCluster:
    """The same accounts on each master of a Redis Cluster."""

    @pytest.fixture
    def redis_servers(self, session_directory: Path) -> Iterator[list[RedisServer]]:
        """Three masters."""
        password = "admin-" + secrets.token_hex(4)
        servers = RedisCluster(session_directory / f"least-{secrets.token_hex(3)}", password=password, version=(7,))
        try:
            servers.start()
            yield servers.servers
        finally:
            servers.stop()

    test_drivers_and_nodes_work = pytest.mark.timeout(120)(
        staticmethod(test_drivers_and_nodes_work_with_the_documented_accounts)
    )


def refused(store_url: str, *words: str) -> bool:
    """True if Redis does not let this account run a command."""
    with redis.Redis.from_url(store_url) as client:
        try:
            client.execute_command(*words)
        except redis.exceptions.NoPermissionError:
            return True
        except redis.exceptions.ResponseError as error:
            # Said by a script, before Redis 7.2 and since.
            return "can't access" in str(error) or "ACL failure in script" in str(error)
        return False


def test_the_accounts_can_do_nothing_else_on_redis(accounts: Accounts):
    prefix = accounts.prefix
    driver, node = accounts.driver.store_url, accounts.node.store_url
    administration = ["CONFIG GET *", "ACL LIST", "FLUSHALL", "KEYS *", "MONITOR", "SHUTDOWN", "SCRIPT FLUSH"]
    administration += ["CLIENT KILL TYPE normal", "REPLICAOF NO ONE", "MODULE LIST", "SAVE"]
    for url in (driver, node):
        for line in [*administration, "GET other:cluster", "SET other:o 1", "PUBLISH other:control x"]:
            assert refused(url, *line.split()), f"{line} was let through"
        assert refused(url, "EVAL", "return redis.call('GET', 'other:cluster')", "0")
    for line in (f"SET {prefix}n:00ff 1", f"HSET {prefix}nodes a b", f"HGETALL {prefix}k:{{custody}}:00ff"):
        assert refused(driver, *line.split()), f"{line} was let through"
        assert not refused(node, *line.split())
    assert not refused(driver, "GET", f"{prefix}n:00ff")


def rabbitmq_refuses(url: str, action: Callable[[pika.adapters.blocking_connection.BlockingChannel], object]) -> bool:
    """True if RabbitMQ does not let this account do something."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        action(connection.channel())
    except ChannelClosedByBroker as error:
        return bool(error.reply_code == ACCESS_REFUSED)
    finally:
        connection.close()
    return False


def published(channel: pika.adapters.blocking_connection.BlockingChannel, queue: str) -> None:
    """Publish a message and wait until RabbitMQ has confirmed it."""
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"whatever")


def test_the_accounts_can_do_nothing_else_on_rabbitmq(accounts: Accounts):
    driver, node = accounts.driver.broker_url, accounts.node.broker_url
    task, foreign = f"{accounts.prefix}task.CPU=1", "other:task.CPU=1"
    assert not rabbitmq_refuses(driver, lambda channel: channel.queue_declare(task))
    assert rabbitmq_refuses(driver, lambda channel: channel.basic_get(task))
    assert not rabbitmq_refuses(node, lambda channel: channel.basic_get(task))
    for url in (driver, node):
        assert rabbitmq_refuses(url, lambda channel: channel.queue_declare(foreign))
        assert rabbitmq_refuses(url, lambda channel: channel.queue_delete(foreign))
        assert not rabbitmq_refuses(url, lambda channel: published(channel, foreign)), "docs/security.md says it may"
        assert rabbitmq_refuses(url, lambda channel: channel.exchange_declare("other"))
        assert rabbitmq_refuses(url, lambda channel: channel.basic_get(foreign)) or url == driver


def test_a_refused_login_names_the_user_and_hides_the_password(accounts: Accounts):
    for account in (accounts.driver, accounts.node):
        wrong = account.store_url.replace(urlsplit(account.store_url).password or "", "wrong-4711")
        with pytest.raises(ConnectError) as caught:
            Connection.open(wrong)
        assert "wrong-4711" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
        assert "wrong user name or password" in str(caught.value)
    secret = urlsplit(accounts.driver.broker_url).password or ""
    endpoint = Endpoint(
        accounts.driver.store_url,
        accounts.driver.broker_url.replace(secret, "wrong-0815"),
        (accounts.secret.encode(),),
        accounts.prefix,
    )
    with pytest.raises(ConnectError) as refusal:
        open_publisher(endpoint, name="stranger")
    assert "wrong-0815" not in f"{refusal.value} {refusal.value!r} {refusal.value.__cause__!r}"
    assert "rabbitry-driver" in str(refusal.value)
