"""Calls to an actor of a node, over fakes, in thousands of orders of what may happen to it and to them.

The actor's process begins calls, ends them, dies before or after it has told of that, and comes again; messages come
twice. A call that may run once begins once; what was committed does not begin again; one caller's calls begin in their
order; and in the end each call has an outcome, and each message is settled exactly. A copy of a message comes whenever
it likes, also after the process has ended that got the first one.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from rabbitry_broker.ids import FIRST_INDEX, new_client_id
from rabbitry_broker.messages import KIND_ACTOR_CREATION, encode_frame, encode_header
from rabbitry_broker.store.actors import DEAD, PENDING, RESTARTING
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.work import Held
from tests.fuzz.interleavings.happening import happen
from tests.fuzz.interleavings.orders import named, orders
from tests.workers.conftest import header, task
from tests.workers.node.actors.test_actors_alone import ACTOR_ID, Stage
from tests.workers.node.fakes import OWNER, QUEUE

ORDERS = 150
STEPS = 60
CALLERS = (OWNER, new_client_id())


class Actor:
    """An actor on a stage, and what happens to it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.stage = Stage()
        self.stage.failing.add = self._fail  # type: ignore[method-assign]
        self.retries = self.chance.choice([0, 0, 1, 3])
        self.last = dict.fromkeys(CALLERS, 0)  # positions that callers have used
        self.messages: list[tuple[bytes, list[int], Held]] = []
        self.runs: Counter[bytes] = Counter()
        self.begun: dict[bytes, int] = dict.fromkeys(CALLERS, 0)  # highest position that this process has begun
        self.committed: list[int] = []  # sequence numbers that the process has not told of
        self.running: list[int] = []
        self.position: dict[bytes, tuple[bytes, int]] = {}
        self.has_process = self.is_dead = False
        self.lives = 0
        head = header(OWNER, kind=KIND_ACTOR_CREATION, actor=ACTOR_ID)
        self.frame = encode_frame(self.stage.node.signer, encode_header(head), [task(OWNER, 10_000)])
        self.create()

    def _fail(self, failed: Any) -> None:
        for held, _, call, record in list(failed):
            # Where a result stands, as for a message that comes twice, the commit of a failure changes nothing.
            self.stage.failing.failed[call[0]] = record
            self.stage.settle(held, 1)

    def step(self) -> None:
        """Let one thing happen."""
        events = [self.submit, self.submit, self.again]
        if self.has_process:
            events += [self.begin] * 4 + [self.commit, self.commit, self.tell, self.tell, self.crash]
        elif not self.is_dead:
            events += [self.create] * 2
        event = self.chance.choice(events)
        happen(event, self.check)

    # -- events ------------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        """A caller sends calls."""
        caller = self.chance.choice(CALLERS)
        first = self.last[caller] + 1
        self.last[caller] += self.chance.choice([1, 1, 2, 3])
        numbers = list(range(first, self.last[caller] + 1))
        for number in numbers:
            self.position[task(caller, number)[0]] = caller, number
        self._deliver(caller, numbers)

    def again(self) -> None:
        """A message comes once more: who sent it has lost its connection before the confirm."""
        if self.messages:
            caller, numbers, _ = self.chance.choice(self.messages)
            self._deliver(caller, numbers)

    def _deliver(self, caller: bytes, numbers: list[int]) -> None:
        held = self.stage.call(*numbers, retries=self.retries, owner=caller)
        self.messages.append((caller, numbers, held))

    def create(self) -> None:
        """A process is there."""
        self.lives += 1
        state = PENDING if self.lives == 1 else RESTARTING
        self.stage.records.next = (state, self.lives, self.lives - 1, OWNER, False)
        self.begun = dict.fromkeys(CALLERS, 0)
        self.stage.create(retries=self.retries)
        assert self.stage.hosts
        self.has_process = True

    def begin(self) -> None:
        """The process begins the next call."""
        executor = self.stage.one
        sequence = executor.progress.started[0]
        for chunk in executor.chunks:
            if chunk.first <= sequence < chunk.end:
                call = chunk.tasks[sequence - chunk.first]
                executor.progress.started[0] += 1
                self.running.append(sequence)
                self._has_begun(call[0])
                return

    def _has_begun(self, task_id: bytes) -> None:
        self.runs[task_id] += 1
        assert task_id + FIRST_INDEX not in self.stage.store.results, "a call that was committed begins again"
        assert self.runs[task_id] <= self.retries + 1, f"a call begins {self.runs[task_id]} times"
        caller, number = self.position[task_id]
        assert number > self.begun[caller], "a call begins after a later one of its caller"
        self.begun[caller] = number

    def commit(self) -> None:
        """A call has its result; the node does not know yet."""
        if self.running:
            sequence = self.running.pop(self.chance.randrange(len(self.running)))
            self.stage.store.results[self._call(sequence) + FIRST_INDEX] = b"N"
            self.committed.append(sequence)

    def _call(self, sequence: int) -> bytes:
        found = [chunk for chunk in self.stage.one.chunks if chunk.first <= sequence < chunk.end]
        task_id: bytes = found[0].tasks[sequence - found[0].first][0]
        return task_id

    def tell(self) -> None:
        """The process tells of what it has committed."""
        if self.committed:
            told, self.committed = self.committed, []
            self.stage.calls.on_done(self.stage.one, told, len(told), 0.0, [], [])

    def crash(self) -> None:
        """The process dies, sometimes for good."""
        self.is_dead = self.chance.random() < 0.1
        self.stage.records.ended = (DEAD, b"", "") if self.is_dead else (RESTARTING, self.frame, QUEUE)
        started = self.stage.one.progress.started[0]
        for sequence in self.committed if self.is_dead else ():
            del self.stage.store.results[self._call(sequence) + FIRST_INDEX]  # it had not been: the end came first
        self.committed, self.running = [], []
        self.stage.crash(begun=started)
        self.has_process = False

    # -- what must be so ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check what must be so after each event."""
        for _, _, held in self.messages:
            assert held.outstanding >= 0, "a message is settled more often than it has calls"
        if self.has_process:
            assert self.stage.one.state is State.ACTOR
            assert not self.stage.table.waiting.get(ACTOR_ID), "calls wait beside a process"

    def end(self) -> None:
        """Let everything come to its end, and check that each call has an outcome."""
        if not self.has_process and not self.is_dead:
            self.create()
        for _ in range(10 * STEPS):
            if not self.has_process:
                break
            self.begin()
            self.commit()
            self.tell()
            self.check()
        for caller, numbers, held in self.messages:
            assert held.outstanding == 0, "a message is never settled"
            for number in numbers:
                task_id = task(caller, number)[0]
                outcomes = (task_id + FIRST_INDEX in self.stage.store.results) + (
                    task_id in self.stage.failing.failed or task_id in self.stage.commits.results
                )
                assert outcomes, "a call has no outcome"


def test_calls_have_one_outcome_whatever_the_order_of_events() -> None:
    for seed in orders(ORDERS):
        actor = Actor(seed)
        with named(seed):
            for _ in range(STEPS):
                actor.step()
            actor.end()
