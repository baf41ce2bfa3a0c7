"""The network between one node and the servers: cut, slow, cut one way, connections reset; then it heals."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import ActorUnavailableError
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rabbitry_broker.store.actors import ALIVE, ActorRecords
from rabbitry_workers.node.outcome.custody import CUSTODY_SECONDS
from tests.chaos.ledger import Ledger
from tests.chaos.network import Network
from tests.chaos.stage import NODE_LEASE, Stage, report
from tests.chaos.workload import LOST, Counter, Echo, Workload, long, once, plain
from tests.servers import wait_until

SUBMISSIONS = 60
CALLS = 20
PLACES = {"place": 3.0}
CUT_SECONDS = NODE_LEASE + 2
DELAY_SECONDS = 0.2


@pytest.fixture
def network(stage: Stage) -> Iterator[Network]:
    network = Network(stage, resources=PLACES)
    try:
        yield network
    finally:
        network.close()


@rabbitry.remote
def where() -> str:
    """Return the node that runs this."""
    return str(rabbitry.get_runtime_context().get_node_id())


@rabbitry.remote(num_cpus=0, durable=True, max_restarts=-1, max_task_retries=-1)
class SlowCounter:
    """A durable count that takes its time."""

    def __init__(self) -> None:
        self.value = 0

    def increment(self, seconds: float) -> int:
        """Count one more after so many seconds, and return the count."""
        time.sleep(seconds)
        self.value += 1
        return self.value


def is_alive(network: Network) -> bool:
    """True if the cluster takes the node for living."""
    (record,) = [each for each in rabbitry.nodes() if each["NodeID"] == network.node.node_id]
    return bool(record["Alive"])


def works_again(network: Network) -> None:
    """Run a task on that very node; raises GetTimeoutError if another one took it."""
    if rabbitry.get(where.options(scheduling_strategy=there(network)).remote(), timeout=5) != network.node.node_id:
        raise rabbitry.exceptions.GetTimeoutError("it ran elsewhere")


def there(network: Network) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(network.node.node_id, soft=True)


@pytest.mark.parametrize(
    ("to_server", "to_client"),
    [
        pytest.param(True, True, id="both-ways", marks=pytest.mark.in_every_run),
        pytest.param(True, False, id="to-the-servers"),
        pytest.param(False, True, id="from-the-servers"),
    ],
)
def test_a_node_that_is_cut_off_does_no_harm(
    stage: Stage, network: Network, ledger: Ledger, to_server: bool, to_client: bool
):
    """What it ran may run elsewhere, but not if it may run once only; and its late results overwrite nothing."""
    for number in range(4):
        key = f"long-{number}"
        ref = long.options(num_cpus=0.5, scheduling_strategy=there(network)).remote(ledger.path, key, CUT_SECONDS / 2)
        ledger.add(key, ref, CUT_SECONDS / 2)
    wait_until(lambda: len(ledger.effects()) == 4, "the long tasks have begun")
    for number in range(10):
        key = f"once-{number}"
        ref = once.options(scheduling_strategy=there(network)).remote(ledger.path, key, number)
        ledger.add(key, ref, -number, errors=LOST, runs=1)
    network.cut(to_server=to_server, to_client=to_client)
    for number in range(10, 20):
        key = f"once-{number}"
        ledger.add(key, once.remote(ledger.path, key, number), -number, errors=LOST, runs=1)
    wait_until(lambda: not is_alive(network), "the others take the node for dead", timeout=4 * NODE_LEASE)
    time.sleep(CUT_SECONDS - NODE_LEASE)
    network.heal()
    stage.healed()
    stage.recovery("a cut network", lambda: works_again(network))
    ledger.check()
    time.sleep(0.5)  # what the late node still had to say is said
    ledger.check()


@pytest.mark.parametrize("how", ["cut both ways", "cut to the servers", "cut from the servers", "paused"])
def test_actors_that_were_taken_over_live_once(stage: Stage, network: Network, ledger: Ledger, how: str):
    """The late node still has their processes, and calls of theirs: both go, and nobody is told that they died."""
    counter = Counter.options(resources={"place": 1}).remote()
    echo = Echo.options(max_restarts=-1, max_task_retries=-1, resources={"place": 1}).remote(ledger.path)
    careful = Echo.options(max_restarts=-1, resources={"place": 1}).remote(ledger.path)
    counted = 0

    def submit(name: str) -> None:
        nonlocal counted
        for number in range(CALLS):
            counted += 1
            ledger.add(f"counter-{counted}", counter.increment.remote(), counted)
            key = f"echo-{name}-{number}"
            ledger.add(key, echo.say.remote(key, number), number)
            key = f"careful-{name}-{number}"
            ledger.add(key, careful.say.remote(key, number), number, errors=(ActorUnavailableError,), runs=1)

    submit("before")
    ledger.check()
    stage.cluster.add_node(num_cpus=0, resources=PLACES)
    rabbitry.get(where.options(num_cpus=0, resources={"place": 1}).remote(), timeout=20)  # it takes work
    if how == "paused":
        os.kill(network.node.pid, signal.SIGSTOP)
    else:
        network.cut(to_server=how != "cut from the servers", to_client=how != "cut to the servers")
    submit("meanwhile")
    records = ActorRecords(current.client().store)
    ids = [actor._actor_id.binary() for actor in (counter, echo, careful)]
    here = bytes.fromhex(network.node.node_id)

    def taken_over() -> bool:
        # Of the messages that create them anew, RabbitMQ may deliver some to the node that does not hear them.
        facts = [records.fields(each, "state", "node") for each in ids]
        return any(state == ALIVE.encode() and node != here for state, node in facts)

    wait_until(taken_over, "others take over what they can", 20)
    submit("taken over")
    time.sleep(stage.random.uniform(0.0, 2.0))
    if how == "paused":
        os.kill(network.node.pid, signal.SIGCONT)
    else:
        network.heal()
    stage.healed()
    stage.recovery(f"actors on a node that was {how}", lambda: rabbitry.get(echo.pid.remote(), timeout=5))
    submit("after")
    ledger.check()


@pytest.mark.in_every_run
def test_calls_that_a_node_took_along_are_not_overtaken(stage: Stage, network: Network, ledger: Ledger):
    """The broker has forgotten them, since the node keeps them in custody; what came later is still on the queue."""
    counters = [SlowCounter.options(resources={"place": 0.5}).remote() for _ in range(4)]
    counted = 1

    def submit(name: str) -> None:
        nonlocal counted
        for _ in range(CALLS):
            counted += 1
            for at, counter in enumerate(counters):
                ledger.add(f"{name}-{counted}-of-{at}", counter.increment.remote(0.0), counted)

    rabbitry.get([counter.increment.remote(0.0) for counter in counters], timeout=20)
    counted += 1
    for at, counter in enumerate(counters):
        ledger.add(f"slow-of-{at}", counter.increment.remote(CUSTODY_SECONDS + 2), counted)
    submit("before")
    client, here = current.client(), bytes.fromhex(network.node.node_id)
    wait_until(lambda: client.store.call(b"HLEN", client.keys.custody(here)) >= len(counters), "they are kept", 20)
    stage.cluster.add_node(num_cpus=0, resources=PLACES)
    rabbitry.get(where.options(num_cpus=0, resources={"place": 1.5}).remote(), timeout=20)  # it takes work
    network.cut()
    submit("meanwhile")
    actors, ids = ActorRecords(client.store), [counter._actor_id.binary() for counter in counters]

    def moved() -> bool:
        facts = [actors.fields(each, "state", "node") for each in ids]
        return any(state == ALIVE.encode() and node != here for state, node in facts)

    wait_until(moved, "some are taken over", 20)
    network.heal()
    stage.healed()
    ledger.check()


@pytest.mark.parametrize(
    ("to_server", "to_client"),
    [
        pytest.param(DELAY_SECONDS, DELAY_SECONDS, id="both-ways"),
        pytest.param(DELAY_SECONDS, 0.0, id="to-the-servers"),
        pytest.param(0.0, DELAY_SECONDS, id="from-the-servers"),
    ],
)
def test_a_slow_network_makes_no_outcome_wrong(
    stage: Stage, network: Network, workload: Workload, to_server: float, to_client: float
):
    """Nor is the slow node taken for dead, though an agent waits for each round trip and its lease here is short."""
    network.delay(to_server=to_server, to_client=to_client)
    workload.submit(SUBMISSIONS)
    for number in range(4):
        key = f"there-{number}"
        ref = plain.options(scheduling_strategy=there(network)).remote(workload.ledger.path, key, number)
        workload.ledger.add(key, ref, number * 3 + 1)
    lost = threading.Event()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            if not is_alive(network):
                lost.set()

    watcher = threading.Thread(target=look, name="watcher")
    watcher.start()
    try:
        workload.finish()
    finally:
        ended.set()
        watcher.join()
    assert not lost.is_set(), "the node was taken for dead"
    started = time.monotonic()
    works_again(network)
    took = time.monotonic() - started
    assert took >= to_server + to_client, "the way there and back is not slow"
    report(f"a task on a node {to_server:g} s away, and {to_client:g} s back, took {took:.2f} s")
    network.delay()
    stage.healed()
    stage.recovery("a slow network", lambda: works_again(network))


def test_connections_that_are_reset_are_opened_again(stage: Stage, network: Network, workload: Workload):
    for _ in range(5):
        workload.submit(SUBMISSIONS // 5)
        time.sleep(stage.random.uniform(0.05, 0.3))
        network.reset()
    stage.healed()
    stage.recovery("connections that were reset", lambda: works_again(network))
    workload.finish()
