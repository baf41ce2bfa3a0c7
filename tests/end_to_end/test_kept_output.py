"""What tasks and actors print is kept on the nodes, and read from elsewhere; errors of crashes quote it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError, WorkerCrashedError
from rabbitry.state.errors import RayStateApiException
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rabbitry.util.state import get_log, list_logs
from rabbitry_workers.cli import main
from tests.end_to_end.conftest import node_environment
from tests.servers import wait_until

TIMEOUT = 30


@rabbitry.remote(max_retries=0)
def speak(word, crash=""):
    print(word)
    print(f"{word} aside", file=sys.stderr)
    if crash:
        print("about to die", end="")
        if crash == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        import ctypes

        ctypes.string_at(0)
    return rabbitry.get_runtime_context().get_task_id()


@rabbitry.remote(num_cpus=0)
class Speaker:
    def speak(self, word):
        print(word)
        return rabbitry.get_runtime_context().get_actor_id()

    def die(self):
        print("last words", end="")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def command(capfd):
    """Run `rabbitry logs` in this process; what else was printed is left out."""

    def run(address, *arguments):
        capfd.readouterr()
        code = main(["logs", *arguments, "--address", address])
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return run


def test_output_is_found_by_task_actor_and_job_from_outside(start_cluster, command):
    cluster = start_cluster({"num_cpus": 1, "name": "alpha"}, {"num_cpus": 1, "name": "beta"})
    nodes = cluster.list_all_nodes()
    refs = [
        speak.options(scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[at % 2].node_id, soft=False)).remote(
            f"word {at}"
        )
        for at in range(4)
    ]
    ids = rabbitry.get(refs, timeout=TIMEOUT)
    actor = Speaker.remote()
    actor_id = rabbitry.get(actor.speak.remote("from an actor"), timeout=TIMEOUT)
    job = rabbitry.get_runtime_context().get_job_id()

    def shown(*arguments):
        code, out, err = command(cluster.address, *arguments)
        assert code == 0, err
        return out, err

    wait_until(lambda: "word 3" in command(cluster.address, "task", "--id", ids[3])[1], "it is in the file")
    for at in range(4):
        out, err = shown("task", "--id", ids[at])
        assert out == f"word {at}\n"
        assert f"word {at} aside\n" in err
        assert f"word {(at + 1) % 4} aside\n" not in err
    assert shown("actor", "--id", actor_id)[0] == "from an actor\n"
    out, err = shown("job", "--id", job)
    assert sorted(out.splitlines()) == ["from an actor", *(f"word {at}" for at in range(4))]
    listed = shown()[0]
    assert "alpha" in listed
    assert "beta" in listed
    assert listed.count("worker_out") == 3
    of_alpha = shown("worker-*.out", "--node", "alpha", "--tail", "1")[0].splitlines()
    assert "word 2" in of_alpha
    assert "word 3" not in of_alpha
    code, _, err = command(cluster.address, "task", "--id", "ff" * 24)
    assert code == 1
    assert "no living node has output of task" in err


def kept(**which):
    """Return what is in a log; "" as long as there is none: what was printed comes to its file a moment later."""
    try:
        return "".join(get_log(**which))
    except RayStateApiException:
        return ""


def test_the_state_api_has_it_too(session):
    first, second = rabbitry.get([speak.remote("één"), speak.remote("two")], timeout=TIMEOUT)
    actor = Speaker.remote()
    actor_id = rabbitry.get(actor.speak.remote("\x1b[31mred\x1b[0m"), timeout=TIMEOUT)
    wait_until(lambda: list_logs().get("worker_out"), "there are files")
    wait_until(lambda: kept(task_id=first) == "één\n", "it is in the file")
    wait_until(lambda: kept(task_id=second, suffix="err") == "two aside\n", "it is in the other file")
    assert b"".join(get_log(task_id=first, encoding=None)) == "één\n".encode()
    wait_until(lambda: kept(actor_id=actor_id, filter_ansi_code=True) == "red\n", "it is in the actor's file")
    node = rabbitry.nodes()[0]["NodeID"]
    (name,) = [
        each
        for each in list_logs(node_id=node, glob_filter="*.out")["worker_out"]
        if "31mred" in "".join(get_log(node_id=node, filename=each))
    ]
    assert "".join(get_log(node_id=node, filename=name, tail=1)) == "\x1b[31mred\x1b[0m\n"
    follower = get_log(actor_id=actor_id, follow=True)
    assert next(follower) == "\x1b[31mred\x1b[0m\n"
    rabbitry.get(actor.speak.remote("more"), timeout=TIMEOUT)
    assert next(follower) == "more\n"
    follower.close()
    with pytest.raises(RayStateApiException, match="no living node has that log"):
        list(get_log(task_id="ff" * 24))
    with pytest.raises(RayStateApiException, match="no living node has the id or address 'beta'"):
        list_logs(node_id="beta")
    with pytest.raises(ValueError, match="says on which node"):
        list(get_log(filename="x"))


def test_a_file_is_followed(start_cluster):
    cluster = start_cluster({"num_cpus": 1})
    actor = Speaker.remote()
    actor_id = rabbitry.get(actor.speak.remote("one"), timeout=TIMEOUT)
    follower = subprocess.Popen(
        [sys.executable, "-m", "rabbitry_workers", "logs", "actor", "--id", actor_id, "--follow",
         "--address", cluster.address],
        env=node_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "one\n"
        rabbitry.get(actor.speak.remote("two"), timeout=TIMEOUT)
        assert follower.stdout.readline() == "two\n"
    finally:
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130


@pytest.mark.parametrize("crash", ["kill", "segv"])
def test_the_error_of_a_crash_quotes_what_was_printed_last(session, crash):
    with pytest.raises(WorkerCrashedError) as caught:
        rabbitry.get(speak.remote("good morning", crash), timeout=TIMEOUT)
    told = str(caught.value)
    for line in ("    good morning\n", "    good morning aside\n", "    about to die\n"):
        assert line in told
    assert ("Segmentation fault" in told) is (crash == "segv")
    assert "rabbitry_workers/executor" not in told
    assert "rabbitry logs task --id " in told


def test_the_error_of_a_dead_actor_quotes_it_too(session):
    actor = Speaker.remote()
    with pytest.raises(ActorDiedError) as caught:
        rabbitry.get(actor.die.remote(), timeout=TIMEOUT)
    assert "\n    last words\n" in str(caught.value)
    assert "rabbitry logs worker --pid " in str(caught.value)


PROGRAM = """
import os, sys
import rabbitry as ray
ray.init(num_cpus=1)
@ray.remote(max_retries=0)
def speak(die):
    print("kept")
    os._exit(die)
try:
    ray.get(speak.remote({die}))
except Exception: pass
"""


def test_an_embedded_session_leaves_files_only_after_a_crash(tmp_path: Path):
    def run(program: str) -> set[str]:
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60, capture_output=True)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and list(tmp_path.glob("node-*")) == [] and "os._exit" in program:
            time.sleep(0.02)
        return {path.suffix for path in tmp_path.glob("node-*/worker-*")}

    environment = {**node_environment(), "RABBITRY_LOG_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    assert run(PROGRAM.replace("os._exit(die)", "return").format(die=1)) == set()
    assert run(PROGRAM.format(die=1)) == {".out"}
    ended = subprocess.run(
        [sys.executable, "-m", "rabbitry_workers", "logs", "worker-*", "--ended"],
        env=environment, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "kept\n")
