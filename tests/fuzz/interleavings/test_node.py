"""What hands out a node's tasks, over fakes, in thousands of orders of what may happen to it.

A node's loop is one thread: what varies is the order of events. After each one the ledger agrees with what executors
hold, no task waits beside room that it could have, and in the end every task has run.
"""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any

from rabbitry_broker.messages import KIND_ACTOR_CREATION, encode_header
from rabbitry_workers.node.dispatch.blocking import Blocking
from rabbitry_workers.node.dispatch.dispatcher import Dispatcher
from rabbitry_workers.node.dispatch.jobs import Jobs
from rabbitry_workers.node.dispatch.nesting import Nesting
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.dispatch.run_times import RunTimes
from rabbitry_workers.node.dispatch.turns import Turns
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.work import Held, Piece
from tests.fuzz.interleavings.happening import happen
from tests.workers.node.fakes import OWNER, QUEUE, FakeExecutor, World, header, task

ORDERS = 1000
STEPS = 60
CPUS = 3.0
CLASSES = ("CPU=1", "CPU=0.5", "CPU=2", "none")


class Node(World):
    """The parts that hand out tasks, and what may happen to them."""

    def __init__(self, seed: int) -> None:
        super().__init__(CPUS)
        self.chance = random.Random(seed)
        self.forks: list[Any] = []
        self.ran = self.waited = self.pids = 0
        self.dispatcher: Dispatcher
        sources: Any = SimpleNamespace(take_more=lambda resource_class: False, forget_blocked=lambda: None)
        self.nesting = Nesting(
            self.lanes, self.executors, self.ledger, sources, lambda lane: self.dispatcher.serve(lane)
        )
        self.pool = ExecutorPool(
            self.node,
            self.lanes,
            self.executors,
            Jobs(self.node),
            lambda key: b"",  # there is nothing to set up
            self.nesting.startable,
            lambda tag, config: self.forks.append(tag),
            lambda pid, key, fds, client_id: self._adopt(pid, key, client_id),
        )
        marks: Any = SimpleNamespace(mark=self.mark)
        hosts: Any = self
        self.dispatcher = Dispatcher(
            self.node, self.lanes, self.pool, self.nesting, Turns(self.lanes, lambda job: 1.0), RunTimes(), marks,
            hosts, self.failing, lambda: None,
        )  # fmt: skip
        self.pool.dispatcher = self.dispatcher
        recall: Any = SimpleNamespace(take_back=lambda executor, current: None)
        self.blocking = Blocking(self.nesting, recall, self.dispatcher, lambda count: None)

    def _adopt(self, pid: int, key: tuple[bytes, bytes], client_id: bytes) -> FakeExecutor:
        executor = FakeExecutor(pid, key)
        executor.client_id = client_id
        return executor

    def mark(self, piece: Any, tasks: list[Any]) -> list[Any]:
        """Set start marks; now and then there are some already: these tasks are second copies."""
        if self.chance.random() < 0.8:
            return tasks
        self.ran += len(tasks)
        return []

    def host(self, executor: Any, piece: Any, task: Any) -> bool:
        """An actor is created; or it has ended before."""
        self.ran += 1
        assert not executor.next_sequence, "an actor found what others had left"
        if self.chance.random() < 0.4:
            return False
        executor.move(State.ACTOR)
        return True

    # -- events ------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen."""
        events = [self.arrive]
        if self.forks:
            events += [self.forked] * 3
        for state, event in ((State.LEASED, self.done), (State.LEASED, self.block), (State.BLOCKED, self.unblock)):
            if self.with_work(state):
                events.append(event)
        happen(self.chance.choice(events), self.check)

    def with_work(self, state: State) -> list[Any]:
        """Return the executors in a state that run something."""
        return [each for each in self.executors.values() if each.state is state and each.chunks]

    def arrive(self) -> None:
        """Tasks come, of the driver or of one that is blocked."""
        blocked = [each.client_id for each in self.with_work(State.BLOCKED)]
        priority = self.chance.choice([0, 0, 0, 5])
        fields: dict[str, Any] = {"resources": self.chance.choice(CLASSES), "priority": priority}
        owner = self.chance.choice(blocked) if blocked and self.chance.random() < 0.6 else OWNER
        count = self.chance.choice([1, 1, 2, 5])
        if self.chance.random() < 0.3:
            fields |= {"kind": KIND_ACTOR_CREATION, "actor": b"a" * 16}
            count = 1
        elif self.chance.random() < 0.3:
            fields["max_retries"] = 0
        fields["function"] = self.chance.choice([b"f" * 16, b"g" * 16])
        head = header(owner, **fields)
        tasks = deque(task(owner, self.waited + at) for at in range(count))
        self.waited += count
        self.dispatcher.enqueue(Piece(Held(None, QUEUE), encode_header(head), head, tasks))

    def forked(self) -> None:
        """A process is there."""
        self.pids += 1
        self.pool.on_forked(self.pids, self.forks.pop(0), [])

    def done(self) -> None:
        """An executor has done what it had."""
        executor = self.chance.choice(self.with_work(State.LEASED))
        self.ran += sum(len(chunk.tasks) for chunk in executor.chunks)
        executor.chunks.clear()
        lane = executor.lane
        assert lane is not None
        if lane.waiting:
            self.dispatcher.serve(lane)
        if not executor.chunks and executor.state is State.LEASED:
            self.pool.end_lease(executor)

    def block(self) -> None:
        """A task waits."""
        self.blocking.on_blocked(self.chance.choice(self.with_work(State.LEASED)), 0, False)

    def unblock(self) -> None:
        """It goes on."""
        self.blocking.on_unblocked(self.chance.choice(self.with_work(State.BLOCKED)))

    def end_actor(self, executor: Any) -> None:
        """An actor's process ends."""
        self.pool.release(executor)
        executor.move(State.DEAD)
        self.pool.gone(executor)
        self.dispatcher.serve_all()

    def check(self) -> None:
        """What must be so after each event."""
        assert not self.failing.failed, f"tasks fail that nothing is wrong with: {self.failing.failed}"
        for executor in self.executors.values():
            if executor.state is State.IDLE:
                assert executor.grant is None and executor.lane is None and not executor.chunks
            if executor.state is State.LEASED:
                assert executor.chunks, "an executor is leased for nothing"
        if self.nesting.blocked:
            return  # what may be started then is held back
        for lane in self.lanes.values():
            if lane.waiting and not lane.starting:
                assert not self.ledger.has_room(lane.request), f"{lane.waiting} tasks of {lane.key[0]} wait beside room"


def test_every_task_runs_whatever_the_order_of_events() -> None:
    for seed in range(ORDERS):
        node = Node(seed)
        try:
            for _ in range(STEPS):
                node.step()
            for _ in range(20 * STEPS):
                if node.ran == node.waited:
                    break
                if node.forks:
                    node.forked()
                elif executors := node.with_work(State.BLOCKED):
                    node.blocking.on_unblocked(executors[0])
                elif node.with_work(State.LEASED):
                    node.done()
                else:
                    actors = [each for each in node.executors.values() if each.state is State.ACTOR]
                    assert actors, "tasks wait for good"
                    node.end_actor(actors[0])
                node.check()
            assert node.ran == node.waited, f"{node.waited - node.ran} tasks never ran"
            while actors := [each for each in node.executors.values() if each.state is State.ACTOR]:
                node.end_actor(actors[0])
            while node.forks:
                node.forked()
            assert node.ledger.available()["CPU"] == CPUS, "something is held for good"
        except AssertionError as error:
            raise AssertionError(f"order {seed}: {error}") from error
