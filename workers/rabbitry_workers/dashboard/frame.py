"""What all pages have around them: the list of pages, the title, the theme, the banner."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fastapi import Request
from nicegui import app, html, ui

from rabbitry_workers.dashboard.elements import Text, link
from rabbitry_workers.dashboard.live import Live
from rabbitry_workers.dashboard.readings import Readings
from rabbitry_workers.dashboard.source import Source

STATIC: Final = Path(__file__).with_name("static")
STATIC_PATH: Final = "/_rabbitry"
THEME_COOKIE: Final = "rabbitry-theme"
_THEMES: Final = {"light": False, "dark": True}
_NEXT_THEME: Final[dict[bool | None, tuple[bool | None, str]]] = {
    None: (True, "dark"),
    True: (False, "light"),
    False: (None, "auto"),
}
_YEAR_SECONDS: Final = 365 * 24 * 3600

PAGES: Final = (
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/tasks", "Tasks"),
    ("/actors", "Actors"),
    ("/nodes", "Nodes"),
    ("/groups", "Groups"),
    ("/objects", "Objects"),
    ("/queues", "Queues"),
    ("/put-aside", "Put aside"),
    ("/logs", "Logs"),
    ("/timeline", "Timeline"),
)


class Board:
    """What the pages share.

    Args:
        source: the cluster.
        name: of the cluster, as users know it; "" for none.
    """

    def __init__(self, source: Source, name: str = "") -> None:
        self.source = source
        self.name = name
        self.readings = Readings()

    @contextmanager
    def page(self, request: Request, title: str, here: str, *, one: bool = False) -> Iterator[Live]:
        """Put the frame around what the body of the `with` adds.

        Args:
            request: for the page.
            title: above it.
            here: path of the page in the list.
            one: it is about one thing of that list, whose name the page shows itself.
        """
        ui.add_head_html(_HEAD)
        dark = ui.dark_mode(_THEMES.get(request.cookies.get(THEME_COOKIE, "")))
        html.a("To the content", href="#content").classes("skip")
        with html.div().classes("shell"):
            with html.nav().classes("side").props('aria-label="Pages"'):
                Text("span", "rabbitry").classes("brand")
                for path, label in PAGES:
                    to = link(label, path).classes("to" + (" here" if path == here else ""))
                    if path == here:
                        to.props('aria-current="page"')
            with html.div().classes("content").props("id=content tabindex=-1"):  # in the <main> of the framework
                with html.div().classes("head"):
                    if one:
                        link(f"All {title.lower()}", here)
                    else:
                        Text("h1", title)
                    tools = html.div().classes("tools")
                live = Live(self.source, self.readings)
                with tools:
                    _pause_button(live)
                    _theme_button(dark)
                yield live


def serve_static_files() -> None:
    """Serve style sheet and script. Called once in a process."""
    app.add_static_files(STATIC_PATH, str(STATIC), max_cache_age=_YEAR_SECONDS)


def _pause_button(live: Live) -> None:
    button = html.button("Pause", type="button").classes("small").props('aria-pressed="false"')

    async def press() -> None:
        live.paused = not live.paused
        button._text = "Go on" if live.paused else "Pause"
        button.classes(toggle="on")
        button.props(f'aria-pressed="{str(live.paused).lower()}"')
        button.update()
        await live.refresh()

    button.on("click", press)


def _theme_button(dark: ui.dark_mode) -> None:
    def press() -> None:
        value, name = _NEXT_THEME[dark.value]
        dark.value = value
        button._text = f"Theme: {name}"
        button.update()
        cookie = f"{THEME_COOKIE}={name}; path=/; max-age={_YEAR_SECONDS}; samesite=strict"
        ui.run_javascript(f"document.cookie = {cookie!r}")

    names = {None: "auto", True: "dark", False: "light"}
    button = html.button(f"Theme: {names[dark.value]}", type="button").classes("small").on("click", press)


def _versioned(name: str) -> str:
    digest = hashlib.blake2b((STATIC / name).read_bytes(), digest_size=6).hexdigest()
    return f"{STATIC_PATH}/{name}?v={digest}"


_HEAD: Final = (
    f'<link rel="stylesheet" href="{_versioned("style.css")}"><script defer src="{_versioned("page.js")}"></script>'
)
