"""Who is let in: programs with the token, browsers with the cookie, and no page of another site."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from rabbitry_broker.errors import ConnectError
from rabbitry_workers.http.app import make_app
from rabbitry_workers.http.auth import Lock

TOKEN = "a-token-of-this-test"
BASE = "http://127.0.0.1:8265"


class Cluster:
    name = "session_test"
    away = False

    def check(self) -> None:
        if self.away:
            raise ConnectError("redis://there", "it is away", "Start it.")


def some_routes() -> APIRouter:
    router = APIRouter()

    @router.get("/value")
    def value() -> int:
        return 1

    @router.post("/value")
    def change() -> int:
        return 2

    @router.websocket("/values")
    async def values(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    return router


def client(token: str | None = TOKEN, base: str = BASE, hosts: tuple[str, ...] = (), **headers: str) -> TestClient:
    from rabbitry_workers.http import version

    cluster: Any = Cluster()
    app = make_app(cluster, [some_routes(), version.router], token=token, hosts=hosts)
    made = TestClient(app, base_url=base, headers=headers, follow_redirects=False)
    made.cluster = cluster  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "nonsense", "http://evil.example"])
def test_an_origin_that_is_none_is_another_site(origin: str) -> None:
    assert client(None).post("/value", headers={"Origin": origin}).status_code == 403


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def logged_in(**options: Any) -> TestClient:
    browser = client(**options)
    assert browser.get("/login", params={"token": TOKEN}).status_code == 200
    return browser


def test_a_program_shows_the_token():
    web = client()
    assert web.get("/value").status_code == 401
    assert web.get("/value", headers=bearer("another-token")).status_code == 403
    assert web.get("/value", headers={"Authorization": TOKEN}).status_code == 401
    assert web.get("/value", headers=bearer()).json() == 1
    assert web.post("/value", headers=bearer()).json() == 2
    assert web.get("/value", headers={"X-Ray-Authorization": f"bearer {TOKEN}"}).json() == 1


def test_a_program_may_call_the_service_by_any_name():
    assert client(base="http://proxy.example").get("/value", headers=bearer()).json() == 1


def test_a_browser_gets_a_cookie_that_scripts_and_other_sites_cannot_use():
    browser = client()
    response = browser.get("/login", params={"token": TOKEN})
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert TOKEN not in response.text
    assert browser.get("/value").json() == 1
    assert client().get("/value", headers=bearer(Lock(TOKEN).cookie)).status_code == 403


def test_the_form_logs_in_too():
    browser = client()
    assert 'name="token"' in browser.get("/login").text
    assert browser.post("/login", data={"token": "wrong"}).status_code == 403
    assert browser.get("/value").status_code == 401
    assert browser.post("/login", data={"token": TOKEN}).status_code == 200
    assert browser.get("/value").json() == 1
    assert browser.post("/login", content=b"x" * 10_000).status_code == 413


def test_a_browser_without_a_cookie_is_sent_to_the_form():
    response = client().get("/value", headers={"Accept": "text/html,*/*"})
    assert (response.status_code, response.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("token", [TOKEN, None])
def test_a_name_that_somebody_else_controls_is_refused(token: str | None):
    browser = client(token=token, base="http://rebound.example:8265")
    if token:
        browser.cookies.set(Lock(TOKEN).cookie_name, Lock(TOKEN).cookie)
    assert browser.get("/value").status_code == 403
    assert browser.get("/login").status_code == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8265", "[::1]:8265", "localhost", "LOCALHOST:1", "10.1.2.3", "known.example"]
)
def test_addresses_and_known_names_are_taken(host: str):
    assert client(token=None, base=f"http://{host}", hosts=("Known.example",)).get("/value").json() == 1


@pytest.mark.parametrize("host", ["", "evil.example", "localhost.evil.example", "[::1", "127.0.0.1.evil.example"])
def test_other_names_are_not(host: str):
    assert client(token=None).get("/value", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_what_a_page_of_another_site_sends_changes_nothing(headers: dict[str, str]):
    for browser in (logged_in(), client(token=None)):
        assert browser.post("/value", headers=headers).status_code == 403
        with (
            pytest.raises(WebSocketDisconnect),
            browser.websocket_connect("ws://127.0.0.1:8265/values", headers=headers),
        ):
            pass


def test_its_own_pages_may_change_things():
    browser = logged_in()
    assert browser.post("/value", headers={"Origin": BASE, "Sec-Fetch-Site": "same-origin"}).json() == 2
    with browser.websocket_connect("ws://127.0.0.1:8265/values", headers={"Origin": BASE}) as socket:
        assert socket.receive_text() == "hello"


def test_a_websocket_needs_the_token_too():
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("ws://127.0.0.1:8265/values"):
        pass
    with client().websocket_connect("ws://127.0.0.1:8265/values", headers=bearer()) as socket:
        assert socket.receive_text() == "hello"


def test_answers_forbid_frames_and_referrers():
    for response in (client().get("/value"), client().get("/value", headers=bearer()), client().get("/login")):
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["referrer-policy"] == "same-origin"


def test_health_needs_no_token_and_tells_of_a_cluster_that_is_away():
    web = client()
    assert web.get("/api/healthz").text == "success"
    web.cluster.away = True  # type: ignore[attr-defined]
    response = web.get("/api/healthz")
    assert response.status_code == 503
    assert "it is away" in response.text


def test_the_version_is_what_rays_client_asks_for():
    told = client().get("/api/version", headers=bearer()).json()
    assert told["version"] == "4"
    assert told["ray_version"] == "2.60.0"
