"""Live tables: the rows of one page of a query, asked for each second, with filters and order on the server.

Cells are shown as text, whatever is in them. On narrow screens each row becomes a card (`style.css`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

from nicegui import html, ui

from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.elements import Text
from rabbitry_workers.dashboard.live import Live
from rabbitry_workers.dashboard.source import Query, Rows

Row = TypeVar("Row")

PAGE_ROWS: Final = 50
LONGEST_TEXT: Final = 300
"""Of a cell: a message of a megabyte is for its own page."""


class _Rows(ui.element, component="static/rows.js"):
    """The table in the browser."""

    def show(self, **what: Any) -> None:
        """Show other columns or rows."""
        self.props.update(what)


class Cell(NamedTuple):
    """What a cell shows, besides its text.

    Attributes:
        text: of the cell.
        link: where it leads; a path of ours.
        tone: colour of a badge: the name of a class in the style sheet.
        title: for who points at it.
        share: 0 to 1, drawn as a bar before the text.
        act: what is handed to the table's `on_act` when it is pressed.
    """

    text: str
    link: str = ""
    tone: str = ""
    title: str = ""
    share: float | None = None
    act: str = ""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column.

    Attributes:
        name: of the attribute that it is sorted by.
        label: above it.
        cell: returns what to show of a row.
        sorts: may be sorted by.
        right: numbers stand at the right.
    """

    name: str
    label: str
    cell: Callable[[Row], Cell | str]
    sorts: bool = True
    right: bool = False

    def header(self, query: Query) -> dict[str, Any]:
        """Return the column as the browser's table wants it."""
        order = None
        if query.sort == self.name:
            order = "descending" if query.descending else "ascending"
        return {
            "name": self.name,
            "label": self.label,
            "sorts": self.sorts,
            "right": self.right,
            "order": order,
        }


class LiveTable(Generic[Row]):
    """A table that is asked for anew each second.

    Args:
        live: what asks.
        columns: of the table.
        load: returns the rows of a query.
        key: returns what tells a row from the others.
        query: which rows at first.
        empty: what to say when there are none.
        on_act: is called with a cell's `act`.
        path: of the page, whose address shows the query; "" if the page has more than this table.
    """

    def __init__(
        self,
        live: Live,
        columns: Sequence[Column[Row]],
        load: Callable[[Query], Awaitable[Rows[Row]]],
        key: Callable[[Row], str],
        *,
        query: Query | None = None,
        empty: str = "Nothing here.",
        on_act: Callable[[str], Awaitable[None]] | None = None,
        path: str = "",
    ) -> None:
        self.query = query or Query(limit=PAGE_ROWS)
        self._live = live
        self._columns = columns
        self._load = load
        self._key = key
        self._empty = empty
        self._path = path
        self._sent: list[dict[str, Any]] | None = None
        self._table = _Rows()
        self._table.show(columns=self._headers(), rows=[])
        self._table.on("sort", lambda event: self._sort(str(event.args)))
        if on_act is not None:
            self._table.on("act", lambda event: on_act(str(event.args)))
        with html.div().classes("pager"):
            self._newer = html.button("Previous", type="button").classes("small").on("click", lambda: self._turn(-1))
            self._shown = Text("span", "").props('aria-live="off"')
            self._older = html.button("Next", type="button").classes("small").on("click", lambda: self._turn(1))
        live.add(self.refresh)

    def _headers(self) -> list[dict[str, Any]]:
        return [column.header(self.query) for column in self._columns]

    async def ask(self, **changes: Any) -> None:
        """Change the query, begin at its first row, and show what it finds."""
        self.query = replace(self.query, offset=0, **changes)
        self._table.show(columns=self._headers())
        if self._path:
            ui.navigate.history.replace(address(self._path, self.query))
        await self._live.refresh(forced=True)

    async def _sort(self, name: str) -> None:
        if not any(column.name == name and column.sorts for column in self._columns):
            return
        if self.query.sort != name:
            await self.ask(sort=name, descending=False)
        elif not self.query.descending:
            await self.ask(descending=True)
        else:
            await self.ask(sort="", descending=False)

    async def _turn(self, pages: int) -> None:
        self.query = replace(self.query, offset=max(0, self.query.offset + pages * self.query.limit))
        await self._live.refresh(forced=True)

    async def refresh(self) -> None:
        """Ask for the rows, and send them to the browser if they have changed."""
        found = await self._load(self.query)
        if self.query.offset and self.query.offset >= found.total:  # rows went away below us
            self.query = replace(self.query, offset=(max(0, found.total - 1) // self.query.limit) * self.query.limit)
            found = await self._load(self.query)
        rows = [self._row(row) for row in found.rows]
        if rows != self._sent:
            self._sent = rows
            self._table.show(rows=rows)
        first, last = self.query.offset + 1, self.query.offset + len(found.rows)
        text = self._empty
        if found.rows:
            text = f"{formats.count(first)} to {formats.count(last)} of {formats.count(found.total)}"
        self._shown.show(text)
        _enable(self._newer, self.query.offset > 0)
        _enable(self._older, last < found.total)

    def _row(self, row: Row) -> dict[str, Any]:
        shown: dict[str, Any] = {"key": self._key(row)}
        for column in self._columns:
            cell = column.cell(row)
            name = column.name
            if isinstance(cell, str):
                shown[name] = _cut(cell)
                continue
            shown[name] = _cut(cell.text)
            if cell.link:
                shown[name + "_link"] = cell.link
            if cell.tone:
                shown[name + "_tone"] = cell.tone
            if cell.title:
                shown[name + "_title"] = _cut(cell.title)
            if cell.share is not None:
                shown[name + "_share"] = round(100 * min(1.0, max(0.0, cell.share)), 1)
            if cell.act:
                shown[name + "_act"] = cell.act
        return shown


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def _enable(button: ui.element, enabled: bool) -> None:
    if bool(button.props.get("disabled")) == enabled:
        if enabled:
            button.props(remove="disabled")
        else:
            button.props("disabled")


def query_of(parameters: Mapping[str, str]) -> Query:
    """Return the query that an address tells of."""
    names = ("text", "state", "job", "node", "actor", "sort")
    given: dict[str, Any] = {name: parameters.get(name, "")[:LONGEST_TEXT] for name in names}
    return Query(**given, descending=parameters.get("descending") == "1", limit=PAGE_ROWS)


def address(path: str, query: Query) -> str:
    """Return an address from which `query_of` reads the same query.

    Example:
        >>> address("/tasks", Query(state="FAILED", descending=True))
        '/tasks?state=FAILED&descending=1'
    """
    names = ("text", "state", "job", "node", "actor", "sort")
    told = {name: getattr(query, name) for name in names if getattr(query, name)}
    if query.descending:
        told["descending"] = "1"
    return f"{path}?{urlencode(told)}" if told else path
