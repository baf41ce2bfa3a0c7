"""Jobs on both engines, over HTTP as users submit them: their life, their logs, their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster_utils import Cluster
from rabbitry.exceptions import RuntimeEnvSetupError
from rabbitry.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType
from rabbitry_broker import cluster_file
from rabbitry_broker.store.submissions import Submissions
from rabbitry_workers.cli import main
from tests.end_to_end.conftest import NODE_LEASE, node_environment
from tests.servers import free_port, wait_until

TOKEN = "a-token-of-these-tests"
PYTHON = shlex.quote(sys.executable)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RABBITRY_DASHBOARD_TOKEN", TOKEN)
        yield


@pytest.fixture(scope="module")
def cluster(engine_arguments: dict[str, Any]) -> Iterator[Cluster]:
    """Two nodes, of which the second can be reached by its label only, and a driver with a dashboard."""
    cluster = Cluster(node_lease=NODE_LEASE, **engine_arguments)
    try:
        cluster.add_node(num_cpus=2, labels={"place": "first"})
        cluster.connect(log_to_driver=False, include_dashboard=True, dashboard_port=0)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def client(cluster: Cluster) -> JobSubmissionClient:
    return JobSubmissionClient()


def wait_for(client: JobSubmissionClient, job: str, *statuses: JobStatus, timeout: float = 40.0) -> JobDetails:
    wanted = statuses or (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
    deadline = time.monotonic() + timeout
    while (info := client.get_job_info(job)).status not in wanted:
        assert time.monotonic() < deadline, f"{info!r} after {timeout:g} s; log: {client.get_job_logs(job)}"
        time.sleep(0.05)
    return info


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(text)
    return f"{PYTHON} {shlex.quote(str(path))}"


def test_a_job_runs_a_driver_on_the_cluster(client: JobSubmissionClient, tmp_path: Path) -> None:
    entrypoint = script(
        tmp_path,
        "import os, rabbitry\n"
        "rabbitry.init()\n"
        "value = rabbitry.remote(lambda: os.environ['GREETING']).remote()\n"
        "print(rabbitry.get(value), os.environ['GREETING'])\n",
    )
    job = client.submit_job(
        entrypoint=entrypoint, runtime_env={"env_vars": {"GREETING": "hello"}}, metadata={"team": "a"}
    )
    assert re.fullmatch(r"raysubmit_[A-Za-z1-9]{16}", job)
    info = wait_for(client, job)
    assert client.get_job_logs(job) == "hello hello\n"
    assert (info.status, info.driver_exit_code) == (JobStatus.SUCCEEDED, 0)
    assert info.message == "Job finished successfully."
    assert (info.type, info.submission_id) == (JobType.SUBMISSION, job)
    assert info.metadata == {"team": "a"}
    assert info.runtime_env == {"env_vars": {"GREETING": "hello"}}
    assert info.driver_node_id == rabbitry.nodes()[0]["NodeID"]
    assert info.start_time is not None
    assert info.end_time is not None
    assert info.start_time <= info.end_time
    # Its driver is known by its job id, also when it has left; it is no job of its own.
    assert info.job_id is not None
    assert info.driver_info is not None
    assert info.driver_info.id == info.job_id
    assert client.get_job_info(info.job_id) == info
    listed = client.list_jobs()
    assert [each.submission_id for each in listed if each.job_id == info.job_id] == [job]
    by_hand = [each for each in listed if each.type is JobType.DRIVER]
    assert [each.driver_info.pid for each in by_hand if each.driver_info] == [str(os.getpid())]
    assert by_hand[0].status is JobStatus.RUNNING


def test_a_job_brings_its_directory_and_modules_along(client: JobSubmissionClient, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "beside.py").write_text("VALUE = 42")
    (tmp_path / "code" / "main.py").write_text(
        "import beside, extra, rabbitry\n"
        "rabbitry.init()\n"
        "def work():\n"
        "    import beside, extra\n"
        "    return beside.VALUE, extra.VALUE\n"
        "print(beside.VALUE, extra.VALUE, rabbitry.get(rabbitry.remote(work).remote()))\n"
    )
    (tmp_path / "modules" / "extra").mkdir(parents=True)
    (tmp_path / "modules" / "extra" / "__init__.py").write_text("VALUE = 7")
    env = {"working_dir": str(tmp_path / "code"), "py_modules": [str(tmp_path / "modules" / "extra")]}
    job = client.submit_job(entrypoint="python main.py", runtime_env=env)
    info = wait_for(client, job)
    assert client.get_job_logs(job) == "42 7 (42, 7)\n"
    assert info.runtime_env is not None
    assert info.runtime_env["working_dir"].startswith("gcs://_ray_pkg_")
    with pytest.raises(RuntimeEnvSetupError, match="not in the store"):
        client.submit_job(entrypoint="true", runtime_env={"working_dir": "gcs://_ray_pkg_0000.zip"})


def test_an_environment_that_cannot_be_set_up_fails_the_job(client: JobSubmissionClient) -> None:
    job = client.submit_job(entrypoint="true", runtime_env={"py_executable": "/no/such/python"})
    info = wait_for(client, job)
    assert (info.status, info.error_type) == (JobStatus.FAILED, "RUNTIME_ENV_SETUP_FAILURE")
    assert info.message is not None
    assert "/no/such/python" in info.message


def test_a_driver_that_was_started_by_hand_is_listed_when_it_has_left(
    cluster: Cluster, client: JobSubmissionClient
) -> None:
    program = f"import rabbitry; rabbitry.init({cluster.address!r}); print(rabbitry.get_runtime_context().get_job_id())"
    done = subprocess.run(
        [sys.executable, "-c", program], env=node_environment(), capture_output=True, text=True, timeout=40, check=True
    )
    job = done.stdout.strip()
    info = client.get_job_info(job)
    assert (info.type, info.status, info.submission_id) == (JobType.DRIVER, JobStatus.SUCCEEDED, None)
    assert info.end_time is not None
    with pytest.raises(RuntimeError, match="submission type"):
        client.stop_job(job)


def test_a_command_that_fails_says_why(client: JobSubmissionClient) -> None:
    job = client.submit_job(entrypoint="echo one; echo two >&2; exit 7", submission_id="fails")
    info = wait_for(client, job)
    assert (info.status, info.driver_exit_code) == (JobStatus.FAILED, 7)
    assert info.error_type == "JOB_ENTRYPOINT_COMMAND_ERROR"
    assert info.message is not None
    assert "exit code 7" in info.message
    assert "one\ntwo\n" in info.message
    assert info.job_id is None


def test_a_log_is_followed_as_it_grows(client: JobSubmissionClient, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = client.submit_job(entrypoint=f"echo first; while [ ! -e {go} ]; do sleep 0.05; done; printf 'grüße'")

    async def follow() -> list[str]:
        pieces: list[str] = []
        async for piece in client.tail_job_logs(job):
            pieces.append(piece)
            if "".join(pieces) == "first\n":
                assert client.get_job_status(job) is JobStatus.RUNNING
                go.touch()
        return pieces

    pieces = asyncio.run(asyncio.wait_for(follow(), 40))
    assert "".join(pieces) == "first\ngrüße"
    assert client.get_job_status(job) is JobStatus.SUCCEEDED  # the log ends when the job has
    assert "".join(asyncio.run(_all(client.tail_job_logs(job)))) == "first\ngrüße"


async def _all(pieces: AsyncIterator[str]) -> list[str]:
    return [piece async for piece in pieces]


def test_who_stops_following_lets_go(client: JobSubmissionClient) -> None:
    job = client.submit_job(entrypoint="echo here; sleep 60")

    async def look() -> str:
        async for piece in client.tail_job_logs(job):
            return piece
        return ""

    assert asyncio.run(asyncio.wait_for(look(), 40)) == "here\n"
    assert client.stop_job(job)
    assert wait_for(client, job).status is JobStatus.STOPPED


def test_stopping_ends_everything_that_the_command_has_started(client: JobSubmissionClient) -> None:
    program = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"
    )
    stubborn = f"{PYTHON} -c '{program}'"
    job = client.submit_job(entrypoint=f"{stubborn} & sleep 60 & echo $!; wait")
    wait_until(lambda: client.get_job_logs(job).count("\n") == 2, "it has begun", 40)
    pids = [int(each) for each in client.get_job_logs(job).split()]
    assert client.stop_job(job)
    info = wait_for(client, job)
    assert (info.status, info.message) == (JobStatus.STOPPED, "Job was intentionally stopped.")
    assert not any(map(lives, pids))
    assert not client.stop_job(job)


def test_one_that_waits_for_resources_can_be_stopped(client: JobSubmissionClient) -> None:
    job = client.submit_job(entrypoint="true", entrypoint_num_cpus=1000)
    info = client.get_job_info(job)
    assert info.status is JobStatus.PENDING
    assert info.message is not None
    assert "waiting for resources" in info.message
    assert client.stop_job(job)
    assert client.get_job_status(job) is JobStatus.STOPPED
    assert client.get_job_logs(job) == ""
    assert asyncio.run(_all(client.tail_job_logs(job))) == []


def test_the_entrypoint_holds_what_it_asked_for(client: JobSubmissionClient, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = client.submit_job(
        entrypoint=f"while [ ! -e {go} ]; do sleep 0.05; done",
        entrypoint_num_cpus=1,
        entrypoint_label_selector={"place": "first"},
    )
    wait_for(client, job, JobStatus.RUNNING)
    wait_until(lambda: rabbitry.available_resources().get("CPU", 0) == 1, "its CPU is taken", 20)
    go.touch()
    assert wait_for(client, job).status is JobStatus.SUCCEEDED
    wait_until(lambda: rabbitry.available_resources().get("CPU", 0) == 2, "its CPU is free", 20)


def test_an_id_is_good_for_one_job_and_only_what_ended_is_deleted(client: JobSubmissionClient) -> None:
    job = client.submit_job(entrypoint="sleep 60", submission_id="mine")
    assert job == "mine"
    with pytest.raises(RuntimeError, match="already exists"):
        client.submit_job(entrypoint="true", submission_id="mine")
    with pytest.raises(RuntimeError, match="non-terminal state"):
        client.delete_job(job)
    wait_for(client, job, JobStatus.RUNNING)
    client.stop_job(job)
    wait_for(client, job)
    directory = Path(_record(job).directory)
    assert directory.is_dir()
    assert client.delete_job(job)
    for ask in (client.get_job_info, client.stop_job, client.delete_job, client.get_job_logs):
        with pytest.raises(RuntimeError, match=r"404.*mine does not exist"):
            ask(job)
    with pytest.raises(RuntimeError, match="404"):
        asyncio.run(_all(client.tail_job_logs(job)))
    wait_until(lambda: not directory.exists(), "its log is gone", 30)
    assert client.submit_job(entrypoint="true", submission_id="mine") == "mine"
    assert wait_for(client, job).status is JobStatus.SUCCEEDED


def test_an_id_that_is_used_again_at_once_has_a_log_of_its_own(client: JobSubmissionClient) -> None:
    for word in ("one", "two"):
        assert client.submit_job(entrypoint=f"echo {word}", submission_id="used again") == "used again"
        assert wait_for(client, "used again").status is JobStatus.SUCCEEDED
        assert client.get_job_logs("used again") == f"{word}\n"
        assert client.delete_job("used again")


def _record(job: str) -> Any:
    return Submissions(current.client().store).get(job)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"entrypoint": " "}, "entrypoint"),
        ({"entrypoint": "true", "submission_id": "a/b"}, "submission_id"),
        ({"entrypoint": "true", "metadata": {"a": 1}}, "metadata"),
        ({"entrypoint": "true", "entrypoint_num_cpus": -1}, "entrypoint_num_cpus"),
        ({"entrypoint": "true", "entrypoint_resources": {"CPU": 1}}, "CPU"),
        ({"entrypoint": "true", "entrypoint_label_selector": {"a b": "c"}}, "a b"),
    ],
)
def test_nonsense_is_refused_and_leaves_nothing(
    client: JobSubmissionClient, arguments: dict[str, Any], text: str
) -> None:
    before = len(client.list_jobs())
    with pytest.raises(RuntimeError, match=f"400.*{text}"):
        client.submit_job(**arguments)
    assert len(client.list_jobs()) == before


def test_fifty_at_once(client: JobSubmissionClient) -> None:
    jobs = [client.submit_job(entrypoint=f"echo {number}") for number in range(50)]
    infos = [wait_for(client, job, timeout=55) for job in jobs]
    assert {info.status for info in infos} == {JobStatus.SUCCEEDED}
    assert client.get_job_logs(jobs[49]) == "49\n"
    for job in jobs:
        client.delete_job(job)


def test_a_job_outlives_the_service_that_took_it(cluster: Cluster, client: JobSubmissionClient, tmp_path: Path) -> None:
    port = free_port()
    service = subprocess.Popen(
        [sys.executable, "-m", "rabbitry_workers", "dashboard", "--address", cluster.address, "--port", str(port)],
        env=node_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert service.stdout is not None
        service.stdout.readline()
        other = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(other), "it answers", 40)
        go = tmp_path / "go"
        job = JobSubmissionClient(other).submit_job(entrypoint=f"while [ ! -e {go} ]; do sleep 0.05; done; echo done")
        wait_for(client, job, JobStatus.RUNNING)
    finally:
        service.kill()
        service.communicate()
    time.sleep(0.2)
    go.touch()
    assert wait_for(client, job).status is JobStatus.SUCCEEDED
    assert client.get_job_logs(job) == "done\n"


def _answers(url: str) -> bool:
    with contextlib.suppress(ConnectionError):
        JobSubmissionClient(url)
        return True
    return False


def test_a_supervisor_that_is_killed_is_reported_and_ends_its_command(
    client: JobSubmissionClient, tmp_path: Path
) -> None:
    job = client.submit_job(entrypoint="echo $PPID $$; sleep 60")
    wait_until(lambda: "\n" in client.get_job_logs(job), "it has begun", 40)
    supervisor, shell = map(int, client.get_job_logs(job).split())
    os.kill(supervisor, signal.SIGKILL)
    info = wait_for(client, job)
    assert (info.status, info.error_type) == (JobStatus.FAILED, "JOB_SUPERVISOR_ACTOR_DIED")
    wait_until(lambda: not lives(shell), "its command is gone")


def test_a_job_whose_node_is_lost_is_reported_or_starts_again(cluster: Cluster, client: JobSubmissionClient) -> None:
    node = cluster.add_node(num_cpus=1, labels={"place": "second"})
    once = client.submit_job(entrypoint="echo $$; sleep 60", entrypoint_label_selector={"place": "second"})
    again = client.submit_job(
        entrypoint="echo $$; sleep 60", entrypoint_label_selector={"place": "second"}, max_retries=1
    )
    for job in (once, again):
        wait_until(lambda job=job: "\n" in client.get_job_logs(job), "it has begun", 40)  # type: ignore[misc]
    shells = [int(client.get_job_logs(job)) for job in (once, again)]
    files = Path(_record(once).directory).parent.parent
    node.kill()
    cluster._nodes.remove(node)
    wait_until(lambda: not any(map(lives, shells)), "what ran there is gone")
    try:
        info = wait_for(client, once)
        assert (info.status, info.error_type) == (JobStatus.FAILED, "JOB_SUPERVISOR_ACTOR_DIED")
        with pytest.raises(RuntimeError, match=r"log.* node"):
            client.get_job_logs(once)
        other = cluster.add_node(num_cpus=1, labels={"place": "second"})
        wait_until(lambda: client.get_job_info(again).driver_node_id == other.node_id, "it starts again", 40)
        try:
            wait_until(lambda: client.get_job_logs(again).count("\n") > 1, "it runs", 20)
        except AssertionError:
            raise AssertionError(f"{client.get_job_info(again)!r} {client.get_job_logs(again)!r}") from None
        first, shell = client.get_job_logs(again).splitlines()
        assert first == "--- attempt 2 ---"
        assert lives(int(shell))
        assert client.stop_job(again)
        assert wait_for(client, again).status is JobStatus.STOPPED
        cluster.remove_node(other)
    finally:
        # The node was killed: the start of another session would remove this, half a minute later.
        subprocess.run(["rm", "-r", str(files)], check=True)


def test_a_dashboard_is_found_by_the_address_of_its_cluster(cluster: Cluster, client: JobSubmissionClient) -> None:
    wait_until(lambda: _finds(cluster.address), "it has said where it is", 20)
    assert JobSubmissionClient(cluster.address).get_address() == client.get_address()


def _finds(address: str) -> bool:
    with contextlib.suppress(ConnectionError):
        JobSubmissionClient(address)
        return True
    return False


def test_the_command_line_does_what_rays_does(client: JobSubmissionClient, capsys: pytest.CaptureFixture[str]) -> None:
    def job(command: str, *arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["job", command, "--address", client.get_address(), *arguments])
        return code, "".join(capsys.readouterr())

    code, said = job("submit", "--submission-id", "cli-1", "--", "sh", "-c", "echo $0 $1", "a b", "-c")
    assert code == 0
    assert "a b -c\n" in said
    assert "Job 'cli-1' succeeded" in said
    code, said = job("submit", "--", "sh", "-c", "exit 3")
    assert code == 1
    assert "exit code 3" in said
    code, said = job(
        "submit", "--no-wait", "--submission-id", "cli-2", "--metadata-json", '{"a": "b"}', "--", "sleep", "60"
    )
    assert code == 0
    assert client.get_job_info("cli-2").metadata == {"a": "b"}
    wait_for(client, "cli-2", JobStatus.RUNNING)
    assert job("status", "cli-2") == (0, "Status for job 'cli-2': RUNNING\nStatus message: Job is currently running.\n")
    assert job("delete", "cli-2")[0] == 1
    code, said = job("stop", "cli-2")
    assert code == 0
    assert "Job 'cli-2' was stopped" in said
    assert job("logs", "cli-1") == (0, "a b -c\n")
    assert job("logs", "--follow", "cli-1") == (0, "a b -c\nJob 'cli-1' succeeded\n")
    rows = json.loads(job("list", "--format", "json")[1])
    assert {"cli-1", "cli-2"} <= {row["submission_id"] for row in rows}
    assert "cli-1" in job("list")[1]
    assert job("delete", "cli-2") == (0, "Job 'cli-2' deleted successfully\n")
    for command in ("status", "logs", "stop", "delete"):
        code, said = job(command, "cli-2")
        assert code == 1
        assert "cli-2 does not exist" in said
    code, said = job("submit", "--metadata-json", "{", "--", "true")
    assert code == 1
    assert "--metadata-json" in said


def test_nothing_in_the_environment_of_a_job_is_a_secret(cluster: Cluster, client: JobSubmissionClient) -> None:
    job = client.submit_job(entrypoint="env; cat $(echo $RABBITRY_ADDRESS | sed s,unix://,,)/cluster.json")
    wait_for(client, job)
    text, _, file = client.get_job_logs(job).rpartition("{")
    secrets = cluster_file.read(cluster.address).endpoint.secrets
    assert all(secret.hex() not in text for secret in secrets)
    assert secrets[0].hex() in file
