"""Events at a node in random order: whatever happens when, no task is lost or held twice, and the accounts are exact.

All parts are real, servers and processes are fakes (`house`). After each event everything that a node knows of its work
is compared with what happened; a failure names the seed and the events, so that it can be run again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from rabbitry_broker import queue_names
from rabbitry_broker.ids import FIRST_INDEX
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_broker.resources import CPU, UNITS
from rabbitry_workers.channel import BLOCKED, BYE, DONE, UNBLOCKED
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.ledger import GrantState
from tests.workers.conftest import task
from tests.workers.node.fakes import OWNER, FakeExecutor
from tests.workers.node.house import House

SEEDS = range(12)
STEPS = 100
CPUS = 3
CLASSES = ("CPU=1", "CPU=2", "CPU=0.5", "CPU=3")


class Story:
    """A node, the events it has had, and what must be true after each."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.agent = house.agent
        self.random = random.Random(seed)
        self.events: list[str] = []
        self.messages: list[tuple[Delivery, list[bytes]]] = []
        self.number = 0

    # -- events ------------------------------------------------------------------------------------------------------

    def comes(self) -> None:
        """A message with some tasks."""
        numbers = range(self.number, self.number + self.random.randint(1, 5))
        self.number = numbers.stop
        resources = self.random.choice(CLASSES)
        message = self.house.comes(
            *numbers,
            queue=queue_names.task_queue(resources),
            resources=resources,
            job=self.random.choice((b"jjjj", b"kkkk")),
            function=self.random.choice((b"f", b"g")) * 16,
            max_retries=self.random.choice((0, 1, 3)),
        )
        self.messages.append((message, [task(OWNER, number)[0] for number in numbers]))

    def forks(self) -> None:
        """The template has forked an executor."""
        if self.agent.forker._queue:
            self.house.fork()

    def dies(self) -> None:
        """The process of an executor has ended, whatever it was at."""
        alive = [each for each in self.house.executors if each.state is not State.DEAD]
        if alive:
            executor = self.random.choice(alive)
            if executor.chunks and self.random.random() < 0.5:
                self._begins(executor)
            self.agent.messages.on_executor_gone(executor)

    def leaves(self) -> None:
        """The process of an executor that was to end has ended."""
        for executor in self.house.executors:
            if executor.ended and executor.state is not State.DEAD:
                self.agent.messages.on_executor_gone(executor)

    def finishes(self) -> None:
        """An executor says that some of its tasks are committed."""
        if executor := self._one(State.LEASED):
            first, end = executor.chunks[0].first, executor.chunks[-1].end
            self._done(executor, first + self.random.randint(1, end - first))

    def blocks(self) -> None:
        """A task waits in `get`."""
        if executor := self._one(State.LEASED):
            self.house.says(executor, BLOCKED, self._begins(executor), self.random.random() < 0.5)

    def goes_on(self) -> None:
        """A task has what it waited for."""
        if executor := self._one(State.BLOCKED):
            self.house.says(executor, UNBLOCKED)

    def says_goodbye(self) -> None:
        """An executor has had as many calls as it may have, and is replaced."""
        if executor := self._one(State.LEASED):
            self.house.says(executor, BYE, "max_calls")

    def time_passes(self) -> None:
        """Delays end, and the node looks after its work."""
        self.house.loop.run(self.random.choice((0.0, 0.1, 2.0)))
        self.agent.look_after_work()

    def _one(self, state: State) -> FakeExecutor | None:
        found = [each for each in self.house.executors if each.state is state and each.chunks and not each.leaving]
        return self.random.choice(found) if found else None

    def _begins(self, executor: FakeExecutor) -> int:
        """An executor is at its next task; return that one's number."""
        number = executor.chunks[0].first
        executor.progress.started[0] = max(executor.progress.started[0], number + 1)
        return number

    def _done(self, executor: FakeExecutor, upto: int) -> None:
        tasks = [each[0] for chunk in executor.chunks for at, each in enumerate(chunk.tasks, chunk.first) if at < upto]
        executor.progress.started[0] = max(executor.progress.started[0], upto)
        for task_id in tasks:
            self.house.store.results.setdefault(task_id + FIRST_INDEX, b"done")
        self.house.says(executor, DONE, upto, len(tasks), 0.001 * len(tasks), [], [], None)

    # -- what must be true -------------------------------------------------------------------------------------------

    def step(self, event: Callable[[], None]) -> None:
        """Have something happen, and look at everything."""
        self.events.append(event.__name__)
        event()
        try:
            self._work_is_accounted_for()
            self._lanes_are_right()
            self._the_ledger_is_exact()
        except AssertionError as error:
            error.add_note(" ".join(self.events)) if hasattr(error, "add_note") else None
            raise

    def open_tasks(self) -> list[bytes]:
        """Return the tasks that have not ended."""
        results = self.house.store.results
        return [each for _, tasks in self.messages for each in tasks if each + FIRST_INDEX not in results]

    def _work_is_accounted_for(self) -> None:
        assert Counter(self.agent.in_hand.task_ids()) == Counter(self.open_tasks())
        acknowledged = Counter(id(each) for each in self.house.consumer.acknowledged)
        still_open = set(self.open_tasks())
        for message, tasks in self.messages:
            assert acknowledged[id(message)] == (not still_open.intersection(tasks))

    def _lanes_are_right(self) -> None:
        lanes = self.agent.lanes
        for lane in lanes.values():
            assert lane.waiting == sum(len(piece.tasks) for piece in lane.all_pieces())
            assert (lane in lanes.ready) == bool(lane.waiting)
            assert lane.starting >= 0
            for executor in lane.executors:
                assert executor.lane is lane
                assert executor.state in (State.LEASED, State.BLOCKED)
        for executor in self.agent.executors.values():
            assert executor.state is not State.DEAD
            assert bool(executor.chunks) <= (executor.state in (State.LEASED, State.BLOCKED))

    def _the_ledger_is_exact(self) -> None:
        """What is free is what nobody holds: executors, and those that are asked for."""
        asked_for = [grant for (_, grant, _), _ in self.agent.forker._queue]
        taken = sum(grant.request.amount(CPU) for grant in asked_for)
        for executor in self.agent.executors.values():
            if executor.grant is not None:
                assert executor.grant.state is not GrantState.RELEASED
                assert (executor.grant.state is GrantState.LENT) == (executor.state is State.BLOCKED)
                taken += executor.grant.request.amount(CPU) * (executor.grant.state is GrantState.HELD)
        assert self.agent.ledger.free_units()[CPU] == CPUS * UNITS - taken

    def ends_well(self) -> None:
        """Let all that is open end; afterwards nothing is left of it."""
        for _ in range(10 * STEPS):
            if not self.open_tasks():
                break
            for event in (self.leaves, self.forks, self.goes_on, self.finishes):
                self.step(event)
            if not self.at_work():
                self.step(self.time_passes)
        while self.agent.forker._queue:
            self.step(self.forks)
        self.step(self.leaves)
        assert not self.open_tasks()
        assert self.agent.ledger.is_idle
        assert not self.agent.in_hand.is_at_work()
        assert not self.agent.in_hand.has_waiting()
        assert not self.agent.nesting.blocked

    def at_work(self) -> list[FakeExecutor]:
        """Return executors that have something."""
        return [each for each in self.house.executors if each.chunks]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made = House(monkeypatch, cpus=CPUS)
    yield made
    made.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_no_task_is_lost_or_held_twice(house: House, seed: int) -> None:
    story = Story(house, seed)
    likely = [story.comes, story.forks, story.forks, story.finishes, story.finishes, story.blocks, story.goes_on]
    rare = [story.dies, story.says_goodbye, story.time_passes]
    for _ in range(STEPS):
        story.step(story.random.choice(likely if story.random.random() < 0.8 else rare))
    story.ends_well()
