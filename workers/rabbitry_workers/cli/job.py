"""`rabbitry job submit | status | logs | stop | list | delete`: jobs, over the dashboard's REST API."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from rabbitry_broker.terminal import printable
from rabbitry_workers.cli.output import MissingExtra, show
from rabbitry_workers.cli.parsing import add_format

if TYPE_CHECKING:
    from rabbitry.job_submission import JobDetails, JobStatus, JobSubmissionClient

POLL_SECONDS: Final = 0.5
COLUMNS: Final = ("submission_id", "job_id", "type", "status", "start", "duration", "entrypoint")
_KEPT: Final = "\n\t"  # of what a terminal would obey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the commands take."""
    commands = parser.add_subparsers(dest="job_command", required=True, metavar="command")
    submit = commands.add_parser("submit", help="run a command on the cluster, and follow what it prints")
    _add_common(submit)
    submit.add_argument("--submission-id", metavar="ID", help="its name (default: a random one)")
    submit.add_argument("--job-id", metavar="ID", help=argparse.SUPPRESS)
    submit.add_argument("--runtime-env", metavar="FILE", help="a YAML file with its runtime environment")
    submit.add_argument("--runtime-env-json", metavar="JSON", help="its runtime environment")
    submit.add_argument("--working-dir", metavar="DIR", help="its working directory: a folder, archive or URL")
    submit.add_argument("--metadata-json", metavar="JSON", help="text to text, for whoever reads it")
    submit.add_argument("--entrypoint-num-cpus", type=float, metavar="N", help="CPUs that the command itself holds")
    submit.add_argument("--entrypoint-num-gpus", type=float, metavar="N", help="GPUs that it holds")
    submit.add_argument("--entrypoint-memory", type=int, metavar="BYTES", help="memory that it is admitted with")
    submit.add_argument("--entrypoint-resources", metavar="JSON", help='custom resources that it holds: {"license": 1}')
    submit.add_argument("--entrypoint-label-selector", metavar="JSON", help='where it may run: {"zone": "a"}')
    submit.add_argument("--max-retries", type=int, default=0, metavar="N", help="starts again if its node is lost")
    submit.add_argument("--no-wait", action="store_true", help="return at once")
    submit.add_argument("entrypoint", nargs="+", metavar="COMMAND", help="after --: the command and its arguments")
    status = commands.add_parser("status", help="show where a job is")
    _add_common(status, job=True)
    logs = commands.add_parser("logs", help="print what a job has printed")
    _add_common(logs, job=True)
    logs.add_argument("-f", "--follow", action="store_true", help="and what it will print, until it ends")
    stop = commands.add_parser("stop", help="end a job with all its processes")
    _add_common(stop, job=True)
    stop.add_argument("--no-wait", action="store_true", help="do not wait for its end")
    listed = commands.add_parser("list", help="show all jobs")
    _add_common(listed)
    add_format(listed)
    delete = commands.add_parser("delete", help="delete a job that has ended, and its log")
    _add_common(delete, job=True)


def run(options: argparse.Namespace) -> int:
    """Do it. The exit code of `submit` is 1 if the job failed."""
    try:
        return _COMMANDS[options.job_command](options)
    except (RuntimeError, ConnectionError) as error:
        raise ValueError(str(error)) from None


def _add_common(parser: argparse.ArgumentParser, *, job: bool = False) -> None:
    parser.add_argument(
        "--address", metavar="URL", help="http://host:port of the dashboard, or the cluster's own address"
    )
    parser.add_argument("--headers", metavar="JSON", help="HTTP headers (default: RABBITRY_JOB_HEADERS)")
    parser.add_argument("--verify", default="true", metavar="PATH|BOOL", help="certificates to trust, or false")
    if job:
        parser.add_argument("job_id", metavar="JOB", help="submission id")


def _client(options: argparse.Namespace) -> JobSubmissionClient:
    from rabbitry import environment
    from rabbitry.exceptions import AuthenticationError
    from rabbitry.job_submission import JobSubmissionClient

    headers = options.headers or environment.text(*environment.JOB_HEADERS)
    verify = {"true": True, "1": True, "false": False, "0": False}.get(options.verify.lower(), options.verify)
    try:
        return JobSubmissionClient(
            options.address, headers=_json("--headers", headers) if headers else None, verify=verify
        )
    except (AuthenticationError, FileNotFoundError) as error:
        raise ValueError(str(error)) from None


def _submit(options: argparse.Namespace) -> int:
    client = _client(options)
    entrypoint = options.entrypoint
    job_id = client.submit_job(
        entrypoint=shlex.join(entrypoint),
        submission_id=options.submission_id or options.job_id,
        runtime_env=_runtime_env(options),
        metadata=_json("--metadata-json", options.metadata_json),
        entrypoint_num_cpus=options.entrypoint_num_cpus,
        entrypoint_num_gpus=options.entrypoint_num_gpus,
        entrypoint_memory=options.entrypoint_memory,
        entrypoint_resources=_json("--entrypoint-resources", options.entrypoint_resources),
        entrypoint_label_selector=_json("--entrypoint-label-selector", options.entrypoint_label_selector),
        max_retries=options.max_retries,
    )
    print(f"Job '{job_id}' submitted successfully", flush=True)
    if options.no_wait:
        print(f"  rabbitry job logs --follow {job_id}\n  rabbitry job status {job_id}\n  rabbitry job stop {job_id}")
        return 0
    return int(_follow(client, job_id) == "FAILED")


def _status(options: argparse.Namespace) -> int:
    _say_status(_client(options).get_job_info(options.job_id), options.job_id)
    return 0


def _logs(options: argparse.Namespace) -> int:
    client = _client(options)
    if options.follow:
        _follow(client, options.job_id)
    else:
        _write(client.get_job_logs(options.job_id))
    return 0


def _stop(options: argparse.Namespace) -> int:
    client = _client(options)
    print(f"Attempting to stop job '{options.job_id}'", flush=True)
    client.stop_job(options.job_id)
    if options.no_wait:
        return 0
    while True:
        info = client.get_job_info(options.job_id)
        if info.status.is_terminal():
            _say_status(info, options.job_id)
            return 0
        time.sleep(POLL_SECONDS)


def _list(options: argparse.Namespace) -> int:
    rows = []
    for job in _client(options).list_jobs():
        row: dict[str, Any] = json.loads(job.model_dump_json())
        begun, ended = job.start_time or 0, job.end_time or time.time() * 1000
        # Those of the table come besides the fields themselves, which JSON and YAML show.
        row["start"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begun / 1000)) if begun else ""
        row["duration"] = f"{max(0.0, ended - begun) / 1000:.0f} s" if begun else ""
        rows.append(row)
    show(rows, COLUMNS, options.format)
    return 0


def _delete(options: argparse.Namespace) -> int:
    _client(options).delete_job(options.job_id)
    print(f"Job '{options.job_id}' deleted successfully")
    return 0


_COMMANDS: Final = {
    "submit": _submit,
    "status": _status,
    "logs": _logs,
    "stop": _stop,
    "list": _list,
    "delete": _delete,
}


def _follow(client: JobSubmissionClient, job_id: str) -> JobStatus:
    async def follow() -> None:
        async for text in client.tail_job_logs(job_id):
            _write(text)

    asyncio.run(follow())
    info = client.get_job_info(job_id)
    _say_status(info, job_id)
    return info.status


def _write(text: str) -> None:
    # A file or a program gets what the job printed as it is; a terminal nothing that it would obey, but colours.
    sys.stdout.write(text if not sys.stdout.isatty() else _for_terminal(text))
    sys.stdout.flush()


def _for_terminal(text: str) -> str:
    return printable(text, keep=_KEPT + "\r")


def _say_status(info: JobDetails, job_id: str) -> None:
    words = {"SUCCEEDED": "succeeded", "STOPPED": "was stopped", "FAILED": "failed"}.get(str(info.status))
    line = f"Job '{job_id}' {words}" if words else f"Status for job '{job_id}': {info.status}"
    print(line)
    if info.message and str(info.status) not in ("SUCCEEDED", "STOPPED"):
        print(f"Status message: {printable(info.message, keep=_KEPT)}")


def _runtime_env(options: argparse.Namespace) -> dict[str, Any]:
    if options.runtime_env and options.runtime_env_json:
        raise ValueError("--runtime-env and --runtime-env-json say the same: give one of them")
    found: Any = {}
    if options.runtime_env_json:
        found = _json("--runtime-env-json", options.runtime_env_json)
    elif options.runtime_env:
        found = _yaml(options.runtime_env)
    if options.working_dir:
        found = {**found, "working_dir": options.working_dir}
    return dict(found)


def _yaml(path: str) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingExtra("--runtime-env FILE", "PyYAML") from None
    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--runtime-env {path}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"--runtime-env {path} holds a {type(found).__name__}, and must hold a mapping")
    return found


def _json(option: str, text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option} {text!r} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{option} must be a JSON object, but is {text!r}")
    return found
