"""Nodes come for work that none can take and for what is requested, and leave when they are idle; on both engines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.autoscaler.sdk import request_resources
from rabbitry.cluster_utils import Cluster
from rabbitry.util.placement_group import placement_group, remove_placement_group
from tests.end_to_end import nodes_by_number
from tests.end_to_end.conftest import NODE_LEASE, node_environment
from tests.end_to_end.where_work_runs import hold
from tests.servers import wait_until

PATIENCE = 45.0


def run(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rabbitry_workers", *arguments]


@pytest.fixture
def scaled(engine_arguments: dict[str, Any], tmp_path: Path) -> Iterator[tuple[Cluster, Path]]:
    """A cluster whose nodes a scaler starts and stops: one CPU each, one to three of them."""
    directory = tmp_path / "nodes"
    directory.mkdir()
    script = str(Path(nodes_by_number.__file__))
    with Cluster(node_lease=NODE_LEASE, **engine_arguments) as cluster:
        told = ["--min", "1", "--max", "3", "--idle", "1.5", "--every", "0.3", "--address", cluster.address]
        command = [sys.executable, script, str(directory), cluster.address, "{n}"]
        scaler = subprocess.Popen(run("autoscale", *told, "--", *command), env=node_environment())
        try:
            wait_until(lambda: len(nodes_by_number.living(directory)) == 1, "the first node is started", PATIENCE)
            wait_until(lambda: len(cluster._living()) == 1, "it has joined", PATIENCE)
            cluster.connect(log_to_driver=False)
            yield cluster, directory
        finally:
            scaler.terminate()
            scaler.wait(10)
            rabbitry.shutdown()
            nodes_by_number.end_all(directory)


def cpus() -> float:
    return rabbitry.cluster_resources().get("CPU", 0.0)


def status(address: str) -> dict[str, Any]:
    done = subprocess.run(
        run("status", "--json", "--address", address),
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    return dict(json.loads(done.stdout))


@pytest.mark.long
@pytest.mark.timeout(180)  # processes come and go five times
def test_nodes_come_for_work_and_requests_and_leave_when_idle(scaled: tuple[Cluster, Path], tmp_path: Path):
    cluster, directory = scaled
    held = [hold.remote(str(tmp_path), f"task{at}") for at in range(3)]
    wait_until(lambda: len(list(tmp_path.glob("task*-began"))) == 3, "three nodes run one each", PATIENCE)
    assert cpus() == 3.0
    (tmp_path / "go").touch()
    assert len(set(rabbitry.get(held, timeout=20))) == 3
    request_resources(num_cpus=2)
    wait_until(lambda: cpus() == 2.0, "one was idle, and is gone", PATIENCE)
    wait_until(lambda: (directory / "commands").read_text().split()[-1] == "2", "the command knows", PATIENCE)
    assert status(cluster.address)["demand"] == {
        "queued": [], "groups": [], "requested": [{"resources": "CPU=1", "selector": "", "number": 2}],
    }  # fmt: skip
    request_resources()
    wait_until(lambda: cpus() == 1.0, "another is gone", PATIENCE)
    wait_until(lambda: (directory / "commands").read_text().split() == ["1", "3", "2", "1"], "no more", PATIENCE)
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    assert group.wait(PATIENCE), "a node came for it"
    remove_placement_group(group)
    wait_until(lambda: cpus() == 1.0, "it is gone again", PATIENCE)
    assert rabbitry.get(hold.remote(str(tmp_path), "last"), timeout=20)


@pytest.mark.long
def test_what_a_program_requested_goes_with_it(engine_arguments: dict[str, Any]):
    with Cluster(initialize_head=True, head_node_args={"num_cpus": 1}, **engine_arguments) as cluster:
        cluster.connect(log_to_driver=False)
        request_resources(num_cpus=3, bundles=[{"GPU": 1, "CPU": 2}], bundle_label_selectors=[{"zone": "in(b,a)"}])
        wanted = [("CPU=1", "", 3), ("CPU=2,GPU=1", "zone=in(a,b)", 1)]
        requested = status(cluster.address)["demand"]["requested"]
        assert [tuple(each.values()) for each in requested] == wanted
        shown = subprocess.run(run("status", "--address", cluster.address), env=node_environment(), capture_output=True)
        assert b"requested       1 x CPU=2,GPU=1 on zone=in(a,b)" in shown.stdout
        rabbitry.shutdown()
        assert status(cluster.address)["demand"]["requested"] == []
