"""The service put together: routers, each in a module of its own, behind one gate.

A router is a `fastapi.APIRouter` in a module of its own; `serve` lists them. Its functions get the cluster by a
parameter of the type `access.Cluster`; plain ones (`def`) run in threads and may block.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from rabbitry.context import VERSION
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_workers.http.access import ClusterAccess
from rabbitry_workers.http.auth import Gate, Lock, login_router


def make_app(
    cluster: ClusterAccess, routers: Iterable[APIRouter], *, token: str | None, hosts: Iterable[str] = ()
) -> FastAPI:
    """Return the service.

    Args:
        cluster: what it is for.
        routers: its routes.
        token: what it asks for; None to let in whoever reaches it, which must be this host alone then.
        hosts: names, besides addresses, `localhost` and the host's own, by which browsers reach it.
    """
    # Its own pages of documentation load scripts from elsewhere; the schema stays at /openapi.json.
    app = FastAPI(title="rabbitry", version=VERSION, docs_url=None, redoc_url=None)
    app.state.cluster = cluster
    lock = None if token is None else Lock(token)
    app.include_router(login_router(lock))
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(RabbitryBrokerError, _unreachable)
    app.add_middleware(Gate, lock=lock, hosts=tuple(hosts))
    return app


def _unreachable(_: Request, error: Exception) -> Response:
    """Answer for a cluster that is away; Ray's clients show the text."""
    return PlainTextResponse(str(error), 503)
