"""Looks after the clients in this node's executors, and after the files of this host's objects.

An executor is a client too: it owns what its tasks submit and put, and holds what they borrow. The agent chooses its
client id, keeps its lease while the process lives (user code may hold the interpreter for minutes), and clears up after
it as soon as the process has ended without a goodbye. If the agent dies with it, the leases end and the janitor of any
node does that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.shared_memory import sweep_dead_sessions
from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.model.node import Node

log = logging.getLogger("rabbitry.node")

INTERVAL_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 3.0  # between two renewals, unless leases are shorter than four times that
SWEEP_ROUNDS: Final = 2
DEAD_SESSIONS_ROUNDS: Final = 60
STEP_PAUSE_SECONDS: Final = 0.002


class ExecutorClients:
    """Service on the agent's loop: `start`, `run_once`.

    Args:
        node: whose executors they are in.
        orphan: told of objects of the dead that somebody waits for.
    """

    def __init__(self, node: Node, orphan: Callable[[list[bytes]], None]) -> None:
        self._node = node
        self._orphan = orphan
        self._living: dict[int, bytes] = {}
        self._dead: list[bytes] = []
        self._steps: Iterator[None] | None = None
        self._round = 0

    def start(self) -> None:
        """Look after them from now on."""
        self._node.periodic.every(INTERVAL_SECONDS, self.run_once)
        self._node.periodic.every(min(LEASE_SECONDS, self._node.config.client_lease / 4), self.renew, stretch=False)

    def renew(self) -> None:
        """Renew leases."""
        if self._living:
            self._node.store.keep_clients(list(self._living.values()), self._node.config.client_lease)

    def started(self, executor: Executor, client_id: bytes) -> None:
        """An executor was forked with this client id."""
        executor.client_id = client_id
        self._living[executor.pid] = client_id

    def gone(self, executor: Executor) -> None:
        """An executor's process has ended."""
        client = self._living.pop(executor.pid, None)
        if client is not None:
            self._dead.append(client)

    def run_once(self) -> None:
        """Delete files that nobody needs, begin to clear up after executors that have ended."""
        store = self._node.store
        self._round += 1
        store.large.trim()
        if self._round % SWEEP_ROUNDS == 0:
            store.large.sweep()
        if self._round % DEAD_SESSIONS_ROUNDS == 0:
            sweep_dead_sessions()  # whose last process was killed: nobody else may ever begin one here
        if self._dead and self._steps is None:
            dead, self._dead = self._dead, []
            # Who never registered owns nothing, and who said goodbye is not on record any more.
            dead = store.registered(dead)
            if dead:
                self._steps = store.lives.leave(dead, self._orphan)
                self._step()

    def _step(self) -> None:
        assert self._steps is not None
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
        except RabbitryBrokerError as error:
            self._steps = None
            log.warning("could not clear up after an executor, the janitor will: %s", error)
        except Exception:
            self._steps = None
            log.exception("could not clear up after an executor, the janitor will")
        else:
            self._node.loop.call_later(STEP_PAUSE_SECONDS, self._step)
