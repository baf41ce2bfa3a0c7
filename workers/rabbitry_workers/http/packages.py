"""Packages of jobs: what a client's `working_dir` and `py_modules` come in, by Ray's paths.

They are stored as those of drivers are, held for a week: the client names them in the job that it submits next, whose
supervisor holds them then.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from rabbitry.packaging.preparing import package_limit
from rabbitry_workers.http.access import Cluster

router = APIRouter(prefix="/api/packages")

_IN_MEMORY: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_.+-]{1,200}\.(zip|whl|jar|tar\.gz|tgz|tar\.xz)")


@router.get("/{protocol}/{package_name}")
def get_package(protocol: str, package_name: str, cluster: Cluster) -> Response:
    """Answer 200 if a package is in the store, and keep it there; 404 if it is not."""
    uri = _uri(protocol, package_name)
    if uri is None:
        return _no_name(protocol, package_name)
    client = cluster.client()
    client.register()
    if client.store.packages.hold(uri, client.id, detached=True) is None:
        return PlainTextResponse(f"Package {uri} does not exist", 404)
    return Response()


@router.put("/{protocol}/{package_name}")
async def upload_package(protocol: str, package_name: str, request: Request, cluster: Cluster) -> Response:
    """Store a package."""
    uri = _uri(protocol, package_name)
    if uri is None:
        return _no_name(protocol, package_name)
    limit, size = package_limit(), 0
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="rabbitry-package-") as file:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                return PlainTextResponse(f"Package {uri} is larger than {limit} bytes (RABBITRY_PACKAGE_LIMIT)", 413)
            await asyncio.to_thread(file.write, part)
        file.seek(0)

        def store() -> None:
            client = cluster.client()
            client.register()
            client.store.packages.put(uri, file, client.id, detached=True)

        await asyncio.to_thread(store)
    return Response()


def _uri(protocol: str, package_name: str) -> str | None:
    return f"{protocol}://{package_name}" if protocol == "gcs" and _NAME.fullmatch(package_name) else None


def _no_name(protocol: str, package_name: str) -> Response:
    return PlainTextResponse(
        f"{protocol}://{package_name} cannot be stored: packages are gcs://NAME.zip, .whl, ...", 400
    )
