"""What the node does at each control word: the table that `peers.controls` looks words up in.

Most words are for one part. Some are for several, in an order that stands here.
"""

from __future__ import annotations

from collections.abc import Callable

from rabbitry_workers.node.actors.ends import Ends
from rabbitry_workers.node.dispatch.environments import Environments
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.groups.keeping import Keeping
from rabbitry_workers.node.groups.planner import Planner
from rabbitry_workers.node.intake.cancelling import Cancelling
from rabbitry_workers.node.intake.owners import Owners
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node

Handler = Callable[..., object]


class Words:
    """Handlers of control words. Loop thread only.

    Args:
        node: which node this is.
        life: tells whether it is leaving.
        cancelling: ends tasks.
        owners: drops work whose owner is gone.
        ends: ends actors.
        pool: its executors.
        environments: its environments.
        planner: plans placement groups, if this node is the one that does.
        keeping: keeps the bundles that this node holds.
        flush_output: sends what was printed.
        on_ask: answers a request.
        on_copy: copies a large value of this host for others.
        on_drain: called with the reason when this node is asked to leave.
        look_again: looks for queues that this node is to serve, or no longer.
    """

    def __init__(
        self,
        node: Node,
        life: Life,
        *,
        cancelling: Cancelling,
        owners: Owners,
        ends: Ends,
        pool: ExecutorPool,
        environments: Environments,
        planner: Planner,
        keeping: Keeping,
        flush_output: Handler,
        on_ask: Handler,
        on_copy: Handler,
        on_drain: Callable[[str], object],
        look_again: Callable[[], object],
    ) -> None:
        self._node = node
        self._life = life
        self._cancelling = cancelling
        self._owners = owners
        self._ends = ends
        self._pool = pool
        self._environments = environments
        self._planner = planner
        self._keeping = keeping
        self._flush_output = flush_output
        self._on_ask = on_ask
        self._on_copy = on_copy
        self._on_drain = on_drain
        self._look_again = look_again

    def handlers(self) -> dict[str, Handler]:
        """Return what is called with the arguments of each word."""
        return {
            "cancel": self._cancel,
            "kill-actor": self._kill_actor,
            "drain": self._drain,
            "flush-output": self._flush_output,
            "job-ended": self._job_ended,
            "clients-gone": self._owners.told,
            "group-asked": self._planner.on_asked,
            "group-planned": self._keeping.on_planned,
            "group-kept": self._keeping.on_kept,
            "group-dropped": self._group_dropped,
            "group-stands": self._group_stands,
            "group-ended": self._group_ended,
            "groups-wait": self._planner.on_waiting,
            "node-room": self._planner.on_room_elsewhere,
            "set-up": self._set_up,
            "ask": self._on_ask,
            "copy": self._on_copy,
        }

    def _cancel(self, tasks: list[bytes], client: bytes, force: bool, recursive: bool) -> None:
        self._cancelling.cancel(tasks, client, force=force, recursive=recursive)

    def _kill_actor(self, actor: bytes, no_restart: bool, cause: bytes) -> None:
        self._ends.kill(actor, no_restart=no_restart, cause=cause)

    def _drain(self, whom: bytes) -> None:
        if whom == self._node.id:
            self._on_drain("rabbitry stop")

    def _job_ended(self, job: bytes) -> None:
        self._pool.end_job(job)
        self._environments.end_job(job)
        self._planner.on_job_ended()

    def _group_dropped(self, group: bytes, token: bytes) -> None:
        self._keeping.on_dropped(group, token)
        self._planner.on_dropped(group, token)
        self._look_again()

    def _group_stands(self, group: bytes) -> None:
        self._keeping.on_stands(group)
        self._planner.on_stands(group)

    def _group_ended(self, group: bytes) -> None:
        self._keeping.on_ended(group)
        self._planner.on_ended(group)
        self._look_again()

    def _set_up(self, job: bytes, code: bytes) -> None:
        if not self._life.draining:
            self._environments.set_up(job, code)
