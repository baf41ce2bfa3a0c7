"""The state API, on both engines: states are true, and it is told what waits for what."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError
from rabbitry.util.state import (
    StateApiClient,
    get_actor,
    get_log,
    get_node,
    get_objects,
    get_task,
    get_worker,
    list_jobs,
    list_logs,
    list_nodes,
    list_objects,
    list_tasks,
    list_workers,
    summarize_actors,
    summarize_objects,
    summarize_tasks,
)
from rabbitry.util.state.common import ListApiOptions, StateResource
from rabbitry.util.state.exception import RayStateApiException
from tests.end_to_end.looking import add, wait_for_file, wait_for_state, wait_until


@rabbitry.remote(num_cpus=0.1, max_retries=0)
def fail() -> None:
    raise ValueError("this one fails")


@rabbitry.remote(num_cpus=0.1, max_retries=0)
def crash() -> None:
    os._exit(3)


@rabbitry.remote(num_cpus=0.1)
def parent(path: str) -> str:
    return str(rabbitry.get(wait_for_file.options(name="child").remote(path)))


@rabbitry.remote(num_cpus=0.1)
def waiter(path: str) -> int:
    return len(rabbitry.wait([wait_for_file.options(name="child of waiter", num_cpus=0).remote(path)])[0])


@rabbitry.remote(num_cpus=0)
class Leaves:
    def leave(self) -> None:
        rabbitry.exit_actor()


@rabbitry.remote(num_cpus=0)
class LeavesLater:
    async def leave(self) -> None:
        rabbitry.exit_actor()


@rabbitry.remote(num_cpus=0.1)
class Counter:
    def count(self) -> int:
        return 1

    def fail(self) -> None:
        raise KeyError("of an actor")

    def wait(self, path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.02)


def test_a_task_goes_through_its_states(session: str, tmp_path: Path):
    ref = add.remote(1, 2)
    assert rabbitry.get(ref) == 3
    task = wait_for_state(ref, "FINISHED")
    assert (task.name, task.type, task.attempt_number) == ("add", "NORMAL_TASK", 0)
    assert task.required_resources == {"CPU": 0.1}
    assert task.error_type is None
    assert task.parent_task_id.startswith("f" * 40)
    assert task.node_id == list_nodes()[0].node_id
    assert task["worker_pid"] > 0
    assert [each["state"] for each in task.events] == [
        "PENDING_ARGS_AVAIL",
        "PENDING_NODE_ASSIGNMENT",
        "SUBMITTED_TO_WORKER",
        "RUNNING",
        "FINISHED",
    ]
    assert task.creation_time_ms <= task.start_time_ms <= task.end_time_ms
    assert abs(task.end_time_ms / 1000 - time.time()) < 60


def test_what_runs_and_what_waits_is_told_apart(session: str, tmp_path: Path):
    path = str(tmp_path / "go")
    runs = wait_for_file.remote(path)
    waits = add.options(name="dependant").remote(runs, 1)
    in_get, in_wait = parent.remote(path), waiter.remote(path)
    no_room = add.options(name="no room", num_cpus=rabbitry.cluster_resources()["CPU"]).remote(1, 2)
    never = add.options(name="never", num_cpus=1000).remote(1, 2)
    try:
        assert wait_for_state(runs, "RUNNING").worker_pid > 0
        waiting = wait_for_state(waits, "PENDING_ARGS_AVAIL")
        assert f"waits for results of wait_for_file ({runs.task_id().hex()})" in waiting.pending_reason
        assert wait_for_state(in_get, "RUNNING_IN_RAY_GET").worker_pid > 0
        assert wait_for_state(in_wait, "RUNNING_IN_RAY_WAIT").worker_pid > 0
        (child,) = list_tasks(filters=[("name", "=", "CHILD"), ("state", "!=", "FINISHED")])
        assert child.parent_task_id == in_get.task_id().hex()
        queued = wait_for_state(no_room, "PENDING_NODE_ASSIGNMENT")
        wait_until(
            lambda: "CPU (needs 2" in (get_task(no_room).pending_reason or ""), 10, lambda: str(get_task(no_room))
        )
        assert queued.worker_pid is None
        assert "CPU: 1000 needed" in wait_for_state(never, "PENDING_NODE_ASSIGNMENT").pending_reason
    finally:
        Path(path).touch()
        rabbitry.cancel(never)
    assert rabbitry.get([runs, in_get, no_room, in_wait], timeout=20)[-1] == 1
    with pytest.raises(TypeError):
        rabbitry.get(waits)  # a path and a number
    assert wait_for_state(never, "FAILED").error_type == "TASK_CANCELLED"
    assert wait_for_state(waits, "FAILED").error_type == "TASK_EXECUTION_EXCEPTION"
    assert wait_for_state(in_get, "FINISHED").error_type is None


def test_failures_say_what_failed_and_how(session: str):
    failed, crashed = fail.remote(), crash.remote()
    for ref in (failed, crashed):
        with pytest.raises((ValueError, rabbitry.exceptions.WorkerCrashedError)):
            rabbitry.get(ref, timeout=20)
    task = wait_for_state(failed, "FAILED")
    assert task.error_type == "TASK_EXECUTION_EXCEPTION"
    assert "ValueError: this one fails" in task.error_message
    task = wait_for_state(crashed, "FAILED")
    assert task.error_type == "WORKER_DIED"
    pid = task.worker_pid
    if pid is not None:
        assert any(worker.pid == pid and not worker.is_alive for worker in list_workers())


def test_each_attempt_is_listed(session: str, tmp_path: Path):
    mark = str(tmp_path / "tried")

    @rabbitry.remote(num_cpus=0.1, max_retries=1, retry_exceptions=True)
    def once_more() -> int:
        if not os.path.exists(mark):
            Path(mark).touch()
            raise RuntimeError("the first time")
        return 2

    ref = once_more.remote()
    assert rabbitry.get(ref, timeout=20) == 2
    wait_until(lambda: isinstance(get_task(ref), list), 10, lambda: str(get_task(ref)))
    first, second = get_task(ref)
    assert (first.attempt_number, first.state) == (0, "FAILED")
    assert "the first time" in first.error_message
    assert (second.attempt_number, second.state) == (1, "FINISHED")


def test_actors_and_their_calls(session: str, tmp_path: Path):
    counter = Counter.options(name="the counter", namespace="of tests").remote()
    never = Counter.options(num_cpus=1000).remote()
    good, bad = counter.count.remote(), counter.fail.remote()
    assert rabbitry.get(good, timeout=20) == 1
    with pytest.raises(KeyError):
        rabbitry.get(bad, timeout=20)
    # Its process makes results known itself, and its node that it lives: in either order.
    actor_id = counter._actor_id.hex()
    wait_until(lambda: get_actor(actor_id).state == "ALIVE", 10, lambda: str(get_actor(actor_id)))  # type: ignore[union-attr]
    actor = get_actor(actor_id)
    assert actor is not None
    assert (actor.class_name, actor.state, actor.name, actor.ray_namespace) == (
        "Counter",
        "ALIVE",
        "the counter",
        "of tests",
    )
    assert actor.required_resources == {"CPU": 0.1}
    assert actor.node_id == list_nodes()[0].node_id
    waiting = get_actor(never._actor_id.hex())
    assert waiting is not None
    assert waiting.state == "PENDING_CREATION"
    assert "CPU: 1000 needed" in str(waiting.pending_reason)
    call = wait_for_state(bad, "FAILED")
    assert (call.type, call.name, call.actor_id) == ("ACTOR_TASK", "Counter.fail", actor.actor_id)
    path = str(tmp_path / "go")
    first, second = counter.wait.remote(path), counter.count.remote()
    try:
        wait_for_state(first, "RUNNING")
        assert "its actor has it" in str(
            wait_for_state(second, "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY").pending_reason
        )
    finally:
        Path(path).touch()
    rabbitry.get([first, second], timeout=20)
    rabbitry.kill(counter)
    wait_until(lambda: get_actor(actor.actor_id).state == "DEAD", 10, lambda: str(get_actor(actor.actor_id)))  # type: ignore[union-attr]
    dead = get_actor(actor.actor_id)
    assert dead is not None
    assert "kill" in dead.death_cause["actor_died_error_context"]["error_message"]  # type: ignore[index]
    process = one_worker(actor.pid)
    assert get_actor(actor.actor_id).node_id == process.node_id == list_nodes()[0].node_id  # type: ignore[union-attr]
    assert (process.is_alive, process.exit_type, process.exit_detail) == (
        False,
        "INTENDED_SYSTEM_EXIT",
        "its actor was ended",
    )
    names = summarize_actors()["cluster"]["summary"]["Counter"]["state_counts"]
    assert names["DEAD"] >= 1
    assert names["PENDING_CREATION"] == 1
    kinds = {task.type for task in list_tasks(filters=[("actor_id", "=", actor.actor_id)])}
    assert kinds == {"ACTOR_CREATION_TASK", "ACTOR_TASK"}


@pytest.mark.parametrize("kind", [Leaves, LeavesLater])
def test_a_call_that_ends_its_actor_has_not_failed(session: str, kind: Any):
    call = kind.remote().leave.remote()
    with pytest.raises(ActorDiedError, match="exited by itself"):
        rabbitry.get(call, timeout=20)
    assert wait_for_state(call, "FINISHED").error_type is None


def test_nodes_jobs_and_workers(session: str):
    rabbitry.get(add.remote(1, 2))
    (node,) = list_nodes(detail=True)
    assert (node.state, node.is_head_node) == ("ALIVE", True)
    assert node.resources_total["CPU"] == 2.0
    assert get_node(node.node_id) == node
    assert list_nodes()[0].start_time_ms is None  # a column of details
    job_id = rabbitry.get_runtime_context().get_job_id()
    (job,) = list_jobs(filters=[("job_id", "=", job_id)], detail=True)
    assert (job.type, job.status, job.driver_info["pid"]) == ("DRIVER", "RUNNING", str(os.getpid()))
    wait_until(lambda: any(each.is_alive and each.worker_type == "WORKER" for each in list_workers()), 10, list_workers)
    worker = next(each for each in list_workers() if each.is_alive and each.worker_type == "WORKER")
    assert get_worker(worker.worker_id).pid == worker.pid  # type: ignore[union-attr]


def one_worker(pid: int | None) -> Any:
    """Return what is known of a process, once it has ended."""
    found: list[Any] = []

    def ended() -> bool:
        found[:] = [each for each in list_workers(detail=True, limit=10_000) if each.pid == pid]
        return bool(found) and not found[0].is_alive

    wait_until(ended, 10, list_workers)
    return found[0]


def test_a_process_whose_task_is_cancelled_by_force_did_not_fail(session: str, tmp_path: Path):
    ref = wait_for_file.remote(str(tmp_path / "never"))
    pid = wait_for_state(ref, "RUNNING").worker_pid
    rabbitry.cancel(ref, force=True)
    process = one_worker(pid)
    assert (process.exit_type, process.exit_detail) == ("INTENDED_USER_EXIT", "its task was cancelled")
    events = StateApiClient().list(StateResource.CLUSTER_EVENTS, ListApiOptions(limit=10_000), True)
    assert not any(f"process {pid} " in each.message for each in events)


def test_objects_have_sizes(session: str):
    ref = rabbitry.put(bytes(300_000))
    (found,) = get_objects(ref.hex())
    assert found.object_size >= 300_000
    assert found.pid == os.getpid()
    assert any(each.object_id == ref.hex() for each in list_objects(limit=1000))
    assert summarize_objects()["cluster"]["total_size_mb"] > 0.2


def test_functions_are_summed_up(session: str):
    refs = [add.options(name="summed").remote(at, 1) for at in range(20)]
    rabbitry.get(refs)

    def counts() -> Any:
        return summarize_tasks()["cluster"]["summary"].get("summed")

    wait_until(lambda: counts() is not None and counts()["state_counts"] == {"FINISHED": 20}, 10, lambda: str(counts()))


def test_what_has_a_name_says_what_it_runs(session: str):
    counter = Counter.remote()
    refs = [add.options(name="a sum").remote(1, 2), counter.count.options(name="a count").remote()]
    plain = [add.remote(1, 2), counter.count.remote()]
    rabbitry.get([*refs, *plain], timeout=30)
    for ref, expected in zip(
        [*refs, *plain],
        [("a sum", "add"), ("a count", "Counter.count"), ("add", "add"), ("Counter.count", "Counter.count")],
        strict=True,
    ):
        task = wait_for_state(ref, "FINISHED")
        assert (task.name, task.func_or_class_name) == expected
    assert {each.name for each in list_tasks(filters=[("func_or_class_name", "=", "Counter.count")])} >= {"a count"}


def test_an_actor_that_asks_for_nothing_requires_nothing(session: str):
    @rabbitry.remote
    class Idle:
        def ping(self) -> int:
            return 1

    idle = Idle.remote()  # one CPU while it is placed, none while it lives
    rabbitry.get(idle.ping.remote(), timeout=30)
    actor = get_actor(idle._actor_id.hex())
    assert actor is not None and actor.required_resources == {}


def test_filters_and_limits(session: str):
    rabbitry.get([add.options(name="limited").remote(at, 1) for at in range(5)])
    mine: Any = [("name", "=", "limited")]
    wait_until(lambda: len(list_tasks(filters=[*mine, ("state", "=", "FINISHED")])) == 5, 10, lambda: str(list_tasks()))
    assert len(list_tasks(filters=mine, limit=2)) == 2
    assert list_tasks(filters=[*mine, ("attempt_number", "=", "1")]) == []
    assert len(list_tasks(filters=[*mine, ("attempt_number", "=", "0")])) == 5
    assert list_tasks(filters=[*mine, ("name", "!=", "limited")]) == []
    with pytest.raises(RayStateApiException, match="filter column colour is not supported"):
        list_tasks(filters=[("colour", "=", "red")])
    with pytest.raises(ValueError, match="Available predicates: =, !="):
        list_tasks(filters=[("name", "<", "f")])
    with pytest.raises(ValueError, match="wants a value of type int"):
        list_tasks(filters=[("attempt_number", "=", "many")])
    with pytest.raises(RayStateApiException, match="limit"):
        list_tasks(limit=1_000_000)
    with pytest.raises(ValueError, match="limit"):
        list_tasks(limit=-1)
    with pytest.warns(UserWarning, match="nothing is both"):
        assert list_tasks(filters=[("name", "=", "a"), ("name", "=", "b")]) == []


def test_tasks_ask_too(session: str):
    @rabbitry.remote(num_cpus=0.1)
    def running() -> list[str]:
        own = rabbitry.get_runtime_context().get_task_id()
        wait_until(
            lambda: any(task.task_id == own for task in list_tasks(filters=[("state", "=", "RUNNING")])), 10, list_tasks
        )
        return [task.name for task in list_tasks(filters=[("task_id", "=", own)])]

    assert rabbitry.get(running.options(name="asks").remote(), timeout=20) == ["asks"]


def test_nothing_is_told_of_tasks_that_want_that(session: str):
    quiet = add.options(name="quiet", enable_task_events=False)
    rabbitry.get([quiet.remote(at, 1) for at in range(5)])
    rabbitry.get([add.options(name="loud").remote(at, 1) for at in range(5)])
    silent = Counter.options(enable_task_events=False).remote()
    rabbitry.get(silent.count.remote())
    wait_until(
        lambda: len(list_tasks(filters=[("name", "=", "loud"), ("state", "=", "FINISHED")])) == 5, 10, list_tasks
    )
    assert list_tasks(filters=[("name", "=", "quiet")]) == []
    assert list_tasks(filters=[("actor_id", "=", silent._actor_id.hex())]) == []


def test_where_nothing_is_an_address_says_so():
    with pytest.raises((RayStateApiException, rabbitry.exceptions.RabbitryError), match="cannot be re"):
        StateApiClient("unix:///nowhere/at/all").list(StateResource.NODES, ListApiOptions())


def test_the_timeline_has_what_ran_and_what_it_took(session: str, tmp_path: Path):
    first = add.options(name="first").remote(1, 2)
    second = add.options(name="second").remote(first, 3)
    assert rabbitry.get(second, timeout=20) == 6
    wait_for_state(second, "FINISHED")
    path = tmp_path / "trace.json"
    assert rabbitry.timeline(path) is None
    events = json.loads(path.read_text())
    runs = {each["name"]: each for each in events if each["ph"] == "X"}
    assert runs["first"]["ts"] + runs["first"]["dur"] <= runs["second"]["ts"] + 1000
    starts = {each["id"]: each for each in events if each["ph"] == "s"}
    ends = {each["id"]: each for each in events if each["ph"] == "f"}
    assert any(
        ends[each]["ts"] == runs["second"]["ts"] and starts[each]["tid"] == runs["first"]["tid"] for each in starts
    )
    rows = {each["args"]["name"] for each in events if each["name"] == "process_name"}
    assert any(name.startswith("node ") for name in rows)


def test_what_a_task_printed_is_in_a_log(session: str):
    @rabbitry.remote(num_cpus=0.1)
    def speak(text: str) -> None:
        print(text)

    ref = speak.remote("words of a task")
    rabbitry.get(ref, timeout=20)
    node = list_nodes()[0].node_id
    task_id = ref.task_id().hex()

    def words() -> str:
        try:
            return "".join(get_log(task_id=task_id))
        except RayStateApiException:
            return ""  # it is written in a moment

    wait_until(lambda: "words of a task" in words(), 10, words)
    names = [name for each in list_logs(node_id=node).values() for name in each]
    assert names
    assert any("words of a task" in "".join(get_log(node_id=node, filename=name)) for name in names)
    assert isinstance(next(get_log(task_id=task_id, encoding=None)), bytes)
    with pytest.raises(ValueError, match="says which log"):
        get_log(node_id=node)
    with pytest.raises(RayStateApiException, match="no living node"):
        list(get_log(task_id="00" * 24))
