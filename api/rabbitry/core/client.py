"""`Client`: a process that submits work and holds refs: a driver, an executor or an actor host.

Its hot methods are those of its parts, bound once where these are made (`core.parts`). Here stands what takes several
parts: what is known, what goes on in the background, and leaving.

Thread rule: every public method may be called from any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from rabbitry.core.parts import Parts
from rabbitry.core.service.infeasible import SOON_SECONDS
from rabbitry.core.service.thread import Step
from rabbitry.core.submit.exports import LOOK_SECONDS as EXPORTS_SECONDS
from rabbitry.object_ref import ObjectRef
from rabbitry_broker.events import SEND_SECONDS as EVENTS_SECONDS
from rabbitry_broker.measures import SEND_SECONDS as MEASURES_SECONDS
from rabbitry_broker.measures import measures
from rabbitry_broker.records import ERROR_TAG, NONE_TAG, PLAIN_TAG
from rabbitry_broker.shared_memory import ObjectStoreFull

log = logging.getLogger("rabbitry")

SLOTS_SECONDS = 3.0  # between two looks at how much the cluster can run at once
ACTORS_SECONDS = 0.5  # between two looks whether actors with calls in flight are dead
GROUPS_SECONDS = 1.0  # between two looks whether groups that were waited for stand
UNKEPT_SECONDS = 2.0  # between two looks whether a node looks after our large values, and of copies in between
TRIM_SECONDS = 1.0  # between two looks at files that are kept for reuse
FINISH_SECONDS = 10.0  # between two looks at what others deleted of ours and did not finish
CONFIRM_SECONDS = 5.0  # for the last messages, when this client leaves
AT_HAND = frozenset((NONE_TAG, PLAIN_TAG, ERROR_TAG))


class Client(Parts):
    """One client of a cluster. What it is made with: `Parts`."""

    # -- made ahead --------------------------------------------------------------------------------------------------

    def become(self, client_id: bytes) -> None:
        """Be this client from now on. Called once, and first of all, where a client was made `ahead`.

        So what it consists of is memory that its process shares with the one that it was forked from.
        """
        self.id = self.identity.id = client_id
        self.references.become(frozenset((client_id, self.detached_id)))
        self.task_ids.become(client_id)
        for part in (
            self.lifetimes,
            self.inbox,
            self.plans,
            self.environments,
            self.exports,
            self.actors.calls,
            self.reports,
        ):
            part.become(client_id)
        self.store.large.join()

    # -- what is known -----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Tasks of this client that have not ended, as far as it knows."""
        return self.flight.count

    @property
    def registered(self) -> bool:
        """True once this client is on record as living."""
        return self.liveness.registered

    @property
    def executing(self) -> bool:
        """True in executors, which settle when a task ends."""
        return self._executing is not None

    @property
    def counted_dead(self) -> bool:
        """True if others took this client for dead at some time."""
        return self.liveness.counted_dead

    @property
    def namespace(self) -> str:
        """Where named actors of the job live."""
        return self._job.namespace

    @namespace.setter
    def namespace(self, namespace: str) -> None:
        self._job.namespace = namespace

    @property
    def job_priority(self) -> int:
        """Priority of the job's tasks that have none of their own."""
        return self._job.priority

    @job_priority.setter
    def job_priority(self, priority: int) -> None:
        self._job.priority = priority

    @property
    def job_env(self) -> dict[str, Any]:
        """Environment of the job's tasks, as `runtime_env` has it."""
        return self._job.env

    @job_env.setter
    def job_env(self, env: dict[str, Any]) -> None:
        self._job.env = env

    job_logging: dict[str, Any] | None = None
    """How the processes of the job log (`LoggingConfig.to_dict`); None if each program sees to that itself."""

    def current_task(self) -> bytes | None:
        """Return the id of the task that runs on the main thread of this executor; None in drivers."""
        return None if self._executing is None else self._executing.current_task()

    def home_node(self) -> bytes:
        """Return the id of a living node, of this host if there is one; nil if none is known."""
        nodes = [node for node in self.node_records() if node["alive"]]
        here = [node for node in nodes if node["host"] == self.store.large.host]
        chosen = here or nodes
        return bytes(chosen[0]["id"]) if chosen else b"\xff" * 28

    def refresh_slots(self) -> None:
        """Learn how much the cluster can run at once."""
        slots = self.store.cluster_slots()
        if slots:
            self._job.slots = slots

    # -- handles and values ------------------------------------------------------------------------------------------

    def adopt(self, ref: ObjectRef[Any]) -> None:
        """Count a handle that came from elsewhere (unpickled, `from_hex`)."""
        references = self.references
        references.add(ref._id)
        ref._references = references
        if self._executing is None:
            self.kick()  # the service thread registers it, if nobody does before

    def on_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        """Run `callback` on an internal thread once `ref` is resolved."""
        self.when_ready(ref._id, callback)

    def is_resolved(self, ref: ObjectRef[Any]) -> bool:
        """True if the record of `ref` is here."""
        return ref._id in self.inbox.values

    def is_at_hand(self, ref: ObjectRef[Any]) -> bool:
        """True if the value of `ref` can be read without asking anybody: its record has it, and no refs in it."""
        return self.inbox.values.get(ref._id, b" ")[0] in AT_HAND

    def bring_here(self, refs: Sequence[Any]) -> None:
        """Have the large ones of resolved values on this host; one that is lost says so when it is read."""
        self._bring_here([ref._id for ref in refs if type(ref) is ObjectRef])

    def free(self, refs: Sequence[ObjectRef[Any]]) -> None:
        """Delete objects at once, whoever holds them."""
        self.outbox.flush()
        self.flush_puts()
        self.lifetimes.free([ref._id for ref in refs])

    # -- between tasks -----------------------------------------------------------------------------------------------

    def holds_nothing(self) -> bool:
        """True if no object or task depends on this client."""
        if self.in_flight:
            return False
        # All results have come, so those that nobody wants are known by now: what came in between would stay for good.
        self.collect()
        nothing = not self.references.counts and not self.in_flight and not self.lifetimes.borrowed
        return nothing and not self.lifetimes.waiting

    def collect_quietly(self) -> None:
        """`collect` between two tasks, if there is anything to collect."""
        self._tidying.run_once()
        self._collecting.between_tasks()

    def failed(self) -> None:
        """A task failed here: what its frames refer to goes as soon as there is time for that."""
        if not self._tidying.failed() and not self._service.running:
            self._service.start()  # it does that if nothing runs here when the time has come

    # -- the service thread ------------------------------------------------------------------------------------------

    def _steps(self) -> tuple[Step, ...]:
        """Return what the service thread does in a round, in this order."""
        flight, driver, inbox = self.flight, self.identity.driver, self.inbox
        cancelling, actors, groups = self._cancelling, self.actors, self.groups
        return (
            # First of all: whatever else goes wrong, we live.
            Step("renewing the lease", self.liveness.renew, when=lambda: self.liveness.is_due),
            Step("sending what waits", self.outbox.flush),
            Step("announcing what was cancelled", cancelling.announce, when=lambda: cancelling.unannounced),
            Step("reading the inbox", inbox.drain, when=lambda: flight.count or cancelling.expects_late),
            Step("tidying up", self._tidying.run_once),
            # A reply that nobody reads may be a refusal.
            Step("looking after what was sent", lambda: self.publisher.flush(0.0), when=lambda: flight.count),
            # Inside a task its end does that.
            Step("registering refs", self.lifetimes.settle, when=lambda: self._executing is None),
            Step("ending streams", self._streams.end_abandoned),
            Step("letting go of what was waited for", self.remainder.let_go, when=lambda: self.remainder),
            Step("letting go of objects", self.collect),
            Step("ending actors", actors.ends.send_lingering, when=lambda: actors.ends.lingering),
            Step("ending what was cancelled", cancelling.end_due, when=lambda: cancelling.waiting),
            Step("looking after actors", actors.calls.check_pending, when=lambda: actors.tracked, every=ACTORS_SECONDS),
            Step("looking at the cluster's size", self.refresh_slots, when=lambda: driver, every=SLOTS_SECONDS),
            Step(
                "looking for work that nobody can run",
                self._infeasible.run_once,
                when=lambda: driver and (flight.count or any(self._infeasible.also)) and self._infeasible.is_due(),
                every=SOON_SECONDS,
            ),
            Step("letting go of groups that stand", groups.run_once, when=lambda: groups.waits, every=GROUPS_SECONDS),
            Step("sending events", self.reports.send_events, when=lambda: self.events, every=EVENTS_SECONDS),
            Step("sending measurements", self.reports.send_measures, when=lambda: measures, every=MEASURES_SECONDS),
            Step("letting go of functions", self.exports.run_once, every=EXPORTS_SECONDS),
            Step(
                "letting go of environments",
                self.environments.run_once,
                when=lambda: not flight.count,
                every=EXPORTS_SECONDS,
            ),
            Step(
                "copying values that no node looks after",
                self._copy_unkept,
                when=lambda: self.store.large.has_unkept,
                every=UNKEPT_SECONDS,
            ),
            Step("trimming files", self.store.large.trim, every=TRIM_SECONDS),
            # Second results of tasks that ran twice: nobody else would delete them.
            Step("reading what comes late", inbox.drain, every=FINISH_SECONDS),
            Step("finishing deletions", self.lifetimes.finish, every=FINISH_SECONDS),
            Step("shrinking tables", self.lifetimes.shrink, every=FINISH_SECONDS),
        )

    def _copy_unkept(self) -> None:
        try:
            self.store.large.copy_unkept(UNKEPT_SECONDS)
        except ObjectStoreFull as error:
            log.warning("values of this process cannot be read on other hosts: %s", error)

    def send_events(self) -> None:
        """Send what was recorded of this client's tasks, or drop it."""
        self.reports.send_events()

    # -- leaving -----------------------------------------------------------------------------------------------------

    def deregister(self) -> None:
        """This process ends. If nothing depends on it, it is forgotten now; else others clear up after it."""
        self.reports.leave_measures()
        if not self.liveness.registered:
            return
        self._cancelling.announce()
        # Second results of tasks that ran twice: nobody else would delete them. Nor what another thread is just taking.
        drained = self.inbox.drain()
        self.send_events()
        if drained and self.holds_nothing():
            self._stop()
            if len(self.exports) or len(self.environments):
                self.store.functions.leave(self.id)
            self.store.lives.forget(self.id)

    def goodbye(self, *, cluster: bool) -> None:
        """Let go of everything this client owns. On a cluster that lives on, delete it from the store.

        Args:
            cluster: False if the whole cluster ends with this client.
        """
        self._close_inbox()
        self.actors.ends.send()
        self.outbox.flush()
        self.publisher.flush(CONFIRM_SECONDS)
        if not cluster:
            return
        self._cancelling.announce()
        self.reports.leave_measures()
        if self.identity.driver:
            self.reports.job_ended()
        self.send_events()
        self.liveness.leaving = True
        self.actors.directory.leave(self.actors.ends.lingering)
        self.actors.ends.lingering.clear()
        self.lifetimes.goodbye()
        self.store.end_job(self.job)

    def close(self) -> None:
        """Send what waits, let go of everything. Refs and handles of this client are invalid afterwards."""
        if self._closed:
            return
        self._close_inbox()
        self._stop()
        self._service.close()
        self.publisher.close()
        self.store.close()

    def _close_inbox(self) -> None:
        self._callbacks.close()
        self.inbox.close()
        self.remainder.clear()

    def _stop(self) -> None:
        self._closed = True
        self._streams.closed = True
        self._service.stop()
