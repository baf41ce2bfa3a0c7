"""Who may talk to the service: whoever has its token, and no web page that a user happens to look at.

| who comes | shows | what else is checked |
|---|---|---|
| a program | `Authorization: Bearer TOKEN` (or `X-Ray-Authorization`) | nothing: no browser sends it by itself |
| a browser | the cookie that `/login` set (HttpOnly, SameSite=Strict) | `Host` and `Origin` |
| anybody on this host, with `--no-token` | nothing | the same |

`Host` is checked against DNS rebinding, `Origin` against requests that pages of others forge. The cookie holds a digest
of the token, so that it cannot be used as the token itself.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGIN_PATH: Final = "/login"
HEALTH_PATHS: Final = frozenset(("/api/healthz", "/api/gcs_healthz"))
LONGEST_FORM: Final = 4096
COOKIE_SECONDS: Final = 30 * 86400
_OPEN: Final = HEALTH_PATHS | {LOGIN_PATH}
_SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_BEARER: Final = "bearer "
# For every answer: no page of others shows it in a frame, and no link out of it tells where it came from.
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not "no-referrer": with that, a browser says `Origin: null` when it sends the form of the login page.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


class Lock:
    """A token, and what browsers get for it.

    Args:
        token: what programs show.

    Attributes:
        cookie_name: of this token: cookies know no ports, and several services may run on one host.
        cookie: its value.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self.cookie = hmac.new(self._token, b"rabbitry dashboard cookie", hashlib.sha256).hexdigest()
        self.cookie_name = f"rabbitry-{hashlib.sha256(self.cookie.encode()).hexdigest()[:8]}"

    def opens(self, token: str) -> bool:
        """True if this is the token."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token)

    def opens_by_cookie(self, cookies: str) -> bool:
        """True if the cookie is in a `Cookie` header."""
        shown = cookie_parser(cookies).get(self.cookie_name, "")
        return hmac.compare_digest(shown.encode("utf-8", "replace"), self.cookie.encode())


class Gate:
    """Lets through who may pass. An ASGI middleware around the whole service, WebSockets included.

    Args:
        app: what is behind it.
        lock: of the token; None for no token.
        hosts: names, besides addresses and `localhost`, by which browsers reach the service.
    """

    def __init__(self, app: ASGIApp, lock: Lock | None, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._lock = lock
        self._hosts = frozenset(host.lower() for host in (*hosts, "localhost", socket.gethostname()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await _deny_websocket(refusal, scope, send)
        else:
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return what to answer instead of passing a request on; None to pass it on."""
        shown = headers.get("authorization") or headers.get("x-ray-authorization") or ""
        if self._lock is not None and shown[: len(_BEARER)].lower() == _BEARER:
            if self._lock.opens(shown[len(_BEARER) :].strip()):
                return None
            return Response("Forbidden: this is not the token of this service", 403)
        host = headers.get("host", "")
        if not self._is_ours(host):
            return Response(
                f"Forbidden: the name {_printable(host)} is not known here. If the service is meant to be reached by "
                "it, start it with --allow-host",
                403,
            )
        if scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS:
            origin = headers.get("origin")
            if origin is not None and _place(origin) != host.lower():
                return Response("Forbidden: sent by a page of another site", 403)
            if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                return Response("Forbidden: sent by a page of another site", 403)
        if self._lock is None or scope["path"] in _OPEN or self._lock.opens_by_cookie(headers.get("cookie", "")):
            return None
        if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return Response(status_code=303, headers={"location": LOGIN_PATH})
        return Response("Unauthorized: a token is needed, as the header Authorization: Bearer TOKEN", 401)

    def _is_ours(self, host: str) -> bool:
        """True if a browser that sends this `Host` was told an address, or a name that is known to mean this service.

        DNS rebinding needs a name that somebody else controls.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _place(origin: str) -> str:
    """Return the host and port of an origin; "" if it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def login_router(lock: Lock | None) -> APIRouter:
    """Return the routes by which browsers get the cookie: a form, and links that hold the token."""
    router = APIRouter(include_in_schema=False)

    def answer(token: str | None, request: Request) -> Response:
        if lock is None or (token is not None and lock.opens(token.strip())):
            response = HTMLResponse(_LOGGED_IN)
            if lock is not None:
                response.set_cookie(
                    lock.cookie_name,
                    lock.cookie,
                    max_age=COOKIE_SECONDS,
                    httponly=True,
                    samesite="strict",
                    secure=request.url.scheme == "https",
                )
            return response
        wrong = "" if token is None else "<p>That is not the token.</p>"
        return HTMLResponse(_FORM.format(wrong=wrong), 200 if token is None else 403)

    @router.get(LOGIN_PATH)
    def login_by_link(request: Request, token: str | None = Query(None)) -> Response:
        return answer(token, request)

    @router.post(LOGIN_PATH)
    async def login_by_form(request: Request) -> Response:
        # By hand: it has one field, and the parser of forms is a package of its own.
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_FORM:
                return Response("too long", 413)
        return answer(parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0], request)

    return router


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


async def _deny_websocket(refusal: Response, scope: Scope, send: Send) -> None:
    if "websocket.http.response" in scope.get("extensions", {}):
        start = {"type": "websocket.http.response.start", "status": refusal.status_code, "headers": refusal.raw_headers}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": refusal.body})
        return
    await send({"type": "websocket.close", "code": 1008, "reason": bytes(refusal.body).decode()[:120]})


def _printable(text: str) -> str:
    return html.escape("".join(each if each.isprintable() else "?" for each in text[:200]))


_STYLE: Final = "<style>body{font:16px system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em}</style>"
# Not a redirect: a cookie with SameSite=Strict is not sent along one that another site began.
_LOGGED_IN: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>rabbitry</title>'
    f'<meta http-equiv="refresh" content="0; url=/">{_STYLE}</head><body><a href="/">Go on</a></body></html>'
)
_FORM: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>rabbitry: log in</title>'
    + _STYLE.replace("{", "{{").replace("}", "}}")
    + '</head><body><h1>rabbitry</h1>{wrong}<form method="post"><label>Token <input name="token" type="password" '
    'autocomplete="current-password" autofocus required></label> <button>Log in</button></form>'
    "<p>It stands in the file or variable that <code>rabbitry dashboard</code> names when it starts.</p></body></html>"
)
