"""What narrows a table: a text, a choice, and what an address has chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from nicegui import html, ui

from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.elements import Text
from rabbitry_workers.dashboard.source import Query
from rabbitry_workers.dashboard.table import LiveTable

TYPING_SECONDS: Final = 0.25
_VALUE: Final = "(event) => emit(event.target.value)"


class Filters:
    """A row of filters above a table, which is set when the table is there.

    Args:
        query: what is chosen at first.
        placeholder: of the field for a text.
        states: to choose from: (value, label).
    """

    def __init__(self, query: Query, placeholder: str, states: Sequence[tuple[str, str]] = ()) -> None:
        self.table: LiveTable[Any] | None = None
        with html.div().classes("filters").props('role="search"'):
            with html.div().classes("search"):
                field = ui.element("input")
                field.props.update(
                    {"type": "search", "placeholder": f"{placeholder}  ( / )", "aria-label": placeholder}
                )
                field.props["value"] = query.text
                field.on(
                    "input",
                    lambda event: self._ask(text=str(event.args)),
                    js_handler=_VALUE,
                    throttle=TYPING_SECONDS,
                    leading_events=False,
                )
            if states:
                choice("State", [("", "All states"), *states], query.state, self._choose_state)
            for name in ("job", "node", "actor"):
                value = getattr(query, name)
                if value:
                    _chosen(name, value, partial(self._ask, **{name: ""}))

    async def _choose_state(self, value: str) -> None:
        await self._ask(state=value)

    async def _ask(self, **changes: str) -> None:
        if self.table is not None:
            await self.table.ask(**changes)


def choice(label: str, options: Sequence[tuple[str, str]], chosen: str, on_change: Callable[[str], Any]) -> ui.element:
    """Add a list to choose from: (value, label)."""
    made = ui.element("select")
    made.props.update({"aria-label": label})
    with made:
        for value, text in options:
            option = Text("option", text)
            option.props.update({"value": value} | ({"selected": True} if value == chosen else {}))
    return made.on("change", lambda event: on_change(str(event.args)), js_handler=_VALUE)


def _chosen(name: str, value: str, drop: Callable[[], Any]) -> None:
    button = html.button(f"{name} {formats.short(value)} ✕", type="button").classes("small on")
    button.props.update({"aria-label": f"show all, not only those of {name} {value}"})

    async def press() -> None:
        button.delete()
        await drop()

    button.on("click", press)
