"""`JobSubmissionClient`: submits, follows, stops and deletes jobs over HTTP, by Ray's REST API."""

from __future__ import annotations

import asyncio
import codecs
import copy
import json
from collections.abc import AsyncIterator
from typing import IO, Any, Final
from urllib.parse import quote

from rabbitry.arguments import wrong_type
from rabbitry.job_submission.finding import find_service, token_for
from rabbitry.job_submission.http import Service
from rabbitry.job_submission.models import JobDetails, JobStatus
from rabbitry.packaging.preparing import prepare
from rabbitry.runtime_env import check_runtime_env

_DICTS: Final = ("cookies", "metadata", "headers")


class JobSubmissionClient:
    """Submits jobs to a cluster, and looks after them.

    Args:
        address: `http://host:port` of the dashboard; or the address of the cluster ("auto", `unix:///...`,
            `amqp://...`), which knows where its dashboard is. None: the dashboard of this process's session, of the
            cluster that the environment names, of the newest session on this machine, or `http://127.0.0.1:8265`.
            RABBITRY_API_SERVER_ADDRESS (or RAY_API_SERVER_ADDRESS) counts more than the argument, as in Ray.
        create_cluster_if_needed: accepted; no cluster is ever created.
        cookies: for every request.
        metadata: for every job.
        headers: for every request, such as `{"Authorization": "Bearer TOKEN"}`. Without that one the token of
            RABBITRY_DASHBOARD_TOKEN is sent; to a dashboard on this host, else, that of the user's own file.
        verify: of `https`: False for any certificate, or a file or directory of certificates to trust.

    Raises:
        TypeError: an argument is of the wrong type.
        ConnectionError: no dashboard answers there.
        AuthenticationError: it wants another token.

    Example:
        >>> client = JobSubmissionClient("http://127.0.0.1:8265")  # doctest: +SKIP
        >>> client.submit_job(entrypoint="python train.py")  # doctest: +SKIP
        'raysubmit_4LamXRuQpYdSMg7J'
    """

    def __init__(
        self,
        address: str | None = None,
        create_cluster_if_needed: bool = False,
        cookies: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
        verify: str | bool | None = True,
        **_: Any,
    ) -> None:
        if address is not None and not isinstance(address, str):
            raise wrong_type("address", address, "text or None")
        if not isinstance(create_cluster_if_needed, bool):
            raise wrong_type("create_cluster_if_needed", create_cluster_if_needed, "True or False")
        for name, value in zip(_DICTS, (cookies, metadata, headers), strict=True):
            if value is not None and not isinstance(value, dict):
                raise wrong_type(name, value, "a dict or None")
        if not isinstance(verify, (str, bool)):
            raise wrong_type("verify", verify, "True, False, or the path of certificates")
        url = find_service(address.rstrip("/") if address else None)
        sent = {str(name): str(value) for name, value in (headers or {}).items()}
        if not any(name.lower() == "authorization" for name in sent):
            token = token_for(url)
            if token:
                sent["Authorization"] = f"Bearer {token}"
        self._default_metadata = dict(metadata or {})
        self._service = Service(url, sent, cookies, verify)
        self._version = self._ask_version()

    def get_address(self) -> str:
        """Return the URL of the dashboard."""
        return self._service.address

    def get_version(self) -> str:
        """Return the version of its REST API."""
        return self._version

    def submit_job(
        self,
        *,
        entrypoint: str,
        job_id: str | None = None,
        runtime_env: dict[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        entrypoint_label_selector: dict[str, str] | None = None,
        max_retries: int = 0,
    ) -> str:
        """Submit a job; returns at once.

        Args:
            entrypoint: the shell command, run on some node with the cluster's address in its environment.
            job_id: Ray's former name of `submission_id`.
            runtime_env: environment of the command, and of what its driver runs. Directories and files of this machine
                that it names (`working_dir`, `py_modules`) are uploaded.
            metadata: text to text, for whoever reads it.
            submission_id: its name; None for a random one.
            entrypoint_num_cpus: CPUs that the command holds, besides those of its tasks. Default 0.
            entrypoint_num_gpus: GPUs that it holds. Default 0.
            entrypoint_memory: bytes that it is admitted with. Default 0.
            entrypoint_resources: custom resources that it holds.
            entrypoint_label_selector: labels of the nodes that it may run on.
            max_retries: how often it starts again when its node is lost; -1 for as often as it takes. Not in Ray. A
                command that fails is not started again.

        Returns:
            The submission id.

        Raises:
            RuntimeError: the dashboard refused, e.g. because the id is taken.
            ValueError: an impossible runtime environment.
            RuntimeEnvSetupError: something that it names cannot be read, or is too large.
            ConnectionError: the dashboard does not answer.
        """
        runtime_env = copy.deepcopy(runtime_env) if runtime_env else {}
        hook = runtime_env.get("worker_process_setup_hook")
        if hook and not isinstance(hook, str):
            raise ValueError(
                f"worker_process_setup_hook of a job must be the name of a function, 'module.function', but is a "
                f"{type(hook).__name__}; a function itself can be passed to init(runtime_env=...) in the driver."
            )
        fields = {
            "entrypoint": entrypoint,
            "submission_id": submission_id or job_id,
            "runtime_env": prepare(check_runtime_env(runtime_env) or {}, _Packages(self._service)),
            "metadata": {**(metadata or {}), **self._default_metadata},
            "entrypoint_num_cpus": entrypoint_num_cpus,
            "entrypoint_num_gpus": entrypoint_num_gpus,
            "entrypoint_memory": entrypoint_memory,
            "entrypoint_resources": entrypoint_resources,
            "entrypoint_label_selector": entrypoint_label_selector,
            "max_retries": max_retries or None,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return str(self._ask("POST", "/api/jobs/", given)["submission_id"])

    def stop_job(self, job_id: str) -> bool:
        """Ask for a job's end: SIGTERM for all its processes, SIGKILL three seconds later. Returns at once.

        Args:
            job_id: submission id, or id of its driver.

        Returns:
            True if it ran.

        Raises:
            RuntimeError: there is no such job.
        """
        return bool(self._ask("POST", f"{_path(job_id)}/stop")["stopped"])

    def delete_job(self, job_id: str) -> bool:
        """Delete a job that has ended, and its log.

        Raises:
            RuntimeError: there is no such job, or it has not ended.
        """
        return bool(self._ask("DELETE", _path(job_id))["deleted"])

    def get_job_info(self, job_id: str) -> JobDetails:
        """Return what is known of a job.

        Args:
            job_id: submission id, or id of a driver.

        Raises:
            RuntimeError: there is no such job.
        """
        return JobDetails(**self._ask("GET", _path(job_id)))

    def list_jobs(self) -> list[JobDetails]:
        """Return all jobs: those that were submitted, and drivers that were started by hand."""
        return [JobDetails(**each) for each in self._ask("GET", "/api/jobs/")]

    def get_job_status(self, job_id: str) -> JobStatus:
        """Return where a job is.

        Raises:
            RuntimeError: there is no such job.
        """
        return self.get_job_info(job_id).status

    def get_job_logs(self, job_id: str) -> str:
        """Return what a job has printed, as far as it is kept.

        Raises:
            RuntimeError: there is no such job, or its node is gone.
        """
        return str(self._ask("GET", f"{_path(job_id)}/logs")["logs"])

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """Follow what a job prints, from its beginning to its end.

        Yields:
            Pieces of text, of any length.

        Raises:
            RuntimeError: there is no such job, or the connection broke.
        """
        answer = await asyncio.to_thread(self._service.open, "GET", f"{_path(job_id)}/logs/tail")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            if answer.status != 200:
                raise _refused(answer.status, await asyncio.to_thread(answer.read))
            while data := await asyncio.to_thread(answer.next_piece):
                text = decoder.decode(data)
                if text:
                    yield text
        except ConnectionError as error:
            raise RuntimeError(f"the log of job {job_id} was cut off: {error}") from None
        finally:
            answer.close()

    def _ask_version(self) -> str:
        status, body = self._service.ask("GET", "/api/version")
        try:
            if status == 200:
                return str(json.loads(body)["version"])
        except (ValueError, KeyError, TypeError):
            pass
        raise RuntimeError(f"what answers at {self.get_address()} is no dashboard of rabbitry or Ray (status {status})")

    def _ask(self, method: str, path: str, fields: Any = None) -> Any:
        status, body = self._service.ask(method, path, fields=fields)
        if status != 200:
            raise _refused(status, body)
        return json.loads(body)


class _Packages:
    """Uploads what an environment names of this machine."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def has(self, uri: str) -> bool:
        """True if the cluster has a package."""
        status, body = self._service.ask("GET", self._path(uri))
        if status not in (200, 404):
            raise _refused(status, body)
        return status == 200

    def put(self, uri: str, content: IO[bytes], size: int) -> None:
        """Upload a package."""
        status, body = self._service.ask("PUT", self._path(uri), body=content, size=size)
        if status != 200:
            raise _refused(status, body)

    @staticmethod
    def _path(uri: str) -> str:
        protocol, _, name = uri.partition("://")
        return f"/api/packages/{protocol}/{quote(name, safe='')}"


def _path(job_id: str) -> str:
    if not isinstance(job_id, str) or not job_id:
        raise wrong_type("job_id", job_id, "the id of a job")
    return f"/api/jobs/{quote(job_id, safe='')}"


def _refused(status: int, body: bytes) -> RuntimeError:
    return RuntimeError(f"Request failed with status code {status}: {body.decode('utf-8', 'replace')}.")
