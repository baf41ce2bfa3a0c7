"""All faults in random order, with a printed seed, during one workload of everything that rabbitry has."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import rabbitry
from rabbitry import current
from tests.chaos.conftest import LONG
from tests.chaos.faults import FAULTS, MEMORY_LIMIT, Fault, Scene
from tests.chaos.ledger import Ledger
from tests.chaos.network import Network
from tests.chaos.stage import Stage
from tests.chaos.workload import Workload, plain
from tests.servers import wait_until

ROUNDS = 2  # of the long form: how often each fault comes
HANDFUL = 5  # faults of the short form
SUBMISSIONS = 20  # before each fault, and as many after it
SUBMISSIONS_BESIDE = 40  # at most, while it goes on
INTERVAL_SECONDS = 0.05
OUTCOME_TIMEOUT = 90.0


@pytest.fixture(autouse=True)
def memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no executor take all memory; before the nodes start."""
    monkeypatch.setenv("RABBITRY_EXECUTOR_MEMORY_LIMIT", str(MEMORY_LIMIT))


@pytest.fixture
def scene(memory_limit: None, stage: Stage, ledger: Ledger) -> Iterator[Scene]:
    """Three nodes, one of them behind a network that can be cut."""
    network = Network(stage)
    try:
        yield Scene(stage, network, Workload(ledger, stage.random))
    finally:
        network.close()


def submit_beside(scene: Scene, fault: Fault) -> None:
    """Submit while a fault goes on."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            fault.strike(scene)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="fault")
    thread.start()
    for _ in range(SUBMISSIONS_BESIDE):
        if not thread.is_alive():
            break
        scene.workload.submit(1)
        time.sleep(INTERVAL_SECONDS)
    thread.join()
    if failures:
        raise failures[0]


def put_aside() -> int:
    """Return how many messages that nobody signed were put aside."""
    client = current.client()
    return int(client.store.call(b"GET", client.keys.put_aside + b":count") or 0)


def test_all_faults_in_random_order(scene: Scene):
    stage, workload = scene.stage, scene.workload
    plan = [fault for _ in range(ROUNDS) for fault in stage.random.sample(FAULTS, len(FAULTS))]
    if not LONG:
        plan = plan[:HANDFUL]

    def probe() -> None:
        assert rabbitry.get(plain.remote(workload.ledger.path, "probe", 1), timeout=5) == 4

    for scene.number, fault in enumerate(plan):
        print(f"{time.strftime('%H:%M:%S')} {fault.name}")
        workload.submit(SUBMISSIONS)
        fault.submit(scene)
        submit_beside(scene, fault)
        stage.healed()
        fault.afterwards(scene)
        stage.recovery(fault.name, probe)
        workload.submit(SUBMISSIONS)
    workload.finish(timeout=OUTCOME_TIMEOUT)
    effects = workload.ledger.effects
    wait_until(lambda: scene.abandoned <= set(effects()), "the detached work of dead drivers ends", 20)
    for name in scene.detached:
        actor = rabbitry.get_actor(name, namespace="chaos")
        assert rabbitry.get(actor.say.remote("late", 7), timeout=20) == 7
        rabbitry.kill(actor)
    wait_until(lambda: put_aside() >= scene.forged, f"{scene.forged} forgeries are put aside")
