"""Pages as they are served, and kept up to date, without a browser; `test_browser.py` looks at them with one."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import socketio

from tests.workers.dashboard.conftest import TOKEN, Served
from tests.workers.dashboard.fakes import EVIL, NODES, identity

PAGES = (
    "/", "/jobs", "/jobs/raysubmit_failed", "/tasks", f"/tasks/{identity(53)}", "/actors", f"/actors/{'d6' * 16}",
    "/nodes", f"/nodes/{NODES[0]}", "/groups", "/objects", "/queues", "/put-aside", "/logs",
    f"/logs/file?node={NODES[0]}&name=worker-1.out", "/timeline",
)  # fmt: skip


def elements(page: str) -> str:
    """Return the JSON that the browser makes the page of, as it stands in it."""
    found = re.search(r"parseElements\(String.raw`(.*?)`\)", page, re.DOTALL)
    assert found, page[:500]
    return found[1]


def texts(page: str) -> str:
    """Return all texts of a page, as a browser would show them."""
    raw = elements(page).replace("&lt;", "<").replace("&gt;", ">").replace("&#96;", "`").replace("&#36;", "$")
    return json.dumps(json.loads(raw.replace("&amp;", "&")), ensure_ascii=False)


@pytest.mark.parametrize("path", PAGES)
def test_each_page_comes_filled_and_loads_nothing_from_elsewhere(served: Served, path: str):
    status, headers, page = served.get(path)
    assert status == 200
    assert not re.search(r"(src|href)=\"(https?:)?//", page), "it would load something from elsewhere"
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["cache-control"] == "no-store"
    assert "set-cookie" not in headers
    assert "No news of the cluster" not in texts(page)


@pytest.mark.parametrize(
    "path",
    ["/", "/jobs", f"/actors/{'d6' * 16}", f"/tasks/{identity(53)}", "/groups", "/put-aside", f"/nodes/{NODES[0]}"],
)
def test_markup_in_names_and_errors_is_no_markup(served: Served, path: str):
    page = served.get(path)[2]
    assert EVIL not in page
    assert "<img src=x" not in page
    assert "`${window" not in page, "the template literal of the page would run it"
    assert "window.evil" in page, "the text itself is to be seen"


def test_markup_in_the_address_is_no_markup(served: Served):
    path = "/tasks?text=%3C/script%3E%3Cscript%3Ewindow.evil=1%3C/script%3E&state=%60$%7Bx%7D&job=%3Cb%3E"
    status, _, page = served.get(path, **{"x-forwarded-prefix": '"><script>window.evil=1</script>'})
    assert status == 200
    assert "<script>window.evil" not in page
    assert "</script><script>" not in page


@pytest.mark.parametrize("path", ["/tasks/ff", "/tasks/nonsense%20%3Cb%3E", "/nodes/00", "/actors/00", "/jobs/00"])
def test_what_is_not_there_is_said(served: Served, path: str):
    status, _, page = served.get(path)
    assert status == 200
    assert re.search(r"There is no such|not remembered", texts(page))


def test_a_page_that_does_not_exist(served: Served):
    assert served.get("/no-such-page")[0] == 404


def test_the_trace_is_a_file(served: Served):
    status, headers, text = served.get("/timeline.json")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert "attachment" in headers["content-disposition"]
    assert json.loads(text)[0]["name"] == "function_1"


# -- who is let in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/timeline.json", "/_rabbitry/style.css", "/_nicegui_ws/socket.io/"])
def test_without_the_token_nothing_is_shown(served: Served, path: str):
    request = urllib.request.Request(served.url + path, headers={"accept": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 401
    refused.value.close()


async def connect(served: Served, *, cookie: str = "", origin: str = "", **query: str) -> None:
    headers = {"cookie": cookie} if cookie else {}
    if origin:
        headers["origin"] = origin
    url = served.url.replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
        await socket.receive(timeout=10)


def cookie_of(served: Served) -> str:
    body = f"token={TOKEN}".encode()
    with urllib.request.urlopen(served.url + "/login", data=body, timeout=20) as answer:
        cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    return str(cookie.partition(";")[0])


def test_a_browser_with_the_cookie_may_connect(served: Served):
    asyncio.run(connect(served, cookie=cookie_of(served), origin=served.url))


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null", "https://127.0.0.1"])
def test_a_page_of_another_site_may_not_connect_with_the_cookie(served: Served, origin: str):
    cookie = cookie_of(served)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        asyncio.run(connect(served, cookie=cookie, origin=origin))
    assert refused.value.status == 403


@pytest.mark.parametrize("cookie", ["", "rabbitry-00000000=1"])
def test_nobody_connects_without_the_cookie(served: Served, cookie: str):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        asyncio.run(connect(served, cookie=cookie, origin=served.url))
    assert refused.value.status == 401


# -- live --------------------------------------------------------------------------------------------------------------


class Browser:
    """What a browser does: it connects, is sent what has changed, and sends what the reader does."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.client = socketio.AsyncClient()
        self.changes: list[str] = []
        self.arrived = asyncio.Event()
        self.id = ""
        self.elements: dict[str, Any] = {}

    async def open(self, path: str) -> None:
        _, _, page = await asyncio.to_thread(self.served.get, path)
        self.elements = json.loads(
            elements(page).replace("&lt;", "<").replace("&gt;", ">").replace("&#96;", "`").replace("&#36;", "$")
            .replace("&amp;", "&")
        )  # fmt: skip
        found = re.search(r"'client_id': '([^']+)'", page)
        assert found
        self.id = found[1]

        async def note(message: Any) -> None:
            self.changes.append(json.dumps(message, ensure_ascii=False))
            self.arrived.set()

        for event in ("update", "notify", "run_javascript", "open", "load_js_components"):
            self.client.on(event, note)
        query = f"client_id={self.id}&next_message_id=0&implicit_handshake=true&tab_id=t&document_id=d"
        await self.client.connect(
            f"{self.served.url}?{query}",
            headers={"authorization": f"Bearer {TOKEN}", "origin": self.served.url},
            socketio_path="/_nicegui_ws/socket.io",
            transports=["websocket"],
        )

    async def wait_for(self, text: str, seconds: float = 15.0) -> None:
        async def look() -> None:
            while not any(text in change for change in self.changes):
                self.arrived.clear()
                await self.arrived.wait()

        await asyncio.wait_for(look(), seconds)

    async def send(self, event: str, value: str, tag: str, **props: str) -> None:
        """Do something to the first element with a tag and some properties."""
        for number, element in self.elements.items():
            if element["tag"] == tag and props.items() <= element.get("props", {}).items():
                listener = next(each for each in element["events"] if each["type"] == event)
                await self.client.emit(
                    "event",
                    {
                        "id": int(number),
                        "client_id": self.id,
                        "listener_id": listener["listener_id"],
                        "args": [json.dumps(value)],
                    },
                )
                return
        raise AssertionError(f"no {tag} with {props}")


def in_browser(served: Served, path: str, does: Callable[[Browser], Awaitable[None]]) -> None:
    async def run() -> None:
        browser = Browser(served)
        await browser.open(path)
        try:
            await does(browser)
        finally:
            await browser.client.disconnect()

    asyncio.run(run())


def test_new_tasks_appear_by_themselves(served: Served):
    async def does(browser: Browser) -> None:
        served.tell("tick 23")
        await browser.wait_for("1 to 50 of 5")
        assert "FINISHED" in "".join(browser.changes)

    in_browser(served, "/tasks", does)


def test_a_log_is_followed(served: Served):
    async def does(browser: Browser) -> None:
        served.tell("log a line that comes later <b>")
        await browser.wait_for("a line that comes later <b>")

    in_browser(served, f"/logs/file?node={NODES[0]}&name=worker-1.out", does)


def test_tasks_are_filtered_where_they_are(served: Served):
    async def does(browser: Browser) -> None:
        await browser.send("change", "failed", "select")
        await browser.wait_for("1 to 9 of 9")
        await browser.send("input", "function_7", "input", type="search")
        await browser.wait_for("1 to 1 of 1")
        assert "text=function_7&state=failed" in "".join(browser.changes), "the address shows what is looked at"

    in_browser(served, "/tasks", does)


def test_a_cluster_that_is_away_shows_a_banner_until_it_is_back(served: Served):
    async def does(browser: Browser) -> None:
        served.tell("down")
        try:
            await browser.wait_for("No news of the cluster")
            assert "Redis at 127.0.0.1:6379 does not answer" in "".join(browser.changes)
            status, _, page = await asyncio.to_thread(served.get, "/nodes")
            assert status == 200
            assert "No news of the cluster" in texts(page)
            browser.changes.clear()
        finally:
            served.tell("up")
        await browser.wait_for("hidden")  # the banner goes

    in_browser(served, "/", does)


def test_browsers_share_what_was_read(served: Served):
    async def run() -> None:
        browsers = [Browser(served) for _ in range(6)]
        for browser in browsers:
            await browser.open("/queues")
        served.tell("calls")
        await asyncio.sleep(3)
        calls = served.tell("calls")
        assert 2 <= calls.count("queues") <= 5, "six browsers, three seconds"
        for browser in browsers:
            await browser.client.disconnect()

    asyncio.run(run())
