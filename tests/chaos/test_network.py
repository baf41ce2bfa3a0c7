"""The network between one node and the servers: cut, slow, cut one way, connections reset; then it heals."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

import warren
from tests.chaos.ledger import Ledger
from tests.chaos.proxy import Proxy
from tests.chaos.stage import NODE_LEASE, Stage, report
from tests.chaos.workload import LOST, Workload, long, once, plain
from tests.servers import wait_until
from warren.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SUBMISSIONS = 60
CUT_SECONDS = NODE_LEASE + 2
DELAY_SECONDS = 0.2


class Network:
    """The two ways of one node to its servers.

    Attributes:
        proxies: to the broker and to the store.
        node: the id of the node behind them.
    """

    def __init__(self, stage: Stage) -> None:
        self.proxies = Proxy(stage.rabbitmq.port), Proxy(stage.redis.port)
        self.node = stage.add_node_behind(*self.proxies)

    def cut(self, *, to_server: bool = True, to_client: bool = True) -> None:
        for proxy in self.proxies:
            proxy.cut(to_server=to_server, to_client=to_client)

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.heal()

    def reset(self) -> None:
        for proxy in self.proxies:
            proxy.reset()


@pytest.fixture
def network(stage: Stage) -> Iterator[Network]:
    network = Network(stage)
    try:
        yield network
    finally:
        network.heal()
        with suppress(ValueError):
            stage.cluster.remove_node(network.node)
        for proxy in network.proxies:
            proxy.close()


@warren.remote
def where() -> str:
    """Return the node that runs this."""
    return str(warren.get_runtime_context().get_node_id())


def is_alive(network: Network) -> bool:
    """True if the cluster takes the node for living."""
    (record,) = [each for each in warren.nodes() if each["NodeID"] == network.node.node_id]
    return bool(record["Alive"])


def works_again(network: Network) -> None:
    """Run a task on that very node; raises GetTimeoutError if another one took it."""
    if warren.get(where.options(scheduling_strategy=there(network)).remote(), timeout=5) != network.node.node_id:
        raise warren.exceptions.GetTimeoutError("it ran elsewhere")


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


def test_a_slow_network_makes_no_outcome_wrong(stage: Stage, network: Network, workload: Workload):
    """Nor is the slow node taken for dead, though an agent waits for each round trip and its lease here is short."""
    for proxy in network.proxies:
        proxy.delay = DELAY_SECONDS
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
    assert took >= 2 * DELAY_SECONDS, "the way there and back is not slow"
    report.append(f"a task on a node {DELAY_SECONDS:g} s away each way took {took:.2f} s")
    print(report[-1])
    for proxy in network.proxies:
        proxy.delay = 0.0
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
