"""One embedded session and many drivers: who joins by which address, what they share, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

import rabbitry
from rabbitry.context import RabbitryContext
from tests.end_to_end.conftest import node_environment

JOINER = """
import sys
import numpy
import rabbitry

address, name = sys.argv[1] or None, sys.argv[2]
try:
    rabbitry.init(address=address or "auto", num_cpus=1)
except ValueError as error:
    assert "num_cpus" in str(error), error
else:
    raise AssertionError("num_cpus was accepted")
with rabbitry.init(address=address, namespace="shared", log_to_driver=False) as context:
    counter = rabbitry.get_actor("counter")

    @rabbitry.remote
    def double(array):
        return 2 * array

    array = rabbitry.get(double.remote(numpy.ones(1_000_000)))
    assert array.sum() == 2_000_000
    rabbitry.get(counter.add.remote(1))

    @rabbitry.remote
    class Named:
        def name(self):
            return name

    named = Named.options(name=name, lifetime="detached").remote()
    rabbitry.get(named.name.remote())
    print(context.address_info["address"])
"""

LEFT_ALONE = """
import time
import rabbitry

rabbitry.init("auto", namespace="shared", log_to_driver=False)

@rabbitry.remote(num_cpus=0)
def sleep():
    time.sleep(600)

ref = sleep.remote()
assert rabbitry.wait([ref], timeout=0.2) == ([], [ref])
print("waiting", flush=True)
for what in (lambda: rabbitry.get(ref), lambda: rabbitry.put(b"x" * 1_000_000), lambda: rabbitry.get(sleep.remote())):
    try:
        what()
    except Exception as error:
        print("error", type(error).__name__, error, flush=True)
rabbitry.shutdown()
print("left")
"""


@rabbitry.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, more: int) -> int:
        self.count += more
        return self.count


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[RabbitryContext]:
    """A session that is the newest one where its children look."""
    for name in ("RABBITRY_ADDRESS", "RAY_ADDRESS", "RABBITRY_BROKER_URL", "RABBITRY_STORE_URL"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        with rabbitry.init(num_cpus=2, namespace="shared", log_to_driver=False) as context:
            yield context


def start(source: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**node_environment(), **variables},
        cwd=tempfile.gettempdir(),
    )


def test_many_drivers_share_a_session(context: RabbitryContext) -> None:
    address = context.address_info["address"]
    counter: Any = Counter.options(name="counter", lifetime="detached").remote()
    ways = {
        "by auto": start(JOINER, "auto", "by auto"),
        "by address": start(JOINER, address, "by address"),
        "by socket": start(JOINER, f"{address}/redis.sock", "by socket"),
        "by variable": start(JOINER, "", "by variable", RABBITRY_ADDRESS=address),
        "by Ray's": start(JOINER, "", "by Ray's", RAY_ADDRESS="auto"),
    }
    for way, driver in ways.items():
        out, err = driver.communicate(timeout=60)
        assert driver.returncode == 0, (way, err)
        assert out.strip().removesuffix("/redis.sock") == address, way
    # They have left: what they detached and what is ours goes on.
    assert rabbitry.get(counter.add.remote(1)) == len(ways) + 1
    for way in ways:
        assert rabbitry.get(rabbitry.get_actor(way).name.remote()) == way
    status = subprocess.run(
        [sys.executable, "-m", "rabbitry_workers", "status"],
        capture_output=True,
        text=True,
        timeout=60,
        env=node_environment(),
        cwd=tempfile.gettempdir(),
    )
    assert status.returncode == 0, status.stderr
    assert status.stdout.startswith("nodes: 1\n")
    assert f"actors: {len(ways) + 1}\n" in status.stdout


def test_the_session_ends_with_its_starter_and_others_are_told(context: RabbitryContext) -> None:
    file = os.path.join(context.address_info["session_dir"], "cluster.json")
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(file)).st_mode & 0o777 == 0o700
    driver = start(LEFT_ALONE)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "waiting\n"
    rabbitry.shutdown()
    out, err = driver.communicate(timeout=40)
    assert driver.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) == 4, out
    assert all(line.startswith("error ") for line in lines[:3])
    assert "the session has ended" in lines[0]
    assert lines[3] == "left"
    assert not os.path.exists(file)
    with pytest.raises(ConnectionError, match="session has ended"):
        rabbitry.init(context.address_info["address"])
