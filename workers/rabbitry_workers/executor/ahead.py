"""Executors made ahead: a template makes one for a job, and those that it forks for the job begin as that one.

A client consists of some thousand objects, and making them touches far more pages of memory than they take: Python
counts references in what it uses. Made before the fork, all of that is shared, and no child has to do it. What is a
process's own is set when it begins (`Executor.become`, `Executor.begin`).

One is kept, for the job of the last request, and it is made at the second request for that job in a row: jobs that take
turns, and those of one executor, cost a template nothing.
"""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any, Final

from rabbitry_broker.ids import CLIENT_BYTES
from rabbitry_workers.channel import BlockingChannel
from rabbitry_workers.executor import process

if TYPE_CHECKING:
    from rabbitry_workers.executor.run import Executor

NOBODY: Final = b"\x7e" * CLIENT_BYTES
"""Whose client one is that was made ahead, before it becomes somebody's."""

_OWN: Final = "client_id"  # what tells two executors of a job and environment apart

log = logging.getLogger("rabbitry.node")


class Ahead:
    """What one template has made. Neither it nor those it forks have threads while they use this."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}  # what was asked for last, but for whose it is
        self._executor: Executor | None = None
        self._entry: process.Entry | None = None
        self._failed = False  # none can be made of what was asked for last

    def prepare(self, config: dict[str, Any]) -> None:
        """An executor like this will be forked: have one ready if others like it were asked for."""
        wanted = {**config, _OWN: NOBODY}
        if wanted != self._last:
            self._last, self._failed = wanted, False
            if self._executor is not None:
                self._executor = self._entry = None
                gc.collect()  # its parts refer to each other; what was frozen is not looked at
        elif self._executor is None and not self._failed:
            try:
                self._make(config, wanted)
            except Exception as error:  # each process finds out by itself, and says so where it is heard
                log.debug("no executor is made ahead: %s", error)
                self._failed = True

    def _make(self, config: dict[str, Any], wanted: dict[str, Any]) -> None:
        from rabbitry_workers.executor.run import Executor

        if not _can_be_made(config):
            self._failed = True
            return
        executor = Executor(BlockingChannel(), wanted, ahead=True)
        executor.prepare()
        self._entry = process.read(config)
        self._executor = executor

    def take(self, config: dict[str, Any]) -> tuple[Executor | None, process.Entry | None]:
        """Return what this process, just forked, begins as, and becomes before; None if that is still to be made."""
        executor, self._executor = self._executor, None
        if executor is None or {**config, _OWN: NOBODY} != self._last:
            return None, None
        gc.freeze()  # the collector would write to all of it, and nothing of it ever goes
        return executor, self._entry


def _can_be_made(config: dict[str, Any]) -> bool:
    """True if nothing that an executor is made of depends on what its process does first."""
    if config["tracing"]:
        return False  # it loads what the user has said
    return process.has_entered() or not (config["env"] or config["setup"])  # variables count when a client is made


ahead: Final = Ahead()
"""Of this process."""
