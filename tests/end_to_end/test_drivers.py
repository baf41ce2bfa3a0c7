"""How drivers pause and end, on both engines."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster_utils import Cluster
from tests.end_to_end.conftest import StartCluster, node_environment
from tests.end_to_end.where_work_runs import nap
from tests.servers import wait_until

LEASE = 3.0
GRACE_SECONDS = 20.0  # far less than a lease that nobody shortens

PROGRAM = """
import os, signal, sys, time, rabbitry
address, directory = sys.argv[1:]
rabbitry.init(address=address, log_to_driver=False)

@rabbitry.remote(num_cpus=0)
class Counter:
    def __init__(self): self.count = 0
    def add(self): self.count += 1; return self.count

@rabbitry.remote
def hold(directory): open(os.path.join(directory, "began"), "w").close(); time.sleep(300)

@rabbitry.remote(num_cpus=0)
def give(value): return value

counter = Counter.remote()
put, result, large = rabbitry.put("put"), give.remote(1), give.remote(bytes(300_000))
rabbitry.get([counter.add.remote(), result])
busy = [hold.remote(directory), hold.remote(directory)]
while not os.path.exists(os.path.join(directory, "began")): time.sleep(0.02)
print("ready", flush=True)
for line in sys.stdin:
    found = rabbitry.get([counter.add.remote(), put, result, large])
    print(*found[:3], len(found[3]), flush=True)
"""


@contextmanager
def a_driver(cluster: Cluster, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a driver of its own, whose task has the only CPU, and another one waits for it."""
    directory.mkdir()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", PROGRAM, cluster.address, str(directory)]
    driver = subprocess.Popen(command, env=node_environment(), **pipes)
    assert driver.stdout is not None
    try:
        assert driver.stdout.readline() == "ready\n"
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def is_free(cluster: Cluster) -> None:
    """Check that the CPU is given to somebody else soon."""
    rabbitry.get(nap.remote(0), timeout=GRACE_SECONDS)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_stopped_driver_finds_all_it_had(start_cluster: StartCluster, tmp_path: Path):
    cluster = start_cluster({"num_cpus": 1}, client_lease=LEASE)
    with a_driver(cluster, tmp_path / "driver") as driver:
        assert driver.stdin is not None and driver.stdout is not None
        driver.send_signal(signal.SIGSTOP)
        time.sleep(2 * LEASE)
        driver.send_signal(signal.SIGCONT)
        driver.stdin.write("\n")
        driver.stdin.flush()
        assert driver.stdout.readline() == "2 put 1 300000\n"
        driver.send_signal(signal.SIGSTOP)
        driver.kill()
        is_free(cluster)


@pytest.mark.timeout(120)
def test_the_work_of_a_driver_that_ended_makes_way(start_cluster: StartCluster, tmp_path: Path):
    cluster = start_cluster({"num_cpus": 1}, client_lease=300.0)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with a_driver(cluster, tmp_path / number.name) as driver:
            driver.send_signal(number)
            assert driver.wait(GRACE_SECONDS) == (143 if number == signal.SIGTERM else -number)
            is_free(cluster)


@pytest.mark.timeout(120)
def test_a_driver_that_was_taken_for_dead_goes_on(start_cluster: StartCluster):
    start_cluster({"num_cpus": 1})
    client = current.client()
    store, keys = client.store, client.keys
    double = rabbitry.remote(lambda value: 2 * value)
    assert rabbitry.get(double.remote(1)) == 2
    store.call(b"DEL", *[keys.function(digest) for digest in client.exports._exported])
    for _ in store.lives.leave([client.id], lambda object_ids: None):
        pass
    store.end_job(client.job)
    wait_until(lambda: store.call(b"EXISTS", keys.job(client.job)), "its job is on record again")
    assert client.counted_dead
    assert rabbitry.get(double.remote(2), timeout=GRACE_SECONDS) == 4

    treble = rabbitry.remote(lambda value: 3 * value)
    treble._state.make_plan(client)
    store.call(b"DEL", *[keys.function(digest) for digest in client.exports._exported])
    with pytest.raises(Exception, match=r"not in the store any more.* Submit it again"):
        rabbitry.get(treble.remote(1), timeout=GRACE_SECONDS)


HANDLERS = {
    "the system's": ("", 143),
    "the program's, set before": ("signal.signal(signal.SIGTERM, handler); start()", 7),
    "the program's, set after": ("start(); signal.signal(signal.SIGTERM, handler)", 7),
    "the system's again after shutdown": ("start(); rabbitry.shutdown()", -15),
    "the system's in a forked child": ("start(); pid = os.fork(); pid and (os.waitpid(pid, 0), os._exit(0))", 0),
}


@pytest.mark.timeout(120)
def test_sigterm_goes_to_the_programs_handler_or_says_goodbye():
    head = (
        "import os, signal, sys, time, rabbitry\n"
        "def handler(*_): sys.exit(7)\n"
        "def start(): rabbitry.init(num_cpus=1, log_to_driver=False)\n"
    )
    tail = (
        "\ntry:\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)\nfinally:\n    print('finally', flush=True)\n"
    )
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", head + (body or "start()") + tail],
            env=node_environment(), stdout=subprocess.PIPE, text=True,
        )
        for name, (body, _) in HANDLERS.items()
    }  # fmt: skip
    for name, (_, code) in HANDLERS.items():
        output = processes[name].communicate(timeout=60)[0]
        assert processes[name].returncode == code, name
        assert (output == "finally\n") == (code > 0), name


DETACHED_PROGRAM = """
import sys, rabbitry
rabbitry.init(address=sys.argv[1], namespace="theirs", log_to_driver=False)

def facts():
    import os, besides
    return besides.VALUE, os.getcwd(), rabbitry.get_runtime_context().namespace

@rabbitry.remote(num_cpus=0)
class Child:
    facts = staticmethod(facts)

@rabbitry.remote(num_cpus=0)
class Detached:
    def by_a_task(self):
        return rabbitry.get(rabbitry.remote(num_cpus=0)(facts).remote())

    def by_an_actor(self):
        Child.options(name="child", lifetime="detached").remote()
        return rabbitry.get(rabbitry.get_actor("child").facts.remote())

@rabbitry.remote(num_cpus=0, lifetime="detached")
def late(started, go):
    import os, time
    open(started, "w").close()
    while not os.path.exists(go):
        time.sleep(0.02)
    return rabbitry.get(rabbitry.remote(num_cpus=0)(facts).remote())

@rabbitry.remote(num_cpus=0)
class Keeper:
    def take(self, refs):
        self.refs = refs
    def get(self):
        return rabbitry.get(self.refs[0])

if sys.argv[2] == "actor":
    rabbitry.get(Detached.options(name="detached", lifetime="detached").remote().__ray_ready__.remote())
else:
    keeper = Keeper.options(name="keeper", lifetime="detached").remote()
    rabbitry.get(keeper.take.remote([late.remote(*sys.argv[3:])]))
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["actor", "task"])
def test_what_detached_work_makes_is_of_its_job_when_the_driver_has_left(
    start_cluster: StartCluster, tmp_path: Path, kind: str
):
    cluster = start_cluster({"num_cpus": 1})
    (tmp_path / "besides.py").write_text("VALUE = 'besides'")
    script, started, go = tmp_path / "driver.py", tmp_path / "started", tmp_path / "go"
    script.write_text(DETACHED_PROGRAM)
    command = [sys.executable, str(script), cluster.address, kind, str(started), str(go)]
    subprocess.run(command, cwd=tmp_path, env=node_environment(), check=True, timeout=60)
    client = current.client()
    wait_until(lambda: client.store.call(b"ZCARD", client.keys.jobs) == 1, "the driver has left")
    expected = ("besides", str(tmp_path), "theirs")
    if kind == "task":
        wait_until(started.exists, "the task runs")
        go.touch()
        keeper = rabbitry.get_actor("keeper", namespace="theirs")
        assert rabbitry.get(keeper.get.remote(), timeout=30) == expected
        return
    actor = rabbitry.get_actor("detached", namespace="theirs")
    assert rabbitry.get(actor.by_a_task.remote(), timeout=30) == expected
    assert rabbitry.get(actor.by_an_actor.remote(), timeout=30) == expected
    assert rabbitry.get_actor("child", namespace="theirs") is not None
