"""What the dashboard's pages show of a real cluster, on both engines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import TaskCancelledError
from rabbitry.util.placement_group import placement_group, remove_placement_group
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError, RabbitryBrokerError
from rabbitry_workers.dashboard.cluster.cluster import ClusterSource
from rabbitry_workers.dashboard.source import FAILED, FINISHED, RUNNING, WAITING, Missing, Query, Refused, TaskRow
from rabbitry_workers.jobs.manager import JobManager, Request
from tests.servers import RedisServer, wait_until

pytestmark = pytest.mark.usefixtures("session")
SECONDS = 20.0


@pytest.fixture(scope="module")
def source(session: Any) -> Iterator[ClusterSource]:
    made = ClusterSource(current.client().endpoint, JobManager(current.client))
    yield made
    made.close()


def until(find: Callable[[], Any], what: str) -> Any:
    """Wait for something to be found, and return it."""
    found: list[Any] = []

    def look() -> bool:
        found[:] = [find()]
        return bool(found[0])

    wait_until(look, what, timeout=SECONDS)
    return found[0]


def tasks(source: ClusterSource, **query: Any) -> list[TaskRow]:
    return list(source.tasks(Query(**query)).rows)


@rabbitry.remote
def double(x: int) -> int:
    return 2 * x


@rabbitry.remote
def family(count: int) -> list[int]:
    print("a parent speaks")
    return rabbitry.get([double.remote(each) for each in range(count)])


@rabbitry.remote(max_retries=0)
def breaks(word: str) -> None:
    raise ValueError(f"broken <b>{word}</b>")


@rabbitry.remote(max_retries=0)
def sleeps(path: str) -> None:
    Path(path).touch()
    time.sleep(3600)


@rabbitry.remote(num_gpus=7)
def wants_gpus() -> None:
    pass


@rabbitry.remote
class Teller:
    def tell(self) -> int:
        return 7


def test_a_task_with_its_children(source: ClusterSource):
    assert rabbitry.get(family.remote(3)) == [0, 2, 4]
    # What its driver tells of it comes on its own, within a second.
    shown = until(
        lambda: [row for row in tasks(source, text="family", state=FINISHED) if row.created],
        "the parent is shown as finished",
    )
    row = shown[0]
    detail = until(lambda: (found := source.task(row.id)).children_total == 3 and found, "its children are known")
    assert {child.name for child in detail.children} == {"double"}
    assert detail.resources == {"CPU": 1.0}
    assert [state for state, _ in detail.states][-1] == "FINISHED"
    assert [when for _, when in detail.states] == sorted(when for _, when in detail.states)
    child = source.task(detail.children[0].id)
    assert child.parent is not None
    assert child.parent.id == row.id
    assert row.started is not None
    assert row.ended is not None
    assert row.created is not None
    assert row.created <= row.started <= row.ended
    assert row.node in {node.id for node in source.nodes()}
    assert detail.log is not None

    def printed() -> str:
        try:
            return source.read_log(*detail.log, row.id, None, 100).text  # type: ignore[misc]
        except Missing:
            return ""

    assert until(printed, "its output is in the log") == "a parent speaks\n"
    assert detail.log[1] in {file.name for file in source.logs()}


def test_an_error_with_its_text(source: ClusterSource):
    with pytest.raises(ValueError, match="broken"):
        rabbitry.get(breaks.remote("word"))
    row = until(lambda: tasks(source, text="breaks", state=FAILED), "the failure is shown")[0]
    detail = until(lambda: (found := source.task(row.id)).message and found, "the text is there")
    assert "ValueError: broken <b>word</b>" in detail.message
    assert row.error == "TASK_EXECUTION_EXCEPTION"
    assert source.overview().failed[-1] >= 0


def test_why_a_task_waits(source: ClusterSource):
    ref = wants_gpus.remote()
    row = until(lambda: tasks(source, text="wants_gpus", state=WAITING), "it is shown as waiting")[0]
    assert "GPU" in source.task(row.id).waits_for
    queues = {queue.name: queue for queue in source.queues().rows}
    assert queues["task.CPU=1,GPU=7"].tasks == 1
    assert queues["task.CPU=1,GPU=7"].by == ""
    assert queues["task.CPU=1"].by != ""
    source.cancel(row.id, force=False)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=SECONDS)
    until(lambda: tasks(source, text="wants_gpus", state=FAILED), "it is shown as cancelled")
    with pytest.raises(Refused, match="ended already"):
        source.cancel(row.id, force=False)


def test_a_running_task_is_seen_on_its_node_and_cancelled(source: ClusterSource, tmp_path: Path):
    mark = tmp_path / "runs"
    ref = sleeps.remote(str(mark))
    wait_until(mark.exists, "it runs", timeout=SECONDS)
    row = until(lambda: tasks(source, text="sleeps", state=RUNNING), "it is shown as running")[0]

    def where() -> list[Any]:
        return [each for node in source.nodes() for each in node.executors if each.task == row.id]

    executor = until(where, "its process is shown")[0]
    assert executor.pid == row.pid
    assert executor.runs == "sleeps"
    assert source.overview().groups[RUNNING] >= 1
    assert any(span.task == row.id and span.ended is None for span in source.timeline(60))
    source.cancel(row.id, force=True)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=SECONDS)
    until(lambda: not tasks(source, text="sleeps", state=RUNNING), "it does not run any more")


def test_an_actor_is_seen_and_killed(source: ClusterSource):
    actor = Teller.options(name="teller").remote()
    assert rabbitry.get(actor.tell.remote()) == 7
    row = next(each for each in source.actors() if each.name == "teller")
    assert row.class_name == "Teller"
    assert row.state == "ALIVE"
    assert row.pid
    until(lambda: tasks(source, actor=row.id, state=FINISHED, text="tell"), "its call is shown")
    assert row.id in {each.actor for node in source.nodes() for each in node.executors}
    source.kill(row.id, restart=False)
    until(lambda: next(each for each in source.actors() if each.id == row.id).state == "DEAD", "it is dead")
    dead = next(each for each in source.actors() if each.id == row.id)
    assert dead.death
    with pytest.raises(Refused):
        source.kill(row.id, restart=False)
    with pytest.raises(Missing):
        source.kill("no id", restart=False)


def test_jobs_nodes_and_objects(source: ClusterSource):
    job = until(lambda: [each for each in source.jobs() if each.state == "RUNNING"], "this driver is shown")[0]
    assert job.id == rabbitry.get_runtime_context().get_job_id()
    node = source.nodes()[0]
    assert node.state == "alive"
    assert node.total["CPU"] == 2
    assert not any(name.startswith("node:") for name in node.total)
    assert node.memory is not None
    assert 0 < node.memory[0] < node.memory[1]
    assert node.cpu is None or 0 <= node.cpu <= 1
    ref = rabbitry.put(b"x" * 3_000_000)
    found = until(lambda: [each for each in source.objects().rows if each.id == ref.hex()], "the object is shown")[0]
    assert found.size == pytest.approx(3_000_000, abs=1000)
    assert source.objects().rows[0].size >= found.size


def test_placement_groups(source: ClusterSource):
    group = placement_group([{"CPU": 1}], strategy="PACK", name="of-the-test")
    assert group.wait(SECONDS)
    row = next(each for each in source.placement_groups() if each.name == "of-the-test")
    assert row.state == "CREATED"
    assert row.strategy == "PACK"
    assert [takes for takes, _ in row.bundles] == [{"CPU": 1.0}]
    assert row.bundles[0][1] == source.nodes()[0].id
    remove_placement_group(group)
    until(lambda: {each.name: each.state for each in source.placement_groups()}["of-the-test"] == "REMOVED", "it goes")


def test_messages_that_were_put_aside(source: ClusterSource):
    client = current.client()
    before = source.put_aside().total
    client.store.put_aside("the test", b"\x00<script>", "it is <b>nonsense</b>")
    after = source.put_aside()
    assert after.total == before + 1 == source.overview().put_aside
    assert after.rows[0].reason.endswith("the test: it is <b>nonsense</b>")
    assert after.rows[0].excerpt == ".<script>"


def test_the_trace_is_one(source: ClusterSource):
    events = json.loads(source.trace())
    assert any(event["ph"] == "X" and event["name"] == "family" for event in events)


def test_filters_and_order(source: ClusterSource):
    rabbitry.get([double.remote(each) for each in range(20)])
    until(lambda: source.tasks(Query(text="double", state=FINISHED)).total >= 20, "they have ended")
    everything = source.tasks(Query(limit=1000))
    assert everything.total == len(everything.rows)
    some = source.tasks(Query(text="DOUBLE", limit=5, offset=3))
    assert len(some.rows) == 5
    assert some.total == sum(row.name == "double" for row in everything.rows)
    by_end = source.tasks(Query(text="double", sort="ended", descending=True, limit=1000)).rows
    assert [row.ended for row in by_end] == sorted((row.ended for row in by_end), reverse=True)
    row = everything.rows[-1]
    assert [each.id for each in source.tasks(Query(text=row.id[:46])).rows][-1:] == [row.id]
    assert source.tasks(Query(job=row.job, limit=1)).total == everything.total
    for nonsense in (Query(job="no id"), Query(node="00"), Query(state="no state"), Query(actor="ab" * 500)):
        assert source.tasks(nonsense).total == 0
    assert sum(source.overview().groups.values()) == everything.total


@pytest.mark.parametrize("task", ["", "nonsense", "00" * 24, "ab" * 5000])
def test_a_task_that_is_not_there(source: ClusterSource, task: str):
    with pytest.raises(Missing):
        source.task(task)


def test_nodes_and_logs_that_are_not_there(source: ClusterSource):
    with pytest.raises(Refused):
        source.drain("00" * 28)
    for node in ("nonsense", next(each.id for each in source.nodes())):
        with pytest.raises(Missing):
            source.read_log(node, "../../etc/passwd", "", None, 10)


def test_a_cluster_that_is_away(source: ClusterSource):
    endpoint = current.client().endpoint
    away = ClusterSource(
        Endpoint("redis://127.0.0.1:1/0", endpoint.broker_url, endpoint.secrets, endpoint.prefix),
        JobManager(current.client),
        timeout=1.0,
    )
    for ask in (away.overview, away.nodes, away.queues, away.logs):
        with pytest.raises(ConnectError):
            ask()
    away.close()


def test_a_submitted_job_is_followed_and_stopped(source: ClusterSource):
    manager = JobManager(current.client)
    submission = manager.submit(Request(entrypoint="echo begun '<b>'; sleep 600"))

    def row() -> Any:
        found = [each for each in source.jobs() if each.submission == submission]
        assert len(found) <= 1, "it is shown once"
        return found[0] if found else None

    until(lambda: (found := row()) and found.state == "RUNNING", "the job runs")
    assert row().log == ("job", submission)
    until(lambda: "begun <b>" in source.read_log("job", submission, "", None, 100).text, "its log can be read")
    source.stop_job(submission)
    until(lambda: row().state == "STOPPED", "it is stopped")
    with pytest.raises(Refused, match="ended already"):
        source.stop_job(submission)
    with pytest.raises(Refused):
        source.stop_job("no such job")
    with pytest.raises(Missing):
        source.read_log("job", "no such job", "", None, 100)


def test_the_stack_of_a_process(source: ClusterSource, tmp_path: Path):
    mark = tmp_path / "runs"
    ref = sleeps.remote(str(mark))
    wait_until(mark.exists, "it runs", timeout=SECONDS)
    row = until(lambda: tasks(source, text="sleeps", state=RUNNING), "it is shown as running")[0]
    assert "sleeps" in source.stack(row.node, row.pid or 0)
    with pytest.raises(Missing):
        source.stack(row.node, 1)
    source.cancel(row.id, force=True)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=SECONDS)


def test_a_store_that_comes_back(tmp_path_factory: pytest.TempPathFactory):
    server = RedisServer(tmp_path_factory.mktemp("store"))
    server.start()
    endpoint = Endpoint(server.url, None, (b"s" * 32,), "rabbitry:")
    source = ClusterSource(endpoint, JobManager(current.client), timeout=1.0)
    try:
        assert source.overview().nodes == {}
        assert source.jobs() == []
        server.kill()
        for ask in (source.overview, source.jobs, source.queues, source.logs):
            with pytest.raises(RabbitryBrokerError):
                ask()
        server.start()
        until(lambda: source.overview().nodes == {}, "it answers again")
        assert source.jobs() == []
        assert source.logs() == []
    finally:
        source.close()
        server.stop()
