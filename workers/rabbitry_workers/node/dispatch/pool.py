"""The executors of a node: leased to a lane while it has work for them, idle between two leases, ended in the end.

    lease(lane) --+-- idle one of its job and environment --> LEASED
                  '-- none: fork, STARTING ---forked--------> LEASED --end_lease--> IDLE, for `IDLE_SECONDS`

A lease holds a grant of the lane's resource class, from the moment its executor is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from rabbitry_broker.ids import new_client_id
from rabbitry_broker.runtime_environments import DIGEST
from rabbitry_workers.channel import RETIRE
from rabbitry_workers.node.dispatch.jobs import Jobs
from rabbitry_workers.node.model.lanes import Executor, Lane, Lanes, State
from rabbitry_workers.node.model.ledger import Grant
from rabbitry_workers.node.model.node import Node

IDLE_SECONDS: Final = 60.0  # an idle executor beyond nobody's need ends after this
IDLE_SURPLUS_SECONDS: Final = 2.0  # ... and after this if there are more than the node has CPUs

AGAIN_SECONDS: Final = 1.0  # until others are asked for in place of one that could not be taken on

Tag = tuple[Lane, Grant, bytes]
"""What a fork is for: lane, grant, client id."""

Adopt = Callable[[int, tuple[bytes, bytes], list[int], bytes], Executor]
"""Makes an executor of a forked process: pid, (job, environment), descriptors, client id."""


class Serves(Protocol):
    """Hands out tasks."""

    def serve(self, lane: Lane) -> None:
        """Give a lane's waiting tasks to executors."""

    def serve_all(self) -> None:
        """Resources became free: any lane may use them."""


class ExecutorPool:
    """Leases executors. Loop thread only.

    Args:
        node: whose they are.
        lanes: which they are leased to.
        executors: all that are alive, by the process's number; the pool enters and removes them.
        jobs: what executors must be told.
        setup_of: what those of an environment must be told, which is in the store; None if it is not ready.
        startable: how many executors a lane can use now.
        fork: asks for a process with a configuration; `on_forked` is called with the tag.
        adopt: makes an executor of it.
        allows: False for a lane that may have no room now, since it is kept for somebody.
        took: called with a lane that got room.

    Attributes:
        idle: executors without a lease, by job and environment.
        dispatcher: serves lanes when executors are there, or resources became free.
    """

    dispatcher: Serves

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        executors: dict[int, Executor],
        jobs: Jobs,
        setup_of: Callable[[tuple[bytes, bytes]], bytes | None],
        startable: Callable[[Lane], int],
        fork: Callable[[Tag, dict[str, Any]], None],
        adopt: Adopt,
        allows: Callable[[Lane], bool] = lambda lane: True,
        took: Callable[[Lane], None] = lambda lane: None,
    ) -> None:
        self._node = node
        self._allows = allows
        self._took = took
        self._lanes = lanes
        self._executors = executors
        self._jobs = jobs
        self._setup_of = setup_of
        self._startable = startable
        self._fork = fork
        self._adopt = adopt
        self.idle: dict[tuple[bytes, bytes], list[Executor]] = {}

    # -- leases ------------------------------------------------------------------------------------------------------

    def lease(self, lane: Lane, *, fresh: bool = False) -> bool:
        """Get one more executor for the lane, or as many as it can use if they are to be forked.

        Args:
            lane: the lane.
            fresh: only one that has run nothing will do: it is for an actor, which finds nothing of others then.

        Returns:
            True if one is free to use at once.
        """
        wanted = self._startable(lane)
        if lane.starting >= wanted:
            return False
        setup = self._setup_of(lane.key[1:]) if lane.key[2].startswith(DIGEST) else b""
        if setup is None:
            return False
        while lane.starting < wanted:
            if not self._allows(lane):
                return False
            facts = self._jobs.facts(lane.key[1])  # first of all, for it may fail
            grant = lane.account.acquire(lane.request)
            if grant is None:
                return False
            self._took(lane)
            executor = self._idle_executor(lane, fresh)
            if executor is not None:
                self._begin_lease(executor, lane, grant)
                return True
            self._start(lane, grant, facts, setup)
        return False

    def _start(self, lane: Lane, grant: Grant, facts: dict[str, Any], setup: bytes) -> None:
        """Fork an executor for a lane; the grant is released if that fails."""
        try:
            _, job, env = lane.key
            client_id = new_client_id()
            config = self._node.config.executor_config(facts, job, env, client_id, setup)
            self._fork((lane, grant, client_id), config)
        except BaseException:
            grant.ledger.release(grant)
            raise
        lane.starting += 1

    def _idle_executor(self, lane: Lane, fresh: bool) -> Executor | None:
        """Take an idle executor for the lane."""
        idle = self.idle.get(lane.key[1:])
        if not idle:
            return None
        if not fresh:
            return idle.pop()
        for executor in idle:
            if not executor.next_sequence:
                idle.remove(executor)
                return executor
        return None

    @staticmethod
    def _begin_lease(executor: Executor, lane: Lane, grant: Grant) -> None:
        executor.move(State.LEASED)
        executor.lane, executor.grant = lane, grant
        lane.executors.append(executor)

    def on_forked(self, pid: int, tag: Tag, fds: list[int]) -> None:
        """A process is there that `lease` asked for."""
        lane, grant, client_id = tag
        lane.starting = max(0, lane.starting - 1)
        try:
            executor = self._executors[pid] = self._adopt(pid, lane.key[1:], fds, client_id)
        except BaseException:
            grant.ledger.release(grant)
            self._node.loop.call_later(AGAIN_SECONDS, lambda: self.dispatcher.serve(lane))
            raise
        self._begin_lease(executor, lane, grant)
        if lane.waiting:
            self.dispatcher.serve(lane)
        if not executor.chunks and executor.state is State.LEASED:
            self.end_lease(executor)

    def not_forked(self, tag: Tag) -> None:
        """No process can be there that `lease` asked for."""
        lane, grant, _ = tag
        lane.starting = max(0, lane.starting - 1)
        grant.ledger.release(grant)

    def end_lease(self, executor: Executor) -> None:
        """An executor has nothing to do for its lane any more: it is idle, or ends."""
        self.release(executor)
        if self._jobs.has_ended(executor.key[0]):
            self._dismiss(executor)
            return
        if executor.leaving and not executor.lingering:
            executor.end()
            return
        if executor.leaving:
            return  # it stays for those who live by it
        executor.move(State.IDLE)
        executor.idle_since = time.monotonic()
        self.idle.setdefault(executor.key, []).append(executor)
        self.dispatcher.serve_all()

    def release(self, executor: Executor) -> None:
        """Take back what an executor holds: its grant, and its place in a lane."""
        if executor.grant is not None:
            executor.grant.ledger.release(executor.grant)
            executor.grant = None
        if executor.lane is not None and executor in executor.lane.executors:
            executor.lane.executors.remove(executor)
        executor.lane = None

    # -- ends --------------------------------------------------------------------------------------------------------

    def leaves(self, executor: Executor, why: str) -> None:
        """It takes nothing any more."""
        executor.leaving = why
        self._not_idle(executor)

    def gone(self, executor: Executor) -> None:
        """Its process has ended."""
        self._executors.pop(executor.pid, None)
        self._not_idle(executor)

    def _not_idle(self, executor: Executor) -> None:
        line = self.idle.get(executor.key)
        if line and executor in line:
            line.remove(executor)

    def forget(self, key: tuple[bytes, bytes]) -> None:
        """Let go of what is kept for executors of a job and environment, if there are none any more."""
        if key in self.idle and not self.idle[key]:
            del self.idle[key]
        if not any(executor.key == key for executor in self._executors.values()):
            self._lanes.forget_of(job=key[0], env=key[1])

    def retire_idle(self) -> None:
        """Ask those that have been idle for long to end."""
        now = time.monotonic()
        surplus = sum(map(len, self.idle.values())) - self._node.slots
        for line in self.idle.values():
            for executor in list(line):
                allowed = IDLE_SURPLUS_SECONDS if surplus > 0 else IDLE_SECONDS
                if now - executor.idle_since > allowed:
                    executor.send([RETIRE])
                    executor.idle_since = now
                    surplus -= 1

    def end_job(self, job: bytes) -> None:
        """A driver said goodbye: its executors are of no use any more, now or when what they run ends."""
        self._jobs.end(job)
        for key, line in self.idle.items():
            if key[0] == job:
                for executor in line:
                    self._dismiss(executor)
        for executor in self._executors.values():
            if executor.key[0] == job and executor.lingering:
                self._dismiss(executor)
        self._lanes.forget_of(job=job)

    @staticmethod
    def _dismiss(executor: Executor) -> None:
        executor.dismissed = "its job has ended"
        executor.end()
