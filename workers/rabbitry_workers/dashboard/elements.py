"""Small elements that pages are made of. Text stays text: nothing here takes markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from nicegui import html, ui
from nicegui.elements.mixins.text_element import TextElement


class Text(TextElement):
    """An element with a text that may change.

    Args:
        tag: of HTML.
        text: in it.
    """

    def __init__(self, tag: str, text: str = "") -> None:
        super().__init__(tag=tag, text=text)

    def show(self, text: str) -> None:
        """Show another text; nothing is sent if it is the same."""
        if text != self.text:
            self.text = text


class Drawing:
    """A chart of `charts.py` that may change; it escapes the texts in it."""

    def __init__(self) -> None:
        self._html = ui.html("", sanitize=False).classes("drawing")

    def show(self, svg: str) -> None:
        """Show another drawing; nothing is sent if it is the same."""
        if svg != self._html.content:
            self._html.content = svg


class Region:
    """A part of a page that is built anew when what it shows has changed.

    Args:
        build: makes the elements for a value.
        tag: of the element around them.
        classes: of that element.
    """

    def __init__(self, build: Callable[[Any], None], *, tag: str = "div", classes: str = "") -> None:
        self._build = build
        self._around = ui.element(tag).classes(classes)
        self._shown: object = _NOTHING

    def show(self, value: object) -> None:
        """Show a value."""
        if value == self._shown:
            return
        self._shown = value
        self._around.clear()
        with self._around:
            self._build(value)


_NOTHING = object()


def link(text: str, to: str, *, title: str = "") -> ui.element:
    """Add a link to a page of ours."""
    made: ui.element = html.a(text, href=to)
    if title:
        made.props.update(title=title)
    return made


def badge(text: str, tone: str) -> Text:
    """Add a state in its colour."""
    made = Text("span", text)
    made.classes(f"badge {tone}")
    return made


def facts(rows: Sequence[tuple[str, Any]], classes: str = "") -> None:
    """Add names and values: a text, a (text, link), or a function that adds elements. Empty ones are left out."""
    with html.dl().classes(f"facts {classes}"):
        for name, value in rows:
            if not value:
                continue
            html.dt(name)
            with html.dd():
                if callable(value):
                    value()
                elif isinstance(value, tuple):
                    link(*value)
                else:
                    Text("span", str(value))


def meter(label: str, text: str, share: float) -> None:
    """Add a bar that is filled by a share, with what it means."""
    with html.div().classes("gauge"):
        Text("span", label).classes("label")
        with html.span().classes("bar" + (" high" if share > 0.9 else "")):
            html.span().style(f"width:{100 * min(1.0, max(0.0, share)):.0f}%")
        Text("span", text).classes("value")


def notice(text: str, kind: Literal["positive", "negative"] = "positive") -> None:
    """Tell the reader at the edge of the page what became of an action."""
    ui.notify(text, type=kind, position="top", multi_line=True, close_button="Close")
