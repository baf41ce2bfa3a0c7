"""The steps of a service's round, each on its own: one that fails keeps no other from its turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("rabbitry")

TELL_SECONDS: Final = 30.0
"""A step that goes on failing is told of that often."""


class Steps:
    """Runs steps and tells of those that fail. One thread at a time.

    Args:
        service: what the log calls the service.
        is_over: True once the service is being stopped: failures are to be expected then, and not told.
    """

    def __init__(self, service: str, is_over: Callable[[], bool]) -> None:
        self._service = service
        self._is_over = is_over
        self._told: dict[str, float] = {}  # by step: when its failure was told last

    def run(self, name: str, step: Callable[[], object]) -> bool:
        """Run a step; False if it failed. It is run again in the next round."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  whatever it is, the other steps have their turn
            if not self._is_over():
                self._tell(name, error)
            return False
        self._told.pop(name, None)
        return True

    def _tell(self, name: str, error: Exception) -> None:
        now = time.monotonic()
        if now - self._told.get(name, -TELL_SECONDS) < TELL_SECONDS:
            log.debug("%s: %s failed again: %s", self._service, name, error)
            return
        self._told[name] = now
        log.warning(
            "%s: %s failed and is tried again: %s: %s",
            self._service,
            name,
            type(error).__name__,
            error,
            exc_info=log.isEnabledFor(logging.DEBUG),
        )
