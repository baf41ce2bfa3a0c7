"""A real Chromium that looks at the dashboard: what tests with the mark `browser` share.

With RABBITRY_SCREENSHOTS naming a directory, pictures are left there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

WIDTHS = {"wide": 1440, "phone": 400}


class Serves(Protocol):
    """A dashboard: where it is, and what it asks for."""

    url: str
    token: str | None


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Start a browser, and end it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, in a container, Chromium has no sandbox of its own.
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("RABBITRY_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


class Reader:
    """Somebody who looks at the pages; what goes wrong in the browser fails the test at its end."""

    def __init__(self, chromium: Any, served: Serves, *, width: int = 1440, theme: str = "light", login: bool = True):
        self.url = served.url
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("request", lambda request: self.requests.append(request.url))
        if login:
            self.go(f"/login?token={served.token}")
            self.page.wait_for_url(served.url + "/")

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.wrong.append(message.text)

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sees(self, text: str) -> None:
        self.page.get_by_text(text).locator("visible=true").first.wait_for()

    def needs_no_scrolling_sideways(self) -> None:
        wider = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, f"{self.page.url} has to be scrolled sideways"

    def picture(self, name: str) -> None:
        """Leave a picture of the page, if somebody wants pictures."""
        if where := os.environ.get("RABBITRY_SCREENSHOTS"):
            self.page.screenshot(path=Path(where) / f"{name}.png")

    def close(self) -> None:
        self.context.close()
        outside = [url for url in self.requests if not url.startswith((self.url, "data:"))]
        assert not outside, "it works offline"
        assert not self.wrong

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.context.close()
