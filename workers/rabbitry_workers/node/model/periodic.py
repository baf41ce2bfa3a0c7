"""What is looked after every so often: the only timer of a node's parts.

Each look is a round trip to Redis or more, for which the agent's loop waits. Next to Redis that is nothing; from far
away (200 ms each way, say) all of them together would leave the loop no time for work and for the node's sign of life.
So the pauses between looks grow with the way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from rabbitry_broker.errors import RabbitryBrokerError

PAUSE_ROUND_TRIPS: Final = 20
"""A pause is as long as so many round trips at least: a look of one takes a twentieth of the loop's time."""

LONGEST_PAUSE_SECONDS: Final = 8.0

log = logging.getLogger("rabbitry.node")


class Timer(Protocol):
    """What calls back after a while: a loop, or a test's clock."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Any:
        """Call once, after so many seconds."""


class Periodic:
    """Runs steps again and again on a loop.

    Attributes:
        round_trip: seconds that Redis takes to answer; the heartbeat measures it.
    """

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self.round_trip = 0.0

    def pause(self, seconds: float) -> float:
        """Return the seconds to wait before something is looked after that wants to be every `seconds`."""
        return max(seconds, min(PAUSE_ROUND_TRIPS * self.round_trip, LONGEST_PAUSE_SECONDS))

    def every(
        self,
        seconds: float,
        step: Callable[[], None],
        trouble: str = "Redis does not answer",
        *,
        stretch: bool = True,
    ) -> None:
        """Run `step` every so many seconds from now on; a server that is away is logged, and tried again.

        Args:
            seconds: from the end of one step to the next.
            step: what to do; other errors than those of servers are the loop's to log, and do not end it either.
            trouble: what the log says when a server is away.
            stretch: False for what must not wait longer however far Redis is, or does not ask Redis.
        """

        def tick() -> None:
            try:
                step()
            except RabbitryBrokerError as error:
                log.warning("%s: %s", trouble, error)
            finally:
                self._timer.call_later(self.pause(seconds) if stretch else seconds, tick)

        self._timer.call_later(seconds, tick)
