"""Several jobs on one cluster: none waits behind the backlog of another, and each gets its share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import rabbitry
from rabbitry import current
from rabbitry.util import placement_group, remove_placement_group
from rabbitry_broker import queue_names as names
from tests.end_to_end.conftest import node_environment
from tests.end_to_end.waiting import wait_until

DRIVER = """
import json
import os
import sys
import time

import rabbitry

rabbitry.init(address=sys.argv[1], log_to_driver=False)
count, gate = int(sys.argv[2]), sys.argv[3]


@rabbitry.remote
def work(gate):
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
    time.sleep(0.005)
    return time.time()


@rabbitry.remote
def nested():
    return rabbitry.get(work.remote(""))


rabbitry.get([work.remote(""), nested.remote()])
print("ready", flush=True)
sys.stdin.readline()
refs = [work.remote(gate) for _ in range(count)]
rabbitry.wait(refs, timeout=0)
print("begun", flush=True)
ended = rabbitry.get(refs) if gate else [rabbitry.get(work.remote("")) for _ in range(3)]
print(json.dumps(ended), flush=True)
sys.stdin.readline()
"""


class Driver:
    """A program that submits so many tasks when it is told to begin; without a gate, makes some calls, one by one."""

    def __init__(self, address: str, count: int, share: float, gate: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, address, str(count), gate],
            env={**node_environment(), "RABBITRY_JOB_SHARE": str(share)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def begin(self) -> None:
        """Have it submit its tasks; returns when it has."""
        self.go_on()
        assert self.line() == "begun\n"

    def end(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


@contextmanager
def drivers(*counts: int, gate: str = "", shares: tuple[float, ...] = ()) -> Iterator[list[Driver]]:
    """Start drivers on this session's cluster, beside the driver that this process is."""
    rabbitry.get(work.remote(""))  # so that the common queue is this job's
    address = session_address()
    pairs = zip(counts, shares or [1.0] * len(counts), strict=True)
    started = [Driver(address, count, share, gate) for count, share in pairs]
    try:
        for each in started:
            assert each.line() == "ready\n"
        yield started
    finally:
        for each in started:
            each.end()


@rabbitry.remote
def work(gate: str) -> float:
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
    time.sleep(0.005)
    return time.time()


def session_address() -> str:
    endpoint = current.client().endpoint
    return "auto" if endpoint.broker_url else f"unix://{os.path.dirname(endpoint.store_url.removeprefix('unix://'))}"


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=[pytest.mark.chaos, pytest.mark.timeout(600)])])
def test_three_jobs_with_a_backlog_each_are_served_in_turn(session: str, tmp_path: Path, count: int) -> None:
    gate = tmp_path / "gate"
    with drivers(count, count, gate=str(gate)) as others:
        refs = [work.remote(str(gate)) for _ in range(count)]
        rabbitry.wait(refs, timeout=0)
        for each in others:
            each.begin()
        gate.touch()
        ended = [rabbitry.get(refs), *(json.loads(each.line()) for each in others)]
        first = min(map(max, ended))
        shares = sorted(sum(at <= first for at in times) / count for times in ended)
        assert shares[0] > 0.4, f"when the first was done, others had done {shares[:-1]}"
        assert_own_queues_are_jobs()


def assert_own_queues_are_jobs() -> None:
    """The common queue is this process's; each of the others had one of its own."""
    client = current.client()
    queues = {names.parse(each.decode()) for each in client.store.call(b"SMEMBERS", client.keys.queues)}
    jobs = {each.job for each in queues if each.kind is names.QueueKind.TASK and each.resource_class == "CPU=1"}
    assert b"" in jobs
    assert client.job not in jobs
    assert len(jobs) >= 3


def test_a_job_gets_its_share(session: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with drivers(160, 160, gate=str(gate), shares=(4.0, 1.0)) as others:
        for each in reversed(others):
            each.begin()
        gate.touch()
        large, small = (json.loads(each.line()) for each in others)
        done = sum(at <= max(large) for at in small) / len(small)
        assert 0.05 < done < 0.7, f"when the larger share was done, the smaller had done {done}"


def test_calls_are_answered_beside_a_backlog(session: str) -> None:
    with drivers(0) as (caller,):
        refs = [work.remote("") for _ in range(800)]
        rabbitry.wait(refs, num_returns=20)
        caller.begin()
        assert len(json.loads(caller.line())) == 3
        _, left = rabbitry.wait(refs, num_returns=len(refs), timeout=0)
        assert left, "the calls waited for all of the backlog"
        rabbitry.get(refs)


def test_what_jobs_claimed_and_began_goes_with_them(session: str) -> None:
    client = current.client()
    with drivers(0) as (other,):
        other.begin()
        other.line()
        claimed = client.store.call(b"HVALS", client.keys.claims)
        assert client.job in claimed
    wait_until(lambda: set(client.store.call(b"HVALS", client.keys.claims)) <= {client.job})


@rabbitry.remote
def short() -> None:
    time.sleep(0.02)


@contextmanager
def stream() -> Iterator[list[int]]:
    """Keep the cluster's CPUs busy with small tasks, of which there are always more; how many there were is counted."""
    done: list[int] = [0]
    ends = threading.Event()

    def run() -> None:
        waiting = [short.remote() for _ in range(20)]
        while not ends.is_set():
            ready, waiting = rabbitry.wait(waiting, num_returns=1)
            done[0] += len(ready)
            waiting += [short.remote() for _ in ready]
        rabbitry.get(waiting)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: done[0] > 20)
        yield done
        before = done[0]
        wait_until(lambda: done[0] > before)
    finally:
        ends.set()
        thread.join()


def test_a_placement_group_gets_its_room_from_a_stream_of_small_tasks(session: str) -> None:
    with stream():
        group = placement_group([{"CPU": 2}])
        assert group.wait(30), "small tasks took all that became free"
        remove_placement_group(group)


def test_a_task_that_needs_all_cpus_gets_them_from_a_stream_of_small_ones(session: str) -> None:
    with stream():
        rabbitry.get(short.options(num_cpus=2).remote(), timeout=30)
