"""What clients ask first: which version of Ray's API is spoken, and whether the service is up."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from rabbitry.context import RAY_VERSION, VERSION
from rabbitry_workers.http.access import Cluster

# Of Ray's REST API: the one with DELETE for jobs.
REST_VERSION: Final = "4"

router = APIRouter()


@router.get("/api/version")
def version(cluster: Cluster) -> dict[str, Any]:
    """Return versions, by Ray's names."""
    return {
        "version": REST_VERSION,
        "ray_version": RAY_VERSION,
        "ray_commit": "",
        "session_name": cluster.name,
        "rabbitry_version": VERSION,
    }


@router.get("/api/healthz")
@router.get("/api/gcs_healthz")
def healthz(cluster: Cluster) -> Response:
    """Answer 200 if Redis answers, for health checks; no token is needed."""
    cluster.check()
    return PlainTextResponse("success")
