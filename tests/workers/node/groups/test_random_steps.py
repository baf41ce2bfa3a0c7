"""Groups that come and go in random steps, on nodes without processes: an exact account, through losses of all kinds.

The records are real (the scripts run on a Redis); nodes, their tasks, clocks and messages are fakes. Messages come
late, twice or never, nodes and planners are killed, and after each step all that a node has is accounted for.
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections import Counter, deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import new_client_id, new_group_id, new_node_id
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.groups import CREATED, PENDING, REMOVED, STRATEGIES, GroupRecords, GroupSpec
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.node.groups import planner as planner_module
from rabbitry_workers.node.groups.bundles import Bundles, BundleState
from rabbitry_workers.node.groups.keeping import Keeping
from rabbitry_workers.node.groups.planner import Planner
from rabbitry_workers.node.model.ledger import Grant, Ledger
from rabbitry_workers.node.peers.others import OtherNode
from tests.servers import RedisServer
from tests.workers.node.fakes import FakeLoop

STEPS = 10_000
SEEDS = range(10)
JOB = b"jobb"
TOTALS = ResourceRequest.parse("CPU=4,GPU=2,license=3")
CLASSES = ("CPU=1", "CPU=2", "CPU=0.5", "CPU=1,GPU=1", "GPU=0.5", "license=1", "CPU=4", "CPU=1,license=2", "CPU=9")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class FakeExecutor:
    """Holds a grant until it is reaped."""

    def __init__(self, grant: Grant) -> None:
        self.grant: Grant | None = grant
        self.actor = b""
        self.chunks = [object()]
        self.killed = False
        self.last_name, self.pid = "x", 1

    def kill(self) -> None:
        self.killed = True


class FakeOthers:
    """What a node knows of others: as they were read last."""

    def __init__(self, node: FakeNode) -> None:
        self.alive, self.take, self.is_alive = node.others, node.take, node.world.is_alive

    @property
    def has_others(self) -> bool:
        return bool(self.alive())


class FakeNode:
    """A node's account, its part in planning, and what it hears."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.id = new_node_id()
        self.loop = FakeLoop()
        self.ledger = Ledger(TOTALS)
        self.bundles = Bundles(self.ledger)
        self.executors: dict[int, FakeExecutor] = {}
        self.heard: deque[bytes] = deque()
        self.known: dict[bytes, bytes] = {}  # records of others, as they were read last
        self.sealed = b""
        node: Any = SimpleNamespace(
            id=self.id,
            loop=self.loop,
            store=world.store,
            config=SimpleNamespace(labels={}, lease=10.0, client_lease=30.0),
        )
        self.keeping = Keeping(
            node,
            self.bundles,
            world.records,
            self.executors,  # type: ignore[arg-type]
            world.told.__setitem__,
            lambda *_: None,
        )
        self.keeping.keep = lambda group, requests: None
        self.keeping.drop = lambda group: None
        self.keeping.on_change = lambda _: None
        self.keeping.on_room = self.on_room
        self.keeping.clear_lanes = lambda: None
        others: Any = FakeOthers(self)
        room: Any = SimpleNamespace(
            for_others=self.ledger.available, gpus=self.ledger.free_gpu_shares, totals=lambda: TOTALS
        )
        self.planner = Planner(node, world.records, self.keeping, others, room, lambda: False)
        self.planner.heartbeat = self  # type: ignore[assignment]

    def on_room(self) -> None:
        self.planner.on_room()

    # -- what others see ---------------------------------------------------------------------------------------------

    def run_once(self) -> None:
        """A sign of life: this node's record, and those of the others."""
        record = {
            "id": self.id, "totals": TOTALS.to_floats(), "room": self.ledger.available(), "labels": {},
            "draining": False, "gpus": self.ledger.free_gpu_shares(), "bundles": self.bundles.tokens(),
        }  # fmt: skip
        self.sealed = encode(record)
        self.world.published[self.id] = self.sealed
        self.look_at_all()

    def may_plan(self) -> bool:
        return True

    def look_at_all(self) -> None:
        self.known = {
            node.id: self.world.published[node.id]
            for node in self.world.nodes
            if node is not self and node.id in self.world.published
        }

    def take(self, node: bytes, record: bytes) -> None:
        if self.world.is_alive(node) and node != self.id:
            self.known[node] = record

    def others(self) -> dict[bytes, OtherNode]:
        return {node: OtherNode(decode(record)) for node, record in self.known.items() if self.world.is_alive(node)}

    def hear(self, message: bytes) -> None:
        word, *rest = decode(self.world.store.signer.open(b"control", message))
        if word == "group-planned":
            group, token, wanted = rest
            self.keeping.on_planned(group, token, [(node, [tuple(each) for each in asked]) for node, asked in wanted])
        elif word == "group-dropped":
            self.keeping.on_dropped(*rest)
            self.planner.on_dropped(*rest)
        elif word == "group-stands":
            self.keeping.on_stands(*rest)
            self.planner.on_stands(*rest)
        elif word == "group-ended":
            self.keeping.on_ended(*rest)
            self.planner.on_ended(*rest)
        elif word == "group-asked":
            self.planner.on_asked(*rest)
        elif word == "groups-wait":
            self.planner.on_waiting(*rest)
        elif word == "node-room":
            self.planner.on_room_elsewhere(*rest)

    def reap(self) -> None:
        """Processes that were killed are gone."""
        for pid, executor in list(self.executors.items()):
            if executor.killed and executor.grant is not None:
                executor.grant.ledger.release(executor.grant)
                del self.executors[pid]

    def account(self) -> None:
        """Nothing of what the node has is lost or given away twice."""
        own: Counter[str] = Counter()
        inside: dict[int, Counter[str]] = {}
        ledgers = {id(bundle.ledger): bundle for bundle in self.bundles}
        for bundle in self.bundles:
            own.update(bundle.grant.request.to_units())
        for executor in self.executors.values():
            grant = executor.grant
            assert grant is not None
            if grant.ledger is self.ledger:
                own.update(grant.request.to_units())
            else:
                assert id(grant.ledger) in ledgers, "something runs in a bundle that was given back"
                inside.setdefault(id(grant.ledger), Counter()).update(grant.request.to_units())
        free = self.ledger.free_units()
        for name, units in TOTALS.units:
            assert free[name] + own[name] == units, (name, free, own)
        for key, bundle in ledgers.items():
            left = bundle.ledger.free_units()
            for name, units in bundle.grant.request.units:
                assert left[name] + inside.get(key, Counter())[name] == units


class World:
    """Nodes, groups, and what goes wrong between them."""

    def __init__(self, store: ObjectStore, clock: Clock, seed: int) -> None:
        self.store = store
        self.clock = clock
        self.random = random.Random(seed)
        self.records = GroupRecords(store)
        self.told: dict[bytes, bytes] = {}
        self.published: dict[bytes, bytes] = {}
        self.nodes: list[FakeNode] = []
        self.groups: list[bytes] = []
        self.ear = store.open_connection("ear")
        self.ear.send(b"SUBSCRIBE", store.keys.control_channel)
        self.pids = itertools.count(1)
        for _ in range(3):
            self.join()

    def is_alive(self, node: bytes) -> bool:
        return any(each.id == node for each in self.nodes)

    def spread(self, *, faults: bool = True) -> None:
        """What was published is on its way to all nodes: once, twice or never."""
        self.store.call(b"PING")  # what came before it has been published
        for message in self.ear.poll():
            if isinstance(message, list) and message[0] == b"message":
                for node in self.nodes:
                    for _ in range(self.random.choice((0, 1, 1, 1, 1, 1, 1, 2)) if faults else 1):
                        node.heard.append(message[2])

    # -- steps -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        steps = (
            (self.ask, 10), (self.remove, 8), (self.deliver, 40), (self.look, 12), (self.begin_inside, 12),
            (self.begin, 6), (self.end, 14), (self.reap, 10), (self.beat, 12), (self.pass_time, 10), (self.kill, 1),
            (self.lose_lease, 1), (self.wait, 4), (self.run_loops, 20),
        )  # fmt: skip
        kinds, weights = zip(*steps, strict=True)
        self.random.choices(kinds, weights)[0]()
        self.spread()
        for node in self.nodes:
            node.account()

    def any_node(self) -> FakeNode:
        return self.random.choice(self.nodes)

    def ask(self) -> None:
        if len(self.groups) > 12:
            return
        group = new_group_id(JOB)
        bundles = [self.random.choice(CLASSES) for _ in range(self.random.randint(1, 4))]
        detached = self.random.random() < 0.9
        spec = GroupSpec(bundles, strategy=self.random.choice(STRATEGIES), job=JOB, detached=detached)
        self.records.create(group, spec)
        self.groups.append(group)

    def remove(self) -> None:
        if self.groups:
            self.records.remove(self.groups.pop(self.random.randrange(len(self.groups))))

    def wait(self) -> None:
        if self.groups:
            self.records.wait(self.random.choice(self.groups), new_client_id() + secrets.token_bytes(16), b"Pready")

    def deliver(self) -> None:
        node = self.any_node()
        for _ in range(self.random.randint(1, 4)):
            if node.heard:
                at = 0 if self.random.random() < 0.9 else self.random.randrange(len(node.heard))
                message = node.heard[at]
                del node.heard[at]
                node.hear(message)

    def run_loops(self) -> None:
        for node in self.nodes:
            node.loop.run(0.05)

    def look(self) -> None:
        node = self.any_node()
        self.random.choice((node.keeping.run_once, node.planner.run_once))()

    def beat(self) -> None:
        self.any_node().run_once()

    def pass_time(self) -> None:
        self.clock.now += self.random.choice((0.1, 1.0, 4.0, 20.0))

    def begin_inside(self) -> None:
        node = self.any_node()
        held = [bundle for bundle in node.bundles if bundle.state is BundleState.HELD]
        if held:
            bundle = self.random.choice(held)
            account = self.random.choice((bundle.index, -1))
            request = ResourceRequest.parse(self.random.choice(CLASSES[:7]))
            stem = f"bundle.{bundle.group.hex()}."
            grant = node.bundles.account_of(stem + ("any" if account < 0 else str(account))).acquire(request)
            if grant is not None:
                node.executors[next(self.pids)] = FakeExecutor(grant)

    def begin(self) -> None:
        node = self.any_node()
        grant = node.ledger.acquire(ResourceRequest.parse(self.random.choice(CLASSES)))
        if grant is not None:
            node.executors[next(self.pids)] = FakeExecutor(grant)

    def end(self) -> None:
        node = self.any_node()
        if node.executors:
            pid = self.random.choice(list(node.executors))
            grant = node.executors.pop(pid).grant
            assert grant is not None
            grant.ledger.release(grant)
            node.on_room()

    def reap(self) -> None:
        self.any_node().reap()

    def join(self) -> None:
        node = FakeNode(self)
        self.nodes.append(node)
        node.run_once()

    def kill(self) -> None:
        node = self.any_node()
        self.nodes.remove(node)
        self.published.pop(node.id, None)
        if self.store.call(b"GET", self.store.keys.planner) == node.id:
            self.lose_lease()
        self.join()

    def lose_lease(self) -> None:
        self.store.call(b"DEL", self.store.keys.planner)

    # -- at the end --------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Nothing goes wrong any more: messages arrive, time passes, everybody looks."""
        for _ in range(8):
            self.clock.now += 4.0
            for node in self.nodes:
                node.run_once()
                node.keeping.run_once()
                node.planner.run_once()
            for _ in range(3):
                self.spread(faults=False)
                for node in self.nodes:
                    while node.heard:
                        node.hear(node.heard.popleft())
                    node.loop.run(0.2)
                    node.reap()

    def end_all(self) -> None:
        for node in self.nodes:
            for executor in node.executors.values():
                executor.kill()
            node.reap()
        self.settle()

    def check_settled(self) -> None:
        held: Counter[tuple[bytes, int]] = Counter()
        for node in self.nodes:
            node.account()
            for bundle in node.bundles:
                assert bundle.state is BundleState.HELD, bundle
                held[bundle.group, bundle.index] += 1
        ids = self.records.ids()
        living = {group.id: group for group in self.records.read(ids) if group is not None}
        for group in living.values():
            assert group.state == CREATED or (group.state != REMOVED and group.why in ("NO_RESOURCES", "INFEASIBLE"))
            for index, at in group.held.items():
                assert self.is_alive(at)
                assert held.pop((group.id, index)) == 1
        assert not held, "bundles of groups that are none"
        assert self.records.with_waiters([each for each, group in living.items() if group.state == CREATED]) == []
        assert self.records.untold() == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(planner_module, "time", clock)
    return clock


@pytest.fixture
def store(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    endpoint = Endpoint(redis_server.url, None, (b"s" * 32,), f"steps-{secrets.token_hex(4)}:")
    made = ObjectStore(endpoint, Signer(endpoint.secrets))
    monkeypatch.setattr(made, "trusts_leases", lambda _: True)
    yield made
    left = made.call(b"KEYS", made.keys.prefix + b"*")
    if left:
        made.call(b"DEL", *left)
    made.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled_and_every_group_ends_as_the_table_says(store, clock, seed):
    world = World(store, clock, seed)
    try:
        for _ in range(STEPS // len(SEEDS)):
            world.step()
        world.settle()
        world.check_settled()
        world.end_all()
        world.check_settled()
        # With all tasks gone, what fits is there.
        states = Counter(group.state for group in world.records.read(world.groups) if group is not None)
        assert set(states) <= {CREATED, PENDING, REMOVED, "RESCHEDULING"}
        for group in world.groups:
            world.records.remove(group)
        world.settle()
        for node in world.nodes:
            assert node.ledger.is_idle
            assert list(node.bundles) == []
        assert world.records.ids() == []
    finally:
        world.ear.close()


@pytest.mark.parametrize("asks", ["at once", "at the next look"])
def test_a_group_is_spread_over_nodes_that_joined_since_the_planner_looked(store, clock, asks):
    world = World(store, clock, 0)
    try:
        planner, first, second = world.nodes
        planner.planner.run_once()
        planner.known = {}
        clock.now += 1.0
        group = new_group_id(JOB)
        world.records.create(group, GroupSpec(["CPU=1", "CPU=1"], strategy="SPREAD", job=JOB, detached=True))
        if asks == "at once":
            planner.planner.on_asked(group)
            planner.loop.run(0.2)
        else:
            planner.planner.run_once()
        (found,) = world.records.read([group])
        assert found is not None
        assert len(set(found.asked.values()) & {planner.id, first.id, second.id}) == 2
        world.records.remove(group)
    finally:
        world.ear.close()
