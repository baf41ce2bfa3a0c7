"""Ray's REST API of jobs: what `ray job` and `JobSubmissionClient`, of Ray or of rabbitry, talk to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from rabbitry_workers.http.access import Cluster, ClusterAccess
from rabbitry_workers.jobs.details import details_of_all, find_details
from rabbitry_workers.jobs.manager import JobManager, JobNotEnded, LogsLost, NoSuchJob
from rabbitry_workers.jobs.requests import parse_request

router = APIRouter(prefix="/api/jobs")

INTERNAL_ERROR: Final = 1011  # of WebSockets
LONGEST_REQUEST: Final = 16 << 20


def _manager(cluster: ClusterAccess) -> JobManager:
    return JobManager(cluster.client)


@router.get("/")
@router.get("", include_in_schema=False)
def list_jobs(request: Request, cluster: Cluster) -> list[dict[str, Any]]:
    """Return all jobs: those that were submitted, and drivers that were started by hand."""
    return [_shown(job, request) for job in details_of_all(_manager(cluster))]


@router.post("/")
@router.post("", include_in_schema=False)
async def submit_job(request: Request, cluster: Cluster) -> Response:
    """Submit a job; answers at once with its id."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_REQUEST:
            raise HTTPException(413, "the request is too long")
    try:
        wanted = parse_request(body)
        submission_id = await asyncio.to_thread(_manager(cluster).submit, wanted)
    except (TypeError, ValueError) as error:
        return PlainTextResponse(f"{type(error).__name__}: {error}", 400)
    return JSONResponse({"job_id": submission_id, "submission_id": submission_id})


@router.get("/{job_or_submission_id}")
def get_job_info(job_or_submission_id: str, request: Request, cluster: Cluster) -> Response:
    """Return what is known of a job."""
    job = find_details(_manager(cluster), job_or_submission_id)
    if job is None:
        return PlainTextResponse(f"Job {job_or_submission_id} does not exist", 404)
    return JSONResponse(_shown(job, request))


@router.post("/{job_or_submission_id}/stop")
def stop_job(job_or_submission_id: str, cluster: Cluster) -> Response:
    """Ask for a job's end; answers at once whether it ran."""
    manager = _manager(cluster)
    submission_id = _submission(manager, job_or_submission_id, "stop")
    if isinstance(submission_id, Response):
        return submission_id
    try:
        return JSONResponse({"stopped": manager.stop(submission_id)})
    except NoSuchJob as error:
        return PlainTextResponse(str(error), 404)


@router.delete("/{job_or_submission_id}")
def delete_job(job_or_submission_id: str, cluster: Cluster) -> Response:
    """Delete a job that has ended, and its log."""
    manager = _manager(cluster)
    submission_id = _submission(manager, job_or_submission_id, "delete")
    if isinstance(submission_id, Response):
        return submission_id
    try:
        manager.delete(submission_id)
    except NoSuchJob as error:
        return PlainTextResponse(str(error), 404)
    except JobNotEnded as error:
        return PlainTextResponse(str(error), 500)  # as Ray answers
    return JSONResponse({"deleted": True})


@router.get("/{job_or_submission_id}/logs")
async def get_job_logs(job_or_submission_id: str, cluster: Cluster) -> Response:
    """Return a job's log, as far as it is kept."""
    manager = _manager(cluster)
    submission_id = await asyncio.to_thread(_submission, manager, job_or_submission_id, "get logs of")
    if isinstance(submission_id, Response):
        return submission_id
    try:
        return JSONResponse({"logs": await manager.logs(submission_id)})
    except NoSuchJob as error:
        return PlainTextResponse(str(error), 404)
    except LogsLost as error:
        return PlainTextResponse(str(error), 500)


@router.get("/{job_or_submission_id}/logs/tail")
async def stream_job_logs(job_or_submission_id: str, cluster: Cluster) -> Response:
    """Return a job's log as it grows, until the job ends: the same as the WebSocket, for `curl -N`."""
    manager = _manager(cluster)
    submission_id = await asyncio.to_thread(_submission, manager, job_or_submission_id, "get logs of")
    if isinstance(submission_id, Response):
        return submission_id

    async def pieces() -> AsyncIterator[str]:
        with contextlib.suppress(NoSuchJob):  # deleted meanwhile
            try:
                async for piece in manager.follow(submission_id):
                    yield piece
            except LogsLost as error:
                yield f"[{error}]\n"

    return StreamingResponse(pieces(), media_type="text/plain; charset=utf-8")


@router.websocket("/{job_or_submission_id}/logs/tail")
async def tail_job_logs(socket: WebSocket, job_or_submission_id: str, cluster: Cluster) -> None:
    """Send a job's log as it grows, until the job ends."""
    manager = _manager(cluster)
    submission_id = await asyncio.to_thread(_submission, manager, job_or_submission_id, "get logs of")
    if isinstance(submission_id, Response):
        await socket.send_denial_response(submission_id)
        return
    await socket.accept()
    sending = asyncio.create_task(_send(socket, manager, submission_id))
    hearing = asyncio.create_task(_hear(socket))  # only so that its end is noticed
    try:
        await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, hearing):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await task


async def _send(socket: WebSocket, manager: JobManager, submission_id: str) -> None:
    code = 1000
    try:
        async for piece in manager.follow(submission_id):
            await socket.send_text(piece)
    except NoSuchJob:
        pass  # deleted meanwhile
    except LogsLost as error:
        await socket.send_text(f"[{error}]\n")
        code = INTERNAL_ERROR
    await socket.close(code)


async def _hear(socket: WebSocket) -> None:
    while True:
        await socket.receive_text()


def _submission(manager: JobManager, job_or_submission_id: str, what: str) -> str | Response:
    """Return the submission id of a job that was submitted; what to answer if there is none."""
    if manager.find(job_or_submission_id) is not None:
        return job_or_submission_id
    job = find_details(manager, job_or_submission_id)
    if job is None:
        return PlainTextResponse(f"Job {job_or_submission_id} does not exist", 404)
    submission_id = job["submission_id"]
    if submission_id is None:
        return PlainTextResponse(f"Can only {what} submission type jobs", 400)
    return str(submission_id)


def _shown(job: dict[str, Any], request: Request) -> dict[str, Any]:
    """Leave out the values of variables where a browser shows them: they may be secrets."""
    environment = job.get("runtime_env")
    if not request.headers.get("user-agent", "").startswith("Mozilla") or not isinstance(environment, dict):
        return job
    if not isinstance(environment.get("env_vars"), dict):
        return job
    hidden = dict.fromkeys(environment["env_vars"], "<redacted>")
    return {**job, "runtime_env": {**environment, "env_vars": hidden}}
