"""The scaler against a cluster in memory, with a clock that the test moves; and a command that really runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rabbitry.demand import Demand, Need
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.resources import HEAD
from rabbitry_workers.autoscale import GONE_SECONDS, HEARD_SECONDS, RETRY_SECONDS, Hands, Scaler, ScalerOptions

COMMAND = ("scale", "worker={n}")


class Cluster:
    """Nodes of two CPUs, started and stopped as the scaler says."""

    def __init__(self, least: int = 1, most: int = 4, **options: Any) -> None:
        self.now = 1000.0
        self.nodes: list[dict[str, Any]] = []
        self.joins = True
        self.works = True
        self.leaves = True
        self.queued: list[Need] = []
        self.requested: list[Need] = []
        self.commands: list[int] = []
        self.retired: list[bytes] = []
        self.number = 0
        told = ScalerOptions(least, most, COMMAND, idle=60.0, **options)
        self.scaler = Scaler(told, self.look, self.start, self.retire, lambda: self.now)

    def look(self) -> Demand:
        return Demand(list(self.nodes), self.queued, [], self.requested)

    def add(self, free: float = 2.0, idle: float = 0.0, **fields: Any) -> dict[str, Any]:
        self.number += 1
        node = {
            "id": bytes([self.number]) * 28, "totals": {"CPU": 2.0}, "available": {"CPU": free}, "labels": {},
            "draining": False, "waiting": [], "idle": idle, "started": float(self.number), **fields,
        }  # fmt: skip
        self.nodes.append(node)
        return node

    def start(self, count: int) -> bool:
        self.commands.append(count)
        while self.works and self.joins and len(self.nodes) < count:
            self.add()
        return self.works

    def retire(self, nodes: Any) -> None:
        self.retired += [node["id"] for node in nodes]
        if self.leaves:
            self.nodes = [node for node in self.nodes if node["id"] not in self.retired]

    def looks(self, times: int = 1, seconds: float = 2.0) -> None:
        for _ in range(times):
            self.scaler.run_once()
            self.now += seconds


def test_there_are_never_less_nodes_than_asked_for():
    cluster = Cluster(least=2)
    cluster.looks(3)
    assert cluster.commands == [2]
    cluster.nodes.pop()
    cluster.looks(2)
    assert cluster.commands == [2], "the one that is missing may still join"
    cluster.looks(1, 200.0)
    cluster.looks(2)
    assert cluster.commands == [2, 2]


def test_work_that_no_node_can_take_brings_nodes_if_it_is_there_at_two_looks():
    cluster = Cluster()
    cluster.add(free=0.0)
    cluster.queued = [Need("CPU=1", "", 3)]
    cluster.looks(1)
    cluster.queued = []
    cluster.looks(3)
    assert cluster.commands == []
    cluster.queued = [Need("CPU=1", "", 3)]
    cluster.looks(5)
    assert cluster.commands == [3]


def test_nodes_on_their_way_are_counted_until_they_should_have_come():
    cluster = Cluster(joining=100.0)
    cluster.add(free=0.0)
    cluster.joins = False
    cluster.queued = [Need("CPU=2", "", 1)]
    cluster.looks(10)
    assert cluster.commands == [2]
    cluster.looks(1, 100.0)
    cluster.looks(3)
    assert cluster.commands == [2, 2]


def test_there_are_never_more_nodes_than_allowed():
    cluster = Cluster(most=3)
    cluster.add(free=0.0)
    cluster.requested = [Need("CPU=1", "", 100)]
    cluster.looks(5)
    assert cluster.commands == [3]


def test_what_no_node_can_ever_take_brings_none(caplog: pytest.LogCaptureFixture):
    cluster = Cluster()
    cluster.add()
    cluster.queued = [Need("CPU=64", "zone=b", 1)]
    cluster.looks(3)
    assert cluster.commands == []
    assert caplog.text.count("CPU=64 with labels zone=b") == 1


def test_idle_nodes_leave_and_then_the_command_knows():
    cluster = Cluster()
    head = cluster.add(idle=100.0, totals={"CPU": 2.0, HEAD: 1.0}, available={"CPU": 2.0, HEAD: 1.0})
    busy, idle, fresh = cluster.add(free=1.0, idle=0.0), cluster.add(idle=70.0), cluster.add(idle=10.0)
    cluster.looks(1)
    assert cluster.retired == [idle["id"], head["id"]]
    assert cluster.commands == []
    cluster.looks(3)
    assert cluster.commands == [2] and cluster.nodes == [busy, fresh]


def test_nodes_that_something_is_requested_for_stay():
    cluster = Cluster()
    for _ in range(4):
        cluster.add(idle=100.0)
    cluster.requested = [Need("CPU=1", "", 5)]
    cluster.looks(4)
    assert (len(cluster.nodes), cluster.commands) == (3, [3])
    cluster.requested = []
    cluster.looks(4)
    assert (len(cluster.nodes), cluster.commands) == (1, [3, 1])


def test_a_node_that_takes_its_time_to_leave_keeps_no_other_from_coming():
    cluster = Cluster(most=4)
    cluster.add(free=0.0)
    leaving = cluster.add(idle=100.0)
    cluster.leaves = False
    cluster.looks(1)
    assert cluster.retired == [leaving["id"]]
    leaving["draining"] = True
    cluster.queued = [Need("CPU=2", "", 1)]
    cluster.looks(2)
    assert cluster.commands == [3], "it is there as well, for now"
    cluster.queued = []
    cluster.nodes.remove(leaving)
    cluster.looks(2)
    assert cluster.commands == [3, 2]


def test_a_node_that_did_not_hear_is_asked_again():
    cluster = Cluster()
    cluster.add(free=0.0)
    cluster.add(idle=100.0)
    cluster.leaves = False
    cluster.looks(1, HEARD_SECONDS)
    cluster.looks(3)
    assert cluster.retired == [bytes([2]) * 28] * 2


def test_a_command_that_fails_is_run_again_after_a_while():
    cluster = Cluster(least=2)
    cluster.works = False
    cluster.looks(4)
    assert cluster.commands == [2]
    cluster.works = True
    cluster.now += RETRY_SECONDS
    cluster.looks(2)
    assert cluster.commands == [2, 2] and len(cluster.nodes) == 2


def test_others_nodes_are_used_but_neither_counted_nor_stopped():
    cluster = Cluster(labels={"pool": "ours"})
    cluster.add(idle=1000.0)
    cluster.add(idle=1000.0)
    ours = cluster.add(idle=1000.0, labels={"pool": "ours"})
    cluster.add(idle=1000.0, labels={"pool": "ours"})
    cluster.queued = [Need("CPU=1", "", 2)]
    cluster.looks(1)
    assert cluster.retired == [bytes([4]) * 28]
    cluster.looks(2)
    assert cluster.commands == [1] and ours in cluster.nodes


@pytest.mark.parametrize(
    "options",
    [
        {"least": 3, "most": 2}, {"least": -1, "most": 2}, {"least": 0, "most": 0}, {"command": ("up",)},
        {"idle": -1.0}, {"every": 0.0}, {"idle": float("nan")},
    ],
)  # fmt: skip
def test_what_cannot_be(options: dict[str, Any]):
    with pytest.raises(ValueError):
        ScalerOptions(**{"least": 1, "most": 2, "command": COMMAND, **options})


def test_the_command_is_run_with_the_number_and_each_node_s_line_with_its_own(tmp_path: Path):
    options = ScalerOptions(
        1, 4, ("sh", "-c", f"echo worker={{n}} >> {tmp_path}/log"), retire=f"echo {{host}} {{pid}} >> {tmp_path}/log"
    )
    hands = Hands(Endpoint("redis://nowhere", None, (b"s" * 32,)), options, 1.0)
    assert hands.start(3)
    hands.retire([{"hostname": "a; rm -rf $HOME", "name": "n", "id": b"i", "pid": 12}])
    assert (tmp_path / "log").read_text() == "worker=3\na; rm -rf $HOME 12\n"
    failing = ScalerOptions(1, 4, ("false", "{n}"))
    assert not Hands(Endpoint("redis://nowhere", None, (b"s" * 32,)), failing, 1.0).start(1)
    missing = ScalerOptions(1, 4, ("no-such-program", "{n}"))
    assert not Hands(Endpoint("redis://nowhere", None, (b"s" * 32,)), missing, 1.0).start(1)


def test_the_command_waits_until_processes_that_said_goodbye_have_ended():
    cluster = Cluster()
    cluster.add(free=0.0)
    cluster.add(idle=100.0)
    cluster.looks(1, 0.5)
    assert len(cluster.nodes) == 1
    cluster.looks(2, 0.5)
    assert cluster.commands == [], "it may count the process of the node that is gone"
    cluster.looks(2, GONE_SECONDS)
    assert cluster.commands == [1]
