"""Parts of the agent that look after something every so often."""

from __future__ import annotations

import logging
from collections.abc import Callable

from warren_broker.errors import WarrenBrokerError
from warren_broker.loop import Loop

log = logging.getLogger("warren.node")


def every(loop: Loop, seconds: float, step: Callable[[], None], trouble: str = "Redis does not answer") -> None:
    """Run `step` on the loop every so many seconds from now on; a server that is away is logged, and tried again.

    Args:
        loop: the agent's.
        seconds: from the end of one step to the next.
        step: what to do; other errors than those of servers are the loop's to log, and do not end it either.
        trouble: what the log says when a server is away.
    """

    def tick() -> None:
        try:
            step()
        except WarrenBrokerError as error:
            log.warning("%s: %s", trouble, error)
        finally:
            loop.call_later(seconds, tick)

    loop.call_later(seconds, tick)
