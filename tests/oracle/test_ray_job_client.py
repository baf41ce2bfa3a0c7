"""Ray's own command line and client of jobs, unchanged, against our HTTP service. `make oracle` runs this."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import rabbitry

ORACLE_VARIABLE = "RABBITRY_ORACLE_PYTHON"
TOKEN = "a-token-of-these-tests"

pytestmark = [pytest.mark.asks_ray, pytest.mark.timeout(300)]

PROGRAM = """
import asyncio, sys
from ray.job_submission import JobStatus, JobSubmissionClient

client = JobSubmissionClient(sys.argv[1])
env = {"working_dir": sys.argv[2], "env_vars": {"GREETING": "hello"}}
job = client.submit_job(entrypoint="python main.py", runtime_env=env, metadata={"team": "a"}, entrypoint_num_cpus=1)

async def follow():
    return "".join([text async for text in client.tail_job_logs(job)])

assert asyncio.run(follow()) == "hello 42\\n"
assert client.get_job_logs(job) == "hello 42\\n"
info = client.get_job_info(job)
assert info.status is JobStatus.SUCCEEDED and info.driver_exit_code == 0, info
assert info.metadata == {"team": "a"} and info.driver_info.id == info.job_id, info
assert job in [each.submission_id for each in client.list_jobs()]
assert not client.stop_job(job)
assert client.delete_job(job)
try:
    client.get_job_info(job)
except RuntimeError as error:
    assert "404" in str(error)
else:
    raise AssertionError("it is still there")
running = client.submit_job(entrypoint="sleep 1000", submission_id="long")
try:
    client.submit_job(entrypoint="true", submission_id="long")
except RuntimeError as error:
    assert "already exists" in str(error)
else:
    raise AssertionError("an id was taken twice")
assert client.stop_job(running)
print("all of it")
"""


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RABBITRY_DASHBOARD_TOKEN", TOKEN)
        with rabbitry.init(num_cpus=2, include_dashboard=True, dashboard_port=0) as context:
            yield f"http://{context.dashboard_url}"


def of_ray(*arguments: str, tool: str = "") -> subprocess.CompletedProcess[str]:
    python = os.environ[ORACLE_VARIABLE]
    command = [str(Path(python).parent / tool)] if tool else [python]
    hidden = ("PYTHONPATH", "RABBITRY_DASHBOARD_TOKEN", "RAY_ADDRESS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [*command, *arguments],
        env={**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )


def test_rays_client_does_all_it_can(dashboard: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import os, rabbitry, beside\n"
        "rabbitry.init()\n"
        "print(rabbitry.get(rabbitry.remote(lambda: os.environ['GREETING']).remote()), beside.VALUE)\n"
    )
    (tmp_path / "beside.py").write_text("VALUE = 42")
    done = of_ray("-c", PROGRAM, dashboard, str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all of it\n")


def test_rays_command_line_follows_stops_and_deletes(dashboard: str) -> None:
    def job(command: str, *arguments: str) -> tuple[int, str]:
        done = of_ray("job", command, "--address", dashboard, *arguments, tool="ray")
        return done.returncode, done.stdout

    code, said = job("submit", "--submission-id", "ray-1", "--", "sh", "-c", "echo $0", "a b")
    assert (code, "a b\n" in said, "'ray-1' succeeded" in said) == (0, True, True), said
    code, said = job("submit", "--", "sh", "-c", "exit 3")
    assert (code, "exit code 3" in said) == (1, True), said
    assert job("submit", "--no-wait", "--submission-id", "ray-2", "--", "sleep", "1000")[0] == 0
    code, said = job("status", "ray-2")
    assert (code, "RUNNING" in said or "PENDING" in said) == (0, True), said
    assert job("delete", "ray-2")[0] == 1
    code, said = job("stop", "ray-2")
    assert (code, "was stopped" in said) == (0, True), said
    code, said = job("logs", "ray-1")
    assert (code, said.endswith("a b\n")) == (0, True), said
    code, said = job("list")
    assert (code, "ray-1" in said, "ray-2" in said) == (0, True, True), said
    assert job("delete", "ray-2")[0] == 0
    assert job("status", "ray-2")[0] == 1


def test_a_wrong_token_is_an_authentication_error(dashboard: str) -> None:
    headers = {"Authorization": "Bearer no"}
    program = f"from ray.job_submission import *; JobSubmissionClient({dashboard!r}, headers={headers!r})"
    done = of_ray("-c", program)
    assert done.returncode == 1
    assert "AuthenticationError" in done.stdout
