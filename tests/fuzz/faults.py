"""Kills among the processes that a session's programs run on, at random moments.

| kind | what ends | counts as |
|---|---|---|
| worker | an executor or an actor host | a crash of what it ran |
| template | the template process, and with it all of its workers | a crash of what they ran |
| template, at times | a process that sets an environment up | nothing: another goes on |
| agent | the agent of an embedded node, which its supervisor starts again | a crash of all that the node ran |
| connections | all connections to the store | nothing: nobody may notice |

On a cluster, the driver's messages may also go out twice, and tasks in another order, for the whole of a program.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from rabbitry import current, session
from tests.chaos.meddler import meddling
from tests.chaos.stage import children

KINDS = ["worker", "worker", "worker", "template", "agent", "connections"]
MEDDLED = 0.3
"""Share of the programs on a cluster whose messages are doubled and reordered."""
LATEST = 0.4
"""Seconds after the begin of a program until its last fault, if nothing else is said."""


class Faults:
    """Strikes while a program runs: `with Faults(chance, agents) as faults: ...`.

    Args:
        chance: decides when, and what.
        agents: of nodes that others watch; none for an embedded node.
        latest: seconds until the last fault.

    Attributes:
        crashes: how many of the faults so far may have cost a task one of its retries.
        struck: their kinds.
    """

    def __init__(self, chance: random.Random, agents: list[int], latest: float = LATEST) -> None:
        self.crashes = 0
        self.struck: list[str] = []
        self._chance = chance
        self._agents = agents
        self._latest = latest
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self._cleanup = ExitStack()

    def __enter__(self) -> Faults:
        if self._agents and self._chance.random() < MEDDLED:
            self.struck.append("messages")
            self._cleanup.enter_context(meddling(random.Random(self._chance.random())))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._cleanup.close()

    def _run(self) -> None:
        for moment in sorted(self._chance.uniform(0, self._latest) for _ in range(self._chance.choice([1, 1, 2]))):
            if self._over.wait(moment / 2):
                return
            self._strike(self._chance.choice(KINDS))

    def _strike(self, kind: str) -> None:
        if kind == "connections":
            self._close_connections()
            self.struck.append(kind)
            return
        agents = self._agents or embedded_agents()
        templates = [template for agent in agents for template in children(agent)]
        workers = [worker for template in templates for worker in children(template)]
        if kind == "agent" and self._agents:
            kind = "worker"
        victims = {"worker": workers, "template": templates, "agent": agents}[kind]
        if victims:
            # Counted before: what it causes may be seen at once.
            self.crashes += 1
            self.struck.append(kind)
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(victims), signal.SIGKILL)

    @staticmethod
    def _close_connections() -> None:
        client: Any = current.client()
        with suppress(Exception):
            client.store.call(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")


def embedded_agents() -> list[int]:
    """Return the agent of this process's embedded node, unless it is just being started again."""
    node: Any = session._session.node if session._session is not None else None
    if node is None:
        return []
    return [pid for pid in children(node._process.pid) if b"redis" not in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"redis"  # it is gone
