"""The table of faults that can befall a cluster at work, each with its healing; see `test_all_faults.py`.

A new fault is a function and a line in `FAULTS`. What cannot come among others has a scenario of its own: a failover to
a replica and Redis Cluster (another store), clocks that are apart (another environment of the nodes).
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from rabbitry import current
from rabbitry.cluster_utils import ClusterNode
from rabbitry.exceptions import OutOfMemoryError
from rabbitry_broker.messages import FRAME_MAGIC
from rabbitry_broker.queues import open_publisher
from tests.chaos import driver, poison
from tests.chaos.ledger import Ledger
from tests.chaos.meddler import meddling
from tests.chaos.network import Network
from tests.chaos.stage import NODE_CPUS, NODE_LEASE, Stage
from tests.chaos.workload import LOST, Workload, long
from tests.servers import wait_until

BEYOND_LEASE: Final = NODE_LEASE + 2
DELAY_SECONDS: Final = 0.2
SLOW_SECONDS: Final = 3.0
FULL_SECONDS: Final = 2.0
ALARM_SECONDS: Final = 1.5
CONSUMER_TIMEOUT_MS: Final = 6_500
OUTLASTING_SECONDS: Final = 9.0
MEMORY_LIMIT: Final = 256 << 20  # of an executor, by RABBITRY_EXECUTOR_MEMORY_LIMIT
HOG_BYTES: Final = 400 << 20
FORGERIES: Final = 50
MEDDLED: Final = 40


@dataclass
class Scene:
    """What a fault finds.

    Attributes:
        stage: servers and nodes.
        network: of one more node.
        workload: goes on meanwhile.
        abandoned: what the killed drivers' detached work is to leave among the effects.
        detached: the names of their detached actors.
        forged: how many messages nobody signed.
        number: of the fault, to name things by.
    """

    stage: Stage
    network: Network
    workload: Workload
    abandoned: set[str] = field(default_factory=set)
    detached: list[str] = field(default_factory=list)
    forged: int = 0
    number: int = 0

    @property
    def ledger(self) -> Ledger:
        """The workload's ledger."""
        return self.workload.ledger

    def key(self, name: str) -> tuple[str, str]:
        """Return the file of effects, and a key in it."""
        return self.ledger.path, f"{name}-of-fault-{self.number}"


def nothing(_: Scene) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: for people.
        strike: does it, and heals it; runs beside the thread that submits.
        submit: what is submitted for it, before it strikes.
        afterwards: what is submitted once it has struck.
    """

    name: str
    strike: Callable[[Scene], None]
    submit: Callable[[Scene], None] = nothing
    afterwards: Callable[[Scene], None] = nothing


# -- processes


def kill_workers(scene: Scene) -> None:
    """Kill some executors and actor hosts, one after another."""
    for _ in range(3):
        scene.stage.kill_worker()
        time.sleep(scene.stage.random.uniform(0.05, 0.3))


def kill_agent(scene: Scene) -> None:
    """Kill an agent; another node joins."""
    scene.stage.random.choice(_others(scene)).kill()
    scene.stage.cluster.add_node(num_cpus=NODE_CPUS)


def kill_templates(scene: Scene) -> None:
    """Kill all template processes."""
    for template in scene.stage.templates():
        with suppress(ProcessLookupError):
            os.kill(template, signal.SIGKILL)


def kill_driver(scene: Scene) -> None:
    """Kill a driver that has submitted detached and other work."""
    tag = f"{scene.number}."
    driver.abandon_work(scene.stage.cluster.address, scene.ledger.path, tag)
    scene.abandoned |= driver.names(tag)
    scene.detached.append(f"detached{tag}")


def pause_agent(scene: Scene) -> None:
    """Stop an agent for longer than its lease, and let it go on."""
    victim = scene.stage.random.choice(scene.stage.nodes())
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        time.sleep(BEYOND_LEASE)
    finally:
        os.kill(victim.pid, signal.SIGCONT)


# -- RabbitMQ


def stop_app(scene: Scene) -> None:
    """Stop RabbitMQ inside of its process, and start it again."""
    scene.stage.rabbitmq.ctl("stop_app")
    scene.stage.rabbitmq.ctl("start_app")


def memory_alarm(scene: Scene) -> None:
    """Have publishers blocked for a while."""
    rabbitmq = scene.stage.rabbitmq
    rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1000000}).")
    try:
        time.sleep(ALARM_SECONDS)
    finally:
        rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4).")


def submit_to_a_queue_of_its_own(scene: Scene) -> None:
    """Submit what runs when its queue is deleted: what waits in a queue is lost with it, whoever deletes it."""
    path, key = scene.key("unqueued")
    scene.ledger.add(key, long.options(num_cpus=0.25).remote(path, key, 1.0), 1.0)


def delete_queue(scene: Scene) -> None:
    """Delete a queue under its consumers while its message is at work."""
    _, key = scene.key("unqueued")
    wait_until(lambda: scene.ledger.effects()[key], "the task has begun", 20)
    name = current.client().endpoint.prefix + "task.CPU=0.25"
    vhost = scene.stage.rabbitmq.url.rpartition("/")[2]
    scene.stage.rabbitmq.evaluate(
        f'{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{name}">>)), '
        '{ok, _} = rabbit_amqqueue:delete(Queue, false, false, <<"test">>).'
    )
    time.sleep(1.5)  # a message that is nowhere any more must not lose its agent too


def shorten_consumer_timeout(scene: Scene) -> None:
    """Have RabbitMQ close channels that keep a delivery for some seconds (until it starts again)."""
    scene.stage.rabbitmq.evaluate(
        f"application:set_env(rabbit, consumer_timeout, {CONSUMER_TIMEOUT_MS}), "
        "application:set_env(rabbit, channel_tick_interval, 1000)."
    )
    scene.stage.close_connections()  # channels read both when they are opened


def submit_outlasting(scene: Scene) -> None:
    """Submit tasks that take longer than that."""
    for number in range(2):
        path, key = scene.key(f"outlasting-{number}")
        ref = long.options(num_cpus=0.5).remote(path, key, OUTLASTING_SECONDS)
        scene.ledger.add(key, ref, OUTLASTING_SECONDS)


# -- Redis


def fill_redis(scene: Scene) -> None:
    """Let Redis take nothing more for a while."""
    with scene.stage.redis.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
        try:
            time.sleep(FULL_SECONDS)
        finally:
            client.config_set("maxmemory", 0)


# -- the network


def cut(*, to_server: bool, to_client: bool) -> Callable[[Scene], None]:
    """Return a fault: a node is cut off for longer than its lease."""

    def strike(scene: Scene) -> None:
        scene.network.cut(to_server=to_server, to_client=to_client)
        try:
            time.sleep(BEYOND_LEASE)
        finally:
            scene.network.heal()

    return strike


def slow(scene: Scene) -> None:
    """Delay all that one node says and hears."""
    scene.network.slow(DELAY_SECONDS)
    try:
        time.sleep(SLOW_SECONDS)
    finally:
        scene.network.slow(0.0)


def submit_meddled(scene: Scene) -> None:
    """Submit work whose messages go out twice and in another order."""
    with meddling(scene.stage.random):
        scene.workload.submit(MEDDLED)


# -- poison and noise


def submit_poison(scene: Scene) -> None:
    """Submit tasks that harm the process they run in, each in its way."""
    path, key = scene.key("suicide")
    scene.ledger.add(key, poison.suicide.remote(path, key), "never", errors=LOST)
    path, key = scene.key("exit-beside-a-child")
    scene.ledger.add(key, poison.leave_a_child_and_exit.remote(path, key), "never", errors=LOST, runs=1)
    path, key = scene.key("close")
    scene.ledger.add(key, poison.close_everything.remote(path, key), "closed", errors=LOST, runs=1)
    path, key = scene.key("fork")
    scene.ledger.add(key, poison.return_later.remote(path, key), "parent", errors=LOST, runs=2)
    path, key = scene.key("hog")
    hog = poison.take_all_memory.remote(path, key, HOG_BYTES)
    scene.ledger.add(key, hog, "never", errors=(OutOfMemoryError, *LOST), runs=1)


def forge(scene: Scene) -> None:
    """Put bytes that nobody signed into queues and keys."""
    client = current.client()
    publisher = open_publisher(client.endpoint, name="stranger")
    try:
        for _ in range(FORGERIES):
            data = FRAME_MAGIC + secrets.token_bytes(scene.stage.random.randrange(300))
            publisher.publish("task.CPU=1", data)
            client.store.call(b"RPUSH", client.keys.inbox(client.id), data)
            client.store.call(b"PUBLISH", client.keys.control_channel, data)
            scene.forged += 1
        assert publisher.flush(10)
    finally:
        publisher.close()


FAULTS: Final = (
    Fault("kill -9 of executors and actor hosts", kill_workers),
    Fault("kill -9 of an agent", kill_agent),
    Fault("kill -9 of the templates", kill_templates),
    Fault("kill -9 of a driver", kill_driver),
    Fault("SIGSTOP of an agent beyond its lease", pause_agent),
    Fault("kill -9 of RabbitMQ", lambda scene: scene.stage.restart_rabbitmq()),
    Fault("stop_app and start_app", stop_app),
    Fault("a memory alarm", memory_alarm),
    Fault("a deleted queue", delete_queue, submit=submit_to_a_queue_of_its_own),
    Fault("connections closed by RabbitMQ", lambda scene: scene.stage.close_connections()),
    Fault("a consumer timeout", shorten_consumer_timeout, afterwards=submit_outlasting),
    Fault("kill -9 of Redis", lambda scene: scene.stage.restart_redis()),
    Fault("CLIENT KILL", lambda scene: scene.stage.kill_clients()),
    Fault("a full Redis", fill_redis),
    Fault("a network cut both ways", cut(to_server=True, to_client=True)),
    Fault("a network cut to the servers", cut(to_server=True, to_client=False)),
    Fault("a network cut from the servers", cut(to_server=False, to_client=True)),
    Fault("a slow network", slow),
    Fault("connections that were reset", lambda scene: scene.network.reset()),
    Fault("doubled and reordered messages", nothing, submit=submit_meddled),
    Fault("poison", nothing, submit=submit_poison),
    Fault("forgeries", forge),
)


def _others(scene: Scene) -> list[ClusterNode]:
    """Return the living nodes, but for the one behind the network, which cannot be replaced."""
    return [node for node in scene.stage.nodes() if node is not scene.network.node]
