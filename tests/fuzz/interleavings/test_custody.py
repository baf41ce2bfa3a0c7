"""Settling and custody of some nodes over one store and one broker, in thousands of orders of what may happen to them.

After each event every task without a result is somewhere: on the queue, unacknowledged at a node that lives, or in a
custody entry. In the end every task has its result, and nothing is left of any message.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectionLost, RabbitryBrokerError
from rabbitry_broker.messages import Task, decode, decode_frames, encode_frame, encode_header
from rabbitry_broker.signing import Signer
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome.custody import Custody
from rabbitry_workers.node.outcome.settling import Settling
from tests.fuzz.interleavings.happening import happen
from tests.fuzz.interleavings.orders import named, orders
from tests.workers.conftest import header, task
from tests.workers.node.fakes import OWNER, FakeLoop, FakeStore, delivery

ORDERS = 80
STEPS = 40


class Store(FakeStore):
    """Now and then a command is done, and its reply gets lost."""

    mute = 0

    def pipeline(self, commands: Any) -> list[Any]:
        """As in `FakeStore`."""
        done = super().pipeline(commands)
        if self.mute:
            self.mute -= 1
            raise ConnectionLost("no reply")
        return done


class Keeper:
    """What keeps the deliveries of one node."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        endpoint = Endpoint("redis://nowhere", "amqp://nowhere", (b"s" * 32,), "test:")
        config = NodeConfig(endpoint=endpoint, totals={"CPU": 1.0}, name="n", host=b"h" * 16)
        self.loop: Any = FakeLoop()
        store: Any = cluster.store
        self.node = Node.of(config, self.loop, store, Signer(endpoint.secrets))
        self.unacknowledged: dict[int, Held] = {}
        self.work: list[tuple[Held, bytes]] = []  # what runs
        self.confirms: list[Any] = []
        self.settling = Settling(self._ack)
        publishing: Any = SimpleNamespace(publish_now=self._publish, flush=self._flush)
        rechecks: Any = SimpleNamespace(recheck=lambda held, head, tasks, lost: cluster.unfinished(tasks))
        actors: Any = None
        commits: Any = None
        self.custody = Custody(self.node, self.settling, commits, publishing, rechecks, actors, after=0.0)
        self.settling.on_settled = self.custody.settled

    def _ack(self, message: Any) -> None:
        del self.unacknowledged[id(message)]

    def _publish(self, queue: str, body: bytes, priority: int, confirmed: Any) -> None:
        self.cluster.queue.append(body)
        self.confirms.append(confirmed)

    def _flush(self, seconds: float) -> bool:
        if self.cluster.chance.random() < 0.3:
            return False
        self.confirm()
        return True

    def confirm(self) -> None:
        """The broker confirms what was published."""
        confirms, self.confirms = self.confirms, []
        for each in confirms:
            each()

    def take(self, body: bytes) -> None:
        """A message comes. What is done already is settled at once."""
        held = Held(delivery(body))
        self.unacknowledged[id(held.delivery)] = held
        tasks = [each for _, tasks in decode_frames(self.node.signer, body) for each in tasks]
        held.outstanding = len(tasks)
        self.custody.watch(held)
        left = self.cluster.unfinished(tasks)
        self.work += [(held, each[0]) for each in left]
        if len(left) < len(tasks):
            self.settling.settle(held, len(tasks) - len(left))


class Cluster:
    """Nodes, and what happens to them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.store = Store()
        self.queue: list[bytes] = []
        self.results: set[bytes] = set()
        self.tasks: list[bytes] = []
        self.nodes = [Keeper(self), Keeper(self)]
        self.gone: list[Keeper] = []  # whose custody nobody has adopted yet

    def unfinished(self, tasks: list[Task]) -> list[Task]:
        """Return the tasks without results."""
        return [each for each in tasks if each[0] not in self.results]

    def message(self, tasks: list[Task]) -> bytes:
        """Return a message of tasks."""
        return encode_frame(self.nodes[0].node.signer, encode_header(header(OWNER)), tasks)

    def step(self) -> None:
        """Let one thing happen."""
        events = [self.submit, self.take, self.take, self.finish, self.finish, self.keep, self.keep, self.turn]
        event = self.chance.choice([*events, self.hand_back, self.give_up, self.kill, self.leave, self.adopt])
        happen(event, self.check)

    # -- events ------------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        """Tasks are sent."""
        made = [task(OWNER, len(self.tasks) + at) for at in range(self.chance.choice([1, 1, 2, 3]))]
        self.tasks += [each[0] for each in made]
        self.queue.append(self.message(made))

    def take(self) -> None:
        """A node takes a message."""
        if self.queue:
            body = self.queue.pop(self.chance.randrange(len(self.queue)))
            self.chance.choice(self.nodes).take(body)

    def finish(self) -> None:
        """A task ends."""
        keeper = self.chance.choice(self.nodes)
        if keeper.work:
            held, task_id = keeper.work.pop(self.chance.randrange(len(keeper.work)))
            self.results.add(task_id)
            keeper.settling.settle(held, 1)

    def keep(self) -> None:
        """A node takes custody; the store may be away, or its reply get lost."""
        self.store.away, self.store.mute = self.chance.choice([(0, 0), (0, 0), (0, 0), (1, 0), (0, 1)])
        self.chance.choice(self.nodes).custody.run_once()
        self.store.away = self.store.mute = 0

    def turn(self) -> None:
        """A node's loop has its turn."""
        keeper = self.chance.choice(self.nodes)
        if self.chance.random() < 0.5:
            keeper.confirm()
        keeper.loop.run(1.0)

    def hand_back(self) -> None:
        """A node gives a task back that it has not begun, alone."""
        keeper = self.chance.choice(self.nodes)
        if keeper.work:
            held, task_id = keeper.work.pop(self.chance.randrange(len(keeper.work)))
            self.queue.append(self.message([task(OWNER, self.tasks.index(task_id))]))
            held.returned.add(task_id)
            keeper.custody.update(held)
            keeper.settling.settle(held, 1)

    def give_up(self) -> None:
        """A queue takes back a delivery from a node that is not to have it."""
        keeper = self.chance.choice(self.nodes)
        if keeper.unacknowledged:
            held = self.chance.choice(list(keeper.unacknowledged.values()))
            del keeper.unacknowledged[id(held.delivery)]
            keeper.work = [each for each in keeper.work if each[0] is not held]
            keeper.custody.forget(held)
            assert held.delivery is not None
            self.queue.append(held.delivery.body)

    def kill(self) -> None:
        """A node is killed; another one comes."""
        self._end(self.chance.choice(self.nodes))

    def leave(self) -> None:
        """A node leaves in good order; another one comes."""
        keeper = self.chance.choice(self.nodes)
        self.store.away = self.chance.choice([0, 0, 1])
        try:
            keeper.custody.give_back()
        except RabbitryBrokerError:
            assert keeper.custody.left
        self.store.away = 0
        if not keeper.custody.left:
            assert not self.entries(keeper), "it left, and said that it had put everything back"
        self._end(keeper)

    def _end(self, keeper: Keeper) -> None:
        self.queue += [held.delivery.body for held in keeper.unacknowledged.values() if held.delivery is not None]
        self.nodes.remove(keeper)
        self.gone.append(keeper)
        self.nodes.append(Keeper(self))

    def adopt(self) -> None:
        """A node adopts what a dead one had in custody."""
        if self.gone:
            keeper = self.gone.pop(self.chance.randrange(len(self.gone)))
            self.chance.choice(self.nodes).custody.adopt(keeper.node.id)

    # -- what must be so ---------------------------------------------------------------------------------------------

    def entries(self, keeper: Keeper) -> dict[bytes, bytes]:
        """Return what a node has in custody."""
        found: dict[bytes, bytes] = self.store.data.get(keeper.node.keys.custody(keeper.node.id), {})
        return found

    def somewhere(self) -> set[bytes]:
        """Return the tasks that somebody has."""
        signer = self.nodes[0].node.signer
        bodies = list(self.queue)
        for keeper in self.nodes:
            bodies += [held.delivery.body for held in keeper.unacknowledged.values() if held.delivery is not None]
        for keeper in (*self.nodes, *self.gone):
            bodies += [decode(signer.open(b"custody" + at, entry))[2] for at, entry in self.entries(keeper).items()]
        return {each[0] for body in bodies if body for _, tasks in decode_frames(signer, body) for each in tasks}

    def check(self) -> None:
        """Check what must be so after each event."""
        lost = set(self.tasks) - self.results - self.somewhere()
        assert not lost, f"{len(lost)} tasks are nowhere"
        for keeper in self.nodes:
            for held, _ in keeper.work:
                assert held.outstanding > 0, "a delivery counts as settled while a task of it runs"

    def end(self) -> None:
        """Let everything come to its end, and check that nothing is left."""
        for _ in range(50):
            while self.gone:
                self.adopt()
            for keeper in self.nodes:
                keeper.confirm()
                keeper.loop.run(10.0)
            while self.queue:
                self.take()
            for keeper in self.nodes:
                while keeper.work:
                    held, task_id = keeper.work.pop()
                    self.results.add(task_id)
                    keeper.settling.settle(held, 1)
                keeper.custody.run_once()
        assert self.results == set(self.tasks), "tasks have never run"
        assert not self.store.aside, "entries count as damaged"
        for keeper in self.nodes:
            assert not keeper.unacknowledged, "deliveries are never acknowledged"
            assert not self.entries(keeper), "custody is kept for good"
            kept = keeper.custody
            assert not (kept._watched or kept._kept or kept._tried or kept._done or kept._adopted)
        kept_for_nobody = [key for key, entries in self.store.data.items() if b"custody" in key and entries]
        assert not kept_for_nobody, "custody is kept for nobody"


def test_nothing_is_lost_or_left_whatever_the_order_of_events() -> None:
    for seed in orders(ORDERS):
        cluster = Cluster(seed)
        with named(seed):
            for _ in range(STEPS):
                cluster.step()
            cluster.end()
