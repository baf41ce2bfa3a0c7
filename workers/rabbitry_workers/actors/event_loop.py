"""The event loops of asyncio actors: uvloop's where that is installed, as in Ray, else asyncio's own.

uvloop takes less processor time a round, and sets TCP_NODELAY on whatever it accepts. asyncio leaves that out where a
socket was made without naming its protocol, as servers in actors do (Ray Serve): answers then wait for the client's
delayed acknowledgements, 40 ms each.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache
from typing import Any

from rabbitry import environment


@cache
def _base() -> Any:
    """Return the class of loops that actors' loops are made of."""
    if not environment.is_off(*environment.USE_UVLOOP):
        with suppress(ImportError):
            import uvloop

            return uvloop.Loop
    return asyncio.SelectorEventLoop


@cache
def _actor_loop() -> Any:
    base = _base()

    class ActorLoop(base):  # type: ignore[misc, valid-type]
        """A loop that counts as running between the actor's constructor and its first call, too.

        Background work that a constructor starts looks at `is_running()` before it hands something over with
        `call_soon_threadsafe`, which is done as soon as the loop goes on: to such work the loop never stands still.

        Attributes:
            goes_on: whatever happens to it now, it will run on.
        """

        goes_on = False

        def is_running(self) -> bool:
            """True while it runs, or will run on."""
            return self.goes_on or super().is_running()

        def _check_running(self) -> None:
            # asyncio's own asks `is_running`; uvloop's looks by itself.
            if super().is_running():
                raise RuntimeError("This event loop is already running")
            if asyncio._get_running_loop() is not None:
                raise RuntimeError("Cannot run the event loop while another loop is running")

    return ActorLoop


def actor_loop() -> Any:
    """Return the loop of an actor, which has an attribute `goes_on`: True lets `is_running` be true in any case."""
    return _actor_loop()()


def group_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of a concurrency group."""
    loop: asyncio.AbstractEventLoop = _base()()
    return loop
