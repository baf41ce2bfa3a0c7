"""Nodes that come, leave and die, on both engines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import NodeDiedError, OwnerDiedError
from rabbitry.util.state import list_cluster_events, list_nodes
from tests.end_to_end.where_work_runs import hold, nap
from tests.servers import wait_until


@rabbitry.remote
def write_down(path: str, word: str) -> None:
    with open(path, "a") as file:
        file.write(f"{word}\n")


@rabbitry.remote(max_retries=0)
def once(directory: str) -> None:
    with open(Path(directory, "runs"), "a") as file:
        file.write("run\n")
    time.sleep(30)


def is_running(process: Path) -> bool:
    """True if there is a process with that directory under /proc, and it is not just waiting to be collected."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_most_urgent_tasks_run_first(start_cluster, tmp_path):
    start_cluster({"num_cpus": 1})
    path = tmp_path / "order"
    # Nodes know from now on that this queue has priorities. What is on its way to one that learns of it, and so pauses
    # the queue, goes back to RabbitMQ as redelivered; and that is looked at a moment later than the rest.
    rabbitry.get(write_down.options(priority=1).remote(str(tmp_path / "before"), "first"), timeout=20)
    held = hold.remote(str(tmp_path), "first")
    wait_until((tmp_path / "first-began").exists, "the node is busy")
    refs = [write_down.remote(str(path), "low") for _ in range(24)]
    time.sleep(0.3)  # they are on the node before the urgent ones come
    refs += [write_down.options(priority=9).remote(str(path), "high") for _ in range(4)]
    refs += [write_down.options(priority=5).remote(str(path), "middle") for _ in range(4)]
    time.sleep(0.3)
    (tmp_path / "go").touch()
    rabbitry.get([held, *refs], timeout=20)
    assert path.read_text().split() == ["high"] * 4 + ["middle"] * 4 + ["low"] * 24


def test_a_node_that_joins_gets_what_waits(start_cluster, tmp_path):
    cluster = start_cluster({"num_cpus": 1})
    held = hold.remote(str(tmp_path), "first")
    wait_until((tmp_path / "first-began").exists, "the node is busy")
    refs = [nap.remote(0.01) for _ in range(30)]
    node = cluster.add_node(num_cpus=1)
    assert set(rabbitry.get(refs, timeout=20)) == {node.node_id}
    (tmp_path / "go").touch()
    rabbitry.get(held, timeout=10)
    assert node.address == node.gcs_address == cluster.address, "programs join by a node's address, too"


def test_a_drained_node_finishes_what_runs_and_hands_back_the_rest(start_cluster, tmp_path):
    cluster = start_cluster({"num_cpus": 1})
    (node,) = cluster.list_all_nodes()
    runs = hold.remote(str(tmp_path), "first")
    wait_until((tmp_path / "first-began").exists, "the node is busy")
    refs = [nap.remote(0.01) for _ in range(30)]
    os.kill(node.pid, signal.SIGTERM)
    other = cluster.add_node(num_cpus=1)
    assert set(rabbitry.get(refs, timeout=20)) == {other.node_id}
    assert node.alive()
    (tmp_path / "go").touch()
    assert rabbitry.get(runs, timeout=10) == node.node_id
    wait_until(lambda: not node.alive(), "the drained node is gone")
    cluster.remove_node(node)
    cluster.wait_for_nodes(1.0)  # it said goodbye: nobody waits for its lease
    told = [(each["NodeID"], each["Alive"], each["DeathReason"], bool(each["Resources"])) for each in rabbitry.nodes()]
    assert told == [(node.node_id, False, 1, False), (other.node_id, True, 0, True)]
    assert rabbitry.cluster_resources()["CPU"] == 1.0
    left, stays = list_nodes(detail=True)
    assert (left.node_id, left.state, left.state_message) == (node.node_id, "DEAD", "It left.")
    assert left.start_time_ms < left.end_time_ms <= time.time() * 1000 + 1000
    assert (stays.node_id, stays.state) == (other.node_id, "ALIVE")
    assert [event.message for event in list_cluster_events() if event.message.endswith("has left.")]


@pytest.mark.long
@pytest.mark.parametrize("seconds", ["0.5", "30"])
def test_a_drain_ends_by_its_limit_or_a_second_signal(start_cluster, tmp_path, seconds):
    cluster = start_cluster({"num_cpus": 1}, environment={"RABBITRY_DRAIN_SECONDS": seconds})
    (node,) = cluster.list_all_nodes()
    ref = hold.remote(str(tmp_path), "first")
    wait_until((tmp_path / "first-began").exists, "the node is busy")
    (tmp_path / "first-began").unlink()
    os.kill(node.pid, signal.SIGTERM)
    if seconds == "30":
        wait_until(lambda: "draining" in node.log.read_text(), "it drains")
        os.kill(node.pid, signal.SIGINT)
    wait_until(lambda: not node.alive(), "the node is gone", 5.0)
    other = cluster.add_node(num_cpus=1)
    wait_until((tmp_path / "first-began").exists, "the task runs again")
    (tmp_path / "go").touch()
    assert rabbitry.get(ref, timeout=10) == other.node_id


def test_a_killed_node_loses_no_task(start_cluster, tmp_path):
    cluster = start_cluster({"num_cpus": 2})
    (node,) = cluster.list_all_nodes()
    runs = [hold.remote(str(tmp_path), str(at)) for at in range(2)]
    wait_until(lambda: len(list(tmp_path.glob("*-began"))) == 2, "the node is busy")
    waiting = [nap.remote(0.01) for _ in range(50)]
    cluster.remove_node(node, allow_graceful=False)
    other = cluster.add_node(num_cpus=2)
    (tmp_path / "go").touch()
    assert set(rabbitry.get(runs + waiting, timeout=25)) == {other.node_id}


@pytest.mark.long
def test_a_node_killed_within_a_chain_loses_no_link(start_cluster, tmp_path):
    cluster = start_cluster({"num_cpus": 1})
    (node,) = cluster.list_all_nodes()
    path = tmp_path / "ran"

    @rabbitry.remote
    def link(value: int, directory: str) -> int:
        with open(Path(directory, "ran"), "a") as file:
            file.write(f"{value}\n")
        if value == 7:
            Path(directory, "pid").write_text(str(os.getpid()))
            Path(directory, "began").touch()
            wait_until(Path(directory, "go").exists, "the test lets go", 30.0)
        return value + 1

    ref = link.remote(0, str(tmp_path))
    for _ in range(11):
        ref = link.remote(ref, str(tmp_path))
    wait_until((tmp_path / "began").exists, "link 7 runs")
    for _ in range(2):  # the node has acknowledged the message that began it all before it runs two more, in turn
        rabbitry.get(nap.options(num_cpus=0).remote(0.02), timeout=20)
    executor = Path("/proc", (tmp_path / "pid").read_text())
    cluster.remove_node(node, allow_graceful=False)
    wait_until(lambda: not is_running(executor), "the executor has ended with its node")
    (tmp_path / "go").touch()
    cluster.add_node(num_cpus=1)
    assert rabbitry.get(ref, timeout=40) == 12
    # What had its result when the node died did not run again.
    assert [int(line) for line in path.read_text().split()] == [*range(8), *range(7, 12)]


@pytest.mark.long
def test_a_task_that_may_run_once_fails_with_its_node(start_cluster, tmp_path):
    cluster = start_cluster({"num_cpus": 1})
    (node,) = cluster.list_all_nodes()
    ref = once.remote(str(tmp_path))
    wait_until((tmp_path / "runs").exists, "it runs")
    cluster.add_node(num_cpus=1)
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises(NodeDiedError):
        rabbitry.get(ref, timeout=25)
    assert (tmp_path / "runs").read_text() == "run\n"


@pytest.mark.long
def test_a_task_that_takes_its_nodes_along_fails_in_the_end(start_cluster, tmp_path):
    cluster = start_cluster({"num_cpus": 1})

    @rabbitry.remote(max_retries=1)
    def begins(directory: str, pid: int) -> None:
        Path(directory, f"{rabbitry.get_runtime_context().get_node_id()}").touch()
        time.sleep(30)

    ref = begins.remote(str(tmp_path), os.getpid())
    for _ in range(2):
        (node,) = cluster.list_all_nodes()
        wait_until((tmp_path / node.node_id).exists, "it runs", 20.0)
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
    with pytest.raises(NodeDiedError, match="max_retries is 1"):
        rabbitry.get(ref, timeout=25)


def test_objects_of_a_killed_driver_become_errors_for_those_who_wait(start_cluster):
    cluster = start_cluster({"num_cpus": 1}, client_lease=5.0)
    program = (
        "import sys, time, rabbitry\n"
        f"rabbitry.init(address={cluster.address!r}, log_to_driver=False)\n"
        "ref = rabbitry.remote(lambda: time.sleep(60)).remote()\n"
        "print(ref.hex(), flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    driver = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert driver.stdout is not None
    ref = rabbitry.ObjectRef.from_hex(driver.stdout.readline().decode().strip())
    driver.kill()
    driver.communicate()
    with pytest.raises(OwnerDiedError):
        rabbitry.get(ref, timeout=30)


@rabbitry.remote(max_retries=1)
def parent(directory: str) -> str:
    """Wait for a task of its own that waits for the test."""
    attempt = Path(directory, f"attempt-of-{current.client().id.hex()}")
    child = hold.remote(directory, attempt.name)
    attempt.touch()
    return rabbitry.get(child)


def test_a_task_whose_process_counts_as_dead_is_run_again(start_cluster, tmp_path):
    start_cluster({"num_cpus": 2}, client_lease=3.0)
    ref = parent.remote(str(tmp_path))

    def attempts() -> list[bytes]:
        return [bytes.fromhex(each.name.rpartition("-")[2]) for each in tmp_path.glob("attempt-of-*[0-9a-f]")]

    wait_until(lambda: len(attempts()) == 1 and len(list(tmp_path.glob("*-began"))) == 1, "it waits for its task")
    # Its lease ended while it could not renew it, and a janitor came.
    for _ in current.client().store.lives.leave(attempts(), current.client().commit_errors):
        pass
    wait_until(lambda: len(attempts()) == 2, "it is run again")
    (tmp_path / "go").touch()
    assert rabbitry.get(ref, timeout=20)


class Opened:
    """An actor that is there when a file is."""

    def __init__(self, directory: Path) -> None:
        (directory / "began").touch()
        wait_until((directory / "go").exists, "the test lets go", 60.0)


def test_an_actor_that_answers_is_alive_whatever_its_node_is_at(start_cluster, tmp_path):
    (node,) = start_cluster({"num_cpus": 1}, node_lease=60.0).list_all_nodes()
    opened = rabbitry.remote(Opened).remote(tmp_path)
    assert opened._get_local_state() == 1
    wait_until((tmp_path / "began").exists, "its process has it")
    os.kill(node.pid, signal.SIGSTOP)
    try:
        (tmp_path / "go").touch()
        creation = opened._rabbitry_creation_ref
        assert rabbitry.wait([creation], timeout=30) == ([creation], [])
        assert opened._get_local_state() == 2
    finally:
        os.kill(node.pid, signal.SIGCONT)
