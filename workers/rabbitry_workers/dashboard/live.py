"""What makes a page live: its parts are brought up to date each second, and a banner says when that is not possible."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, TypeVar

from nicegui import ui

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_workers.dashboard.elements import Text
from rabbitry_workers.dashboard.readings import Readings
from rabbitry_workers.dashboard.source import Missing, Source

Value = TypeVar("Value")

SECONDS: Final = 1.0
FIRST_SECONDS: Final = 0.8
"""A page waits so long for what it shows at first; then it comes without."""

log = logging.getLogger("rabbitry.dashboard")


class Live:
    """The parts of one page in one browser.

    Args:
        source: of the cluster.
        readings: shared with the other pages.
    """

    def __init__(self, source: Source, readings: Readings) -> None:
        self.source = source
        self.readings = readings
        self.paused = False
        self._parts: list[Callable[[], Awaitable[None]]] = []
        self._lock = asyncio.Lock()
        self._banner = Text("div", "")
        self._banner.classes("banner").props('role="alert"')
        self._banner.set_visibility(False)
        self._note = Text("div", "")
        self._note.classes("note")
        self._note.set_visibility(False)

    def add(self, part: Callable[[], Awaitable[None]]) -> None:
        """Have a part brought up to date each second."""
        self._parts.append(part)

    async def read(self, method: Callable[..., Value], *args: Hashable) -> Value:
        """Return what a method of the source returns, read not longer than a second ago."""
        return await self.readings.get(method, *args)

    async def start(self) -> None:
        """Fill the page before it is sent, if that is quick, and begin to keep it up to date."""
        first = asyncio.ensure_future(self.refresh())
        await asyncio.wait((first,), timeout=FIRST_SECONDS)
        ui.timer(SECONDS, self.refresh, immediate=False)

    async def refresh(self, *, forced: bool = False) -> None:
        """Bring all parts up to date.

        Args:
            forced: even if the reader has paused the page: something else is asked for.
        """
        if (self.paused and not forced) or (self._lock.locked() and not forced):
            return
        async with self._lock:
            trouble = note = ""
            for part in self._parts:
                try:
                    await part()
                except Missing as error:
                    note = str(error)
                except RabbitryBrokerError as error:
                    trouble = str(error)
                except Exception:
                    log.exception("a part of a page could not be made")
                    trouble = "the dashboard has failed at this; its log says more"
            if trouble:
                trouble = f"No news of the cluster, what is shown may be old: {trouble}"
            _tell(self._banner, trouble)
            _tell(self._note, note)


def _tell(line: Text, text: str) -> None:
    if text:
        line.show(text)
    if line.visible != bool(text):
        line.set_visibility(bool(text))
