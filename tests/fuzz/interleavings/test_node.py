"""What hands out a node's tasks, over fakes, in thousands of orders of what may happen to it.

A node's loop is one thread: what varies is the order of events, among them the ends of executors, alone or all at once
with their template. After each one the ledger agrees with what executors hold, no task waits beside room that it could
have, and in the end every task has run or failed.
"""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any

from rabbitry_broker.messages import KIND_ACTOR_CREATION, encode_header
from rabbitry_broker.resources import CPU, UNITS
from rabbitry_workers.node.dispatch.blocking import Blocking
from rabbitry_workers.node.dispatch.crashes import Crashes
from rabbitry_workers.node.dispatch.dispatcher import Dispatcher
from rabbitry_workers.node.dispatch.ending import Ending
from rabbitry_workers.node.dispatch.jobs import Jobs
from rabbitry_workers.node.dispatch.nesting import Nesting
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.dispatch.recall import Recall
from rabbitry_workers.node.dispatch.run_times import RunTimes
from rabbitry_workers.node.dispatch.turns import Turns
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.ledger import GrantState
from rabbitry_workers.node.model.work import Held, Piece
from tests.fuzz.interleavings.happening import happen
from tests.fuzz.interleavings.orders import named, orders
from tests.workers.node.fakes import OWNER, QUEUE, FakeExecutor, World, header, task

ORDERS = 500
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
        self.recall = Recall(self.lanes, self.executors, self.settle, self.pool, lambda executor: None)
        self.blocking = Blocking(self.nesting, self.recall, self.dispatcher, lambda count: None)
        commits: Any = SimpleNamespace(commit_error=self.fail)
        output: Any = SimpleNamespace(ended=lambda executor: None, last_words=lambda *_: "")
        self.crashes = Crashes(
            self.node, self.lanes, self.executors, self.pool, self.nesting, self.recall, commits, self.dispatcher,
            self.life, lambda executor: executor.chunks.clear(), lambda executor: None, output,
        )  # fmt: skip
        self.ending = Ending(
            self.lanes, self.pool, self.recall, self.dispatcher, self.failing, lambda *_: None, self.life
        )
        self.doomed: list[Any] = []  # processes that have ended, and the node does not know

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

    def fail(self, *_: Any, **__: Any) -> None:
        """A task has been tried as often as it may be."""
        self.ran += 1

    # -- events ------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen."""
        events = [self.arrive]
        if self.forks:
            events += [self.forked] * 3
        for state, event in ((State.LEASED, self.done), (State.LEASED, self.block), (State.BLOCKED, self.unblock)):
            if self.with_work(state):
                events.append(event)
        if living := self.living():
            events += [self.die, self.bye, self.leave]
            if len(living) > 1 and self.chance.random() < 0.2:
                events.append(self.template_dies)
        if self.doomed:
            events += [self.gone] * 2
        happen(self.chance.choice(events), self.check)

    def with_work(self, state: State) -> list[Any]:
        """Return the executors in a state that run something."""
        living = self.living()
        return [each for each in living if each.state is state and each.chunks and not each.leaving]

    def living(self) -> list[Any]:
        """Return the executors whose process has not ended."""
        return [each for each in self.executors.values() if each not in self.doomed]

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
        executor = self.chance.choice(self.with_work(State.LEASED))
        executor.progress.started[0] = executor.chunks[0].first + 1
        self.blocking.on_blocked(executor, executor.chunks[0].first, False)

    def unblock(self) -> None:
        """It goes on."""
        self.blocking.on_unblocked(self.chance.choice(self.with_work(State.BLOCKED)))

    def die(self) -> None:
        """A process ends, whatever it does."""
        self._end(self.chance.choice(self.living()))

    def template_dies(self) -> None:
        """All processes end, and the node hears of one after the other; those that were asked for come later."""
        for executor in self.living():
            self._end(executor)

    def _end(self, executor: Any) -> None:
        if executor.state is State.LEASED and executor.chunks and not executor.leaving:
            executor.progress.started[0] = self.chance.randint(executor.chunks[0].first, executor.chunks[-1].end)
        self.doomed.append(executor)

    def gone(self) -> None:
        """The node hears of the end of a process."""
        executor = self.doomed.pop(self.chance.randrange(len(self.doomed)))
        self.crashes.on_gone(executor)
        assert executor.pid not in self.executors

    def bye(self) -> None:
        """A process that was idle says goodbye; the node may have sent it something meanwhile."""
        if able := [each for each in self.living() if self._may_leave(each)]:
            executor = self.chance.choice(able)
            self.ending.on_bye(executor, "retired")
            self.doomed.append(executor)

    def leave(self) -> None:
        """A process takes no more, but stays for a while."""
        if able := [each for each in self.living() if self._may_leave(each)]:
            executor = self.chance.choice(able)
            self.ending.on_leaving(executor, "max_calls", executor.progress.started[0] - 1)

    @staticmethod
    def _may_leave(executor: Any) -> bool:
        if executor.leaving or executor.state not in (State.IDLE, State.LEASED):
            return False
        if executor.chunks:
            executor.progress.started[0] = executor.chunks[0].first  # it has begun nothing of this
        return True

    def end_actor(self, executor: Any) -> None:
        """An actor's process ends."""
        self.crashes.on_gone(executor)

    def check(self) -> None:
        """What must be so after each event."""
        assert not self.failing.failed, f"tasks fail that nothing is wrong with: {self.failing.failed}"
        for executor in self.executors.values():
            if executor.state is State.IDLE:
                assert executor.grant is None and executor.lane is None and not executor.chunks
            if executor.state is State.LEASED and not executor.leaving:
                assert executor.chunks, "an executor is leased for nothing"
        grants = [*(each.grant for each in self.executors.values()), *(grant for _, grant, _ in self.forks)]
        held = sum(each.request.amount(CPU) for each in grants if each is not None and each.state is GrantState.HELD)
        assert self.ledger.free_units()[CPU] + held == CPUS * UNITS, "nobody has what is missing"
        if self.nesting.blocked:
            return  # what may be started then is held back
        for lane in self.lanes.values():
            if lane.waiting and not lane.starting:
                assert not self.ledger.has_room(lane.request), f"{lane.waiting} tasks of {lane.key[0]} wait beside room"


def test_every_task_runs_whatever_the_order_of_events() -> None:
    for seed in orders(ORDERS):
        node = Node(seed)
        with named(seed):
            for _ in range(STEPS):
                node.step()
            for _ in range(20 * STEPS):
                if node.ran == node.waited:
                    break
                if node.forks:
                    node.forked()
                elif node.doomed:
                    node.gone()
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
            while node.doomed:
                node.gone()
            node.check()
            assert node.ledger.available()["CPU"] == CPUS, "something is held for good"
