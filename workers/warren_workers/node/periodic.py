"""Parts of the agent that look after something every so often.

Each look is a round trip to Redis or more, for which the agent's loop waits. Next to Redis that is nothing; from far
away (200 ms each way, say) all of them together would leave the loop no time for work and for the node's sign of life.
So the pauses between looks grow with the way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from warren_broker.errors import WarrenBrokerError

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

PAUSE_ROUND_TRIPS: Final = 20
"""A pause is as long as so many round trips at least: a look of one takes a twentieth of the loop's time."""

LONGEST_PAUSE_SECONDS: Final = 8.0

log = logging.getLogger("warren.node")


def pause(agent: Agent, seconds: float) -> float:
    """Return the seconds to wait before something is looked after that wants to be every `seconds`."""
    return max(seconds, min(PAUSE_ROUND_TRIPS * agent.heartbeat.round_trip, LONGEST_PAUSE_SECONDS))


def every(
    agent: Agent,
    seconds: float,
    step: Callable[[], None],
    trouble: str = "Redis does not answer",
    *,
    stretch: bool = True,
) -> None:
    """Run `step` on the loop every so many seconds from now on; a server that is away is logged, and tried again.

    Args:
        agent: whose loop it is.
        seconds: from the end of one step to the next.
        step: what to do; other errors than those of servers are the loop's to log, and do not end it either.
        trouble: what the log says when a server is away.
        stretch: False for what must not wait longer however far Redis is, or does not ask Redis.
    """

    def tick() -> None:
        try:
            step()
        except WarrenBrokerError as error:
            log.warning("%s: %s", trouble, error)
        finally:
            agent.loop.call_later(pause(agent, seconds) if stretch else seconds, tick)

    agent.loop.call_later(seconds, tick)
