"""The pool of executors: leases hold what they need, and give all of it back."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.messages import KIND_ACTOR_CREATION, encode
from rabbitry_broker.runtime_environments import DIGEST
from rabbitry_broker.store.functions import job_digest
from rabbitry_workers.channel import RETIRE
from rabbitry_workers.node.dispatch import pool as pools
from rabbitry_workers.node.dispatch.jobs import JOBS_KEPT, Jobs
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.model.lanes import State
from tests.workers.node.fakes import FakeExecutor, World


class Leasing(World):
    def __init__(self, cpus: float = 2.0) -> None:
        super().__init__(cpus)
        self.forks: list[Any] = []
        self.trouble: Exception | None = None
        self.jobs = Jobs(self.node)
        self.setups: dict[Any, bytes] = {}
        self.pool = ExecutorPool(
            self.node,
            self.lanes,
            self.executors,
            self.jobs,
            self.setups.get,
            lambda lane: lane.waiting,
            self.fork,
            lambda pid, key, fds, client_id: FakeExecutor(pid + len(fds), key),
        )
        self.pool.dispatcher = self

    def fork(self, tag: Any, config: dict[str, Any]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.forks.append((tag, config))

    def free(self) -> float:
        return self.ledger.available()["CPU"]


def test_an_executor_is_forked_for_each_waiting_task_that_there_is_room_for():
    world = Leasing()
    lane = world.lanes.of(world.wait(5).header)
    assert not world.pool.lease(lane)
    assert len(world.forks) == lane.starting == 2
    assert world.free() == 0
    (_, _, client_id), config = world.forks[0]
    assert config["client_id"] == client_id
    assert not world.pool.lease(lane)
    assert len(world.forks) == 2


def test_an_executor_is_forked_once_its_environment_is_ready():
    world = Leasing()
    lane = world.lanes.of(world.wait(1, env=DIGEST + b"e" * 16).header)
    assert not world.pool.lease(lane)
    assert world.forks == [] and world.free() == 2 and not lane.starting
    world.setups[lane.key[1:]] = b"setup"
    world.pool.lease(lane)
    ((tag, config),) = world.forks
    assert config["setup"] == b"setup"
    world.pool.not_forked(tag)
    assert world.free() == 2 and not lane.starting


def test_what_a_fork_that_fails_took_is_free_again():
    world = Leasing()
    world.trouble = TypeError("cannot be sent")
    with pytest.raises(TypeError):
        world.pool.lease(world.lanes.of(world.wait(1).header))
    assert world.free() == 2


def test_nothing_is_taken_when_the_job_cannot_be_read():
    world = Leasing()
    world.store.away = 1
    with pytest.raises(ConnectionLost):
        world.pool.lease(world.lanes.of(world.wait(1).header))
    assert world.free() == 2


def test_what_an_executor_held_that_cannot_be_taken_on_is_free_again_and_another_is_asked_for():
    world = Leasing()
    lane = world.lanes.of(world.wait(1).header)
    world.pool.lease(lane)
    ((tag, _),) = world.forks
    with pytest.raises(TypeError):
        world.pool.on_forked(7, tag, None)  # type: ignore[arg-type]
    assert world.free() == 2 and not lane.starting and not world.executors
    world.loop.run(pools.AGAIN_SECONDS)
    assert world.served == [lane]


def test_a_forked_executor_without_work_becomes_idle_and_is_leased_again():
    world = Leasing(1.0)
    lane = world.lanes.of(world.wait(1).header)
    world.pool.lease(lane)
    ((tag, _),) = world.forks
    world.pool.on_forked(7, tag, [])
    executor = world.executors[7]
    assert world.served == [lane]
    assert executor.state is State.IDLE
    assert world.free() == 1
    assert world.served_all == 1
    assert not lane.executors
    assert world.pool.lease(lane)
    assert executor.state is State.LEASED
    assert lane.executors == [executor]
    assert world.free() == 0


@pytest.mark.parametrize("used", [True, False])
def test_an_actor_gets_no_idle_executor_that_has_run_something(used: bool):
    world = Leasing()
    lane = world.lanes.of(world.wait(1, kind=KIND_ACTOR_CREATION, actor=b"a" * 16).header)
    executor = world.executor(state=State.IDLE)
    executor.next_sequence = int(used)
    world.pool.idle[executor.key] = [executor]
    assert world.pool.lease(lane, fresh=True) is not used
    assert len(world.forks) == used
    world.wait(1)
    world.pool.lease(lane)  # if another piece is to be served, it takes any
    assert executor.state is State.LEASED


def test_a_thousand_executors_can_be_asked_for_at_once():
    world = Leasing()
    piece = world.wait(2000, resources="none")
    lane = world.lanes.of(piece.header)
    assert not world.pool.lease(lane)
    assert len(world.forks) == lane.starting == 2000


@pytest.mark.parametrize(("leaving", "lingering", "ends"), [("", False, True), ("retired", True, False)])
def test_an_executor_of_an_ended_job_ends_with_its_lease(leaving: str, lingering: bool, ends: bool):
    world = Leasing()
    executor = world.executor(lane=world.lanes.of(world.wait(1).header))
    executor.leaving, executor.lingering = leaving, lingering
    if ends:
        world.pool.end_job(b"jjjj")
    world.pool.end_lease(executor)
    assert executor.ended is ends
    assert executor.dismissed == ("its job has ended" if ends else "")
    assert not world.pool.idle
    assert world.free() == 2


def test_the_end_of_a_job_ends_its_idle_and_lingering_executors_and_forgets_its_lanes():
    world = Leasing()
    idle, lingering, other = world.executor(1), world.executor(2), FakeExecutor(3, (b"else", b""))
    world.executors[3] = other
    world.pool.idle = {idle.key: [idle], other.key: [other]}
    lingering.lingering = True
    world.lanes.of(world.wait(1).header).take_all()
    world.pool.end_job(b"jjjj")
    assert idle.ended
    assert lingering.ended
    assert idle.dismissed == lingering.dismissed == "its job has ended"
    assert not other.ended
    assert not world.lanes


def test_idle_executors_are_asked_to_end_sooner_when_there_are_many(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(pools.time, "monotonic", lambda: now[0])
    world = Leasing(1.0)
    executors = [world.executor(pid, state=State.IDLE) for pid in (1, 2)]
    world.pool.idle[executors[0].key] = list(executors)
    for executor in executors:
        executor.idle_since = 0.0
    now[0] = pools.IDLE_SURPLUS_SECONDS + 1
    world.pool.retire_idle()
    assert [executor.words() for executor in executors] == [[RETIRE], []]
    now[0] = pools.IDLE_SECONDS + 3
    world.pool.retire_idle()
    assert executors[1].words() == [RETIRE]


def test_what_is_kept_for_executors_goes_with_the_last_of_them():
    world = Leasing()
    lane = world.lanes.of(world.wait(1).header)
    first, second = world.executor(1), world.executor(2)
    lane.take_all()
    world.pool.idle[first.key] = [first]
    world.pool.gone(first)
    world.pool.forget(first.key)
    assert world.lanes
    world.pool.gone(second)
    world.pool.forget(second.key)
    assert not world.lanes
    assert not world.pool.idle


def test_facts_of_a_job_are_read_once_and_nonsense_is_none():
    world = Leasing()
    node = world.node
    for job, stored in (
        (b"good", node.signer.seal(b"jobgood", encode({"namespace": "x"}))),
        (b"fake", b"forged"),
        (b"list", node.signer.seal(b"joblist", encode([1]))),
    ):
        world.store.data[node.keys.job(job)] = stored
    assert world.jobs.facts(b"good") == {"namespace": "x"}
    assert world.jobs.facts(b"fake") == world.jobs.facts(b"list") == world.jobs.facts(b"none") == {}
    world.store.away = 1
    assert world.jobs.facts(b"good") == {"namespace": "x"}


def test_a_job_of_which_something_detached_goes_on_is_known_and_has_not_ended():
    world = Leasing()
    world.store.data[job_digest(b"kept")] = encode({"namespace": "x"})
    for job in (b"kept", b"over"):
        world.jobs.end(job)
    assert world.jobs.facts(b"kept") == {"namespace": "x"}
    assert not world.jobs.has_ended(b"kept")
    assert world.jobs.facts(b"over") == {}
    assert world.jobs.has_ended(b"over")
    world.jobs.end(b"lost")
    world.store.away = 1
    assert world.jobs.has_ended(b"lost"), "it cannot be read"


def test_few_jobs_are_kept():
    world = Leasing()
    world.store.away = 0
    for number in range(3 * JOBS_KEPT):
        job = number.to_bytes(4, "big")
        world.jobs.facts(job)
        world.jobs.end(job)
    assert len(world.jobs._known) <= JOBS_KEPT + 1
    assert len(world.jobs._ended) <= JOBS_KEPT
    assert world.jobs.has_ended(job)


def test_room_that_is_kept_for_somebody_is_no_room():
    world = Leasing()
    lane = world.lanes.of(world.wait(1).header)
    world.pool._allows = lambda each: each is not lane
    assert not world.pool.lease(lane)
    assert not lane.starting
    assert world.ledger.is_idle
