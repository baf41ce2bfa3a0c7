"""The commands that look at a cluster and those that act on it, on both engines."""

from __future__ import annotations

import json
import re
import time

import pytest
import yaml

import rabbitry
from rabbitry import current
from rabbitry.exceptions import ActorDiedError, TaskCancelledError
from rabbitry_workers.cli import main
from tests.servers import wait_until

TIMEOUT = 30


@pytest.fixture
def line(start_cluster, capfd, monkeypatch):
    """Run a command on a cluster of one node, in this process or (acting ones) in another."""
    cluster = start_cluster({"num_cpus": 1, "name": "alpha"})

    def run(*arguments, code=0):
        capfd.readouterr()
        assert main([*arguments, "--address", cluster.address]) == code
        shown = capfd.readouterr()
        return shown.out if code == 0 else shown.err

    run.cluster = cluster
    return run


@pytest.fixture
def outside(start_cluster, line):
    """Run a command that joins as a driver of its own, in a process of its own."""
    import subprocess
    import sys

    from tests.end_to_end.conftest import node_environment

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "rabbitry_workers", *arguments, "--address", line.cluster.address],
            env=node_environment(), capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


@rabbitry.remote
def wait(path):
    (path / "begun").touch()
    while not (path / "go").exists():
        time.sleep(0.02)
    return "done"


@rabbitry.remote(num_cpus=0)
class Named:
    def ready(self):
        return True


def test_what_runs_and_waits_is_listed_and_stacks_are_shown(line, tmp_path):
    running = wait.remote(tmp_path)
    wait_until((tmp_path / "begun").exists, "it runs")
    waiting = [wait.remote(tmp_path) for _ in range(3)]
    current.client().outbox.flush()
    actor = Named.options(name="ann", namespace="home").remote()
    rabbitry.get(actor.ready.remote(), timeout=TIMEOUT)

    def tasks(*arguments):
        return json.loads(line("list", "tasks", "--format", "json", *arguments))

    wait_until(lambda: len(tasks("-f", "state=RUNNING", "-f", "name=wait")) == 1, "one is shown as running")
    assert len(tasks("-f", "name=wait")) == 4
    assert tasks("-f", "name=wait", "-f", "state=RUNNING")[0]["task_id"] == running.hex()[:48]
    table = line("list", "tasks", "-f", "name=wait", "--limit", "2").splitlines()
    assert table[0].startswith("TASK_ID")
    assert len(table) == 3
    (ann,) = yaml.safe_load(line("list", "actors", "--format", "yaml", "-f", "name=ann"))
    shown = yaml.safe_load(line("get", "actors", ann["actor_id"]))
    assert (shown["state"], shown["ray_namespace"]) == ("ALIVE", "home")
    assert "no such thing" in line("get", "actors", "ff" * 16, code=1)
    assert "Supported filter columns" in line("list", "tasks", "-f", "nix=1", code=1)
    counts = json.loads(line("summary", "tasks", "--format", "json"))["summary"]["wait"]["state_counts"]
    assert counts["RUNNING"] == 1
    assert sum(counts.values()) == 4

    assert re.fullmatch(r"tasks: .*\b\d RUNNING.*", line("status").splitlines()[-1])

    value = rabbitry.put(b"x" * 300_000)
    current.client().flush_puts()
    wait_until(lambda: value.hex() in line("memory", "--units", "KB"), "the object is shown")
    stacks = line("stack")
    assert "runs wait" in stacks
    assert "test_looking_and_acting.py" in stacks
    assert "actor Named" in stacks
    trace = tmp_path / "trace.json"
    assert str(trace) in line("timeline", "--output", str(trace))
    assert any(event.get("name") == "wait" for event in json.loads(trace.read_text()))
    (tmp_path / "go").touch()
    assert rabbitry.get([running, *waiting], timeout=TIMEOUT) == ["done"] * 4


def test_a_task_is_cancelled_and_an_actor_killed_from_outside(line, outside, tmp_path):
    ref = wait.remote(tmp_path)
    wait_until((tmp_path / "begun").exists, "it runs")
    actor = Named.options(name="ann", namespace="home").remote()
    rabbitry.get(actor.ready.remote(), timeout=TIMEOUT)
    asked = outside("cancel", ref.hex()[:48])
    assert (asked.returncode, "say --yes" in asked.stderr) == (1, True)
    assert not rabbitry.wait([ref], timeout=0.1)[0]
    assert "cancelled" in outside("cancel", ref.hex()[:48], "--yes").stdout
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=TIMEOUT)

    assert "no living actors are called 'bob'" in outside("kill-actor", "--name", "bob", "--yes").stderr
    assert "was killed" in outside("kill-actor", "--name", "ann", "--yes").stdout
    with pytest.raises(ActorDiedError, match="rabbitry kill-actor"):
        rabbitry.get(actor.ready.remote(), timeout=TIMEOUT)
    assert "no id of a task" in outside("cancel", "beef", "--yes").stderr


def test_what_waits_in_a_queue_is_thrown_away_only_when_that_is_confirmed(line, tmp_path):
    lost = [rabbitry.remote(num_cpus=1, resources={"nowhere": 1})(Named.ready).remote(None) for _ in range(5)]
    current.client().outbox.flush()

    def waits():
        depths = json.loads(line("queues", "list", "--format", "json"))
        return next((queue for queue, depth in depths.items() if "nowhere" in queue and depth), "")

    wait_until(waits, "they wait")
    queue = waits()
    assert "say --yes" in line("queues", "purge", queue, code=1)
    assert "Did you mean" in line("queues", "purge", queue[:-1], "--yes", code=1)
    assert "messages were thrown away" in line("queues", "purge", queue, "--yes")
    assert not waits()
    assert not rabbitry.wait(lost, timeout=0.1)[0]


def test_a_node_is_drained(line):
    assert "asked to leave" in line("drain", "alpha", "--wait", "20")
    assert "no living node is called 'alpha'" in line("drain", "alpha", code=1)
