"""Puts the pages into the HTTP service. What they need is the extra `rabbitry[dashboard]`."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from nicegui import app as pages_app
from nicegui import ui
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rabbitry_workers.dashboard.frame import Board, serve_static_files
from rabbitry_workers.dashboard.pages import (
    actors,
    aside,
    groups,
    jobs,
    logs,
    nodes,
    objects,
    overview,
    queues,
    tasks,
    timeline,
)
from rabbitry_workers.dashboard.source import Source

# The framework compiles templates in the browser and starts by a script in the page, so both have to be allowed; texts
# of users are never markup, which is the first wall. This one keeps a page from loading or sending anything elsewhere.
CONTENT_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
RECONNECT_SECONDS: Final = 10.0
"""What a browser sees stays on the server so long after its connection has broken."""


class _Policy:
    """Adds the policy to what the pages answer. An ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = CONTENT_POLICY
                headers["x-frame-options"] = "DENY"
            await send(message)

        # The framework would put this header's value into the page: no proxy of ours sends it.
        if scope["type"] in ("http", "websocket"):
            scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() != b"x-forwarded-prefix"]
        await self._app(scope, receive, sending)


def mount(service: FastAPI, source: Source, name: str = "", **settings: Any) -> None:
    """Add the pages to a service, once in a process. Routes that it has already come first.

    Args:
        service: it checks who may pass, WebSockets included.
        source: the cluster.
        name: of the cluster.
        **settings: for the framework; for tests.
    """
    board = Board(source, name)
    for module in (overview, jobs, tasks, actors, nodes, groups, objects, queues, aside, logs, timeline):
        module.add(board)
    serve_static_files()
    pages_app.add_middleware(_Policy)
    ui.run_with(
        service,
        title="rabbitry",
        tailwind=False,
        dark=None,
        reconnect_timeout=RECONNECT_SECONDS,
        message_history_length=100,
        binding_refresh_interval=None,
        show_welcome_message=False,
        favicon="🐇",
        **settings,
    )
