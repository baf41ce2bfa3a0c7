"""Where work runs in a cluster of five nodes: what nodes have by themselves, labels, strategies; on both engines."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.cluster_utils import Cluster, ClusterNode
from rabbitry.exceptions import TaskUnschedulableError
from rabbitry.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)
from tests.end_to_end.where_work_runs import hold, nap, where
from tests.servers import wait_until

HEAD = "node:__internal_head__"
ZONES = "abcde"

Five = dict[str, ClusterNode]


@rabbitry.remote
class Resident:
    def node(self) -> str:
        return str(rabbitry.get_runtime_context().get_node_id())


@rabbitry.remote(num_cpus=0)
def address() -> str:
    return str(rabbitry.util.get_node_ip_address())


@pytest.fixture(scope="module")
def five(engine_arguments: dict[str, Any]) -> Iterator[Five]:
    """Five nodes by their zone, one CPU each; d and e have a GPU as well, e is at another address."""
    with Cluster(**engine_arguments) as cluster:
        nodes = {
            zone: cluster.add_node(
                num_cpus=1,
                num_gpus=int(zone in "de"),
                labels={"zone": zone, **({"disk": "ssd"} if zone in "ab" else {})},
                name=zone if zone != "a" else None,
                **({"node_ip_address": "192.0.2.55"} if zone == "e" else {}),
            )
            for zone in ZONES
        }
        cluster.connect(log_to_driver=False)
        cluster.wait_for_nodes(60)
        yield nodes


def on(node: ClusterNode, function: Any = where, *, soft: bool = False, **flags: bool) -> Any:
    return function.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=soft, **flags))


def by_labels(hard: Any, function: Any = where, **soft: Any) -> Any:
    return function.options(scheduling_strategy=NodeLabelSchedulingStrategy(hard, **soft))


def zone_of(five: Five, node_id: str) -> str:
    return next(zone for zone, node in five.items() if node.node_id == node_id)


def zones(five: Five, function: Any, count: int = 1) -> set[str]:
    return {zone_of(five, each) for each in rabbitry.get([function.remote() for _ in range(count)], timeout=30)}


# -- what nodes have by themselves -------------------------------------------------------------------------------------


def test_nodes_say_what_rays_say(five: Five):
    found = {each["NodeID"]: each for each in rabbitry.nodes()}
    here = rabbitry.util.get_node_ip_address()
    a, b, e = (found[five[zone].node_id] for zone in "abe")
    assert set(a) == {
        "NodeID", "Alive", "alive", "NodeManagerAddress", "NodeManagerHostname", "NodeManagerPort", "NodeName",
        "ObjectManagerPort", "ObjectStoreSocketName", "RayletSocketName", "MetricsExportPort", "MetricsAgentPort",
        "DashboardAgentListenPort", "RuntimeEnvAgentPort", "DeathReason", "DeathReasonMessage", "Resources", "Labels",
    }  # fmt: skip
    assert (a["NodeManagerAddress"], a["NodeName"], b["NodeName"]) == (here, here, "b")
    assert (e["NodeManagerAddress"], e["Resources"]["node:192.0.2.55"]) == ("192.0.2.55", 1.0)
    assert a["NodeManagerHostname"] == socket.gethostname()
    assert a["Labels"] == {"ray.io/node-id": five["a"].node_id, "zone": "a", "disk": "ssd"}
    assert (a["Resources"][f"node:{here}"], a["Resources"][HEAD]) == (1.0, 1.0)
    assert sum(HEAD in each["Resources"] for each in found.values()) == 1


def test_nodes_that_share_an_address_have_its_resource_one_each(five: Five):
    here = rabbitry.util.get_node_ip_address()
    assert rabbitry.cluster_resources()[f"node:{here}"] == 4.0
    assert rabbitry.cluster_resources()[HEAD] == 1.0
    at_home = nap.options(num_cpus=1, resources={f"node:{here}": 0.001})
    ran = Counter(rabbitry.get([at_home.remote(0.2) for _ in range(12)], timeout=30))
    assert five["e"].node_id not in ran and len(ran) > 1
    away = where.options(num_cpus=0, resources={"node:192.0.2.55": 0.001})
    assert zones(five, away, 3) == {"e"}
    assert rabbitry.get(address.options(resources={"node:192.0.2.55": 0.5}).remote(), timeout=20) == "192.0.2.55"
    assert rabbitry.get(on(five["a"], address).remote(), timeout=20) == here


def test_tasks_and_actors_that_ask_for_the_head_run_there(five: Five):
    asks = {HEAD: 0.001}
    assert zones(five, where.options(num_cpus=0, resources=asks), 5) == {"a"}
    actor = Resident.options(resources=asks).remote()
    assert zone_of(five, rabbitry.get(actor.node.remote(), timeout=20)) == "a"
    rabbitry.kill(actor)


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"zone": "c"}, "c"),
        ({"zone": "!a", "disk": "ssd"}, "b"),
        ({"zone": "in(b,c)"}, "bc"),
        ({"zone": "!in(a,b,c)"}, "de"),
    ],
)
def test_label_selectors(five: Five, selector: dict[str, str], expected: str):
    assert zones(five, where.options(label_selector=selector), 4) <= set(expected)
    actor = Resident.options(label_selector=selector).remote()
    assert zone_of(five, rabbitry.get(actor.node.remote(), timeout=20)) in expected
    rabbitry.kill(actor)


def test_the_id_of_a_node_is_a_label(five: Five):
    chosen = where.options(label_selector={"ray.io/node-id": five["d"].node_id})
    assert zones(five, chosen, 2) == {"d"}


@pytest.mark.parametrize(
    ("hard", "expected"),
    [
        ({"zone": In("b", "nowhere")}, "b"),
        ({"disk": Exists(), "zone": NotIn("a")}, "b"),
        ({"disk": DoesNotExist(), "zone": NotIn("d", "e")}, "c"),
    ],
)
def test_label_strategies(five: Five, hard: Any, expected: str):
    assert zones(five, by_labels(hard), 2) == set(expected)


def test_a_fallback_runs_where_the_first_choice_has_no_room_or_is_not_there(five: Five, tmp_path: Path):
    missing = [{"label_selector": {"zone": "nowhere"}}, {"label_selector": {"zone": "d"}}]
    assert zones(five, where.options(label_selector={"zone": "mars"}, fallback_strategy=missing), 2) == {"d"}
    prefers = where.options(label_selector={"zone": "b"}, fallback_strategy=[{"label_selector": {"zone": "c"}}])
    wait_until(lambda: zones(five, prefers) == {"b"}, "the first choice has room, and that is known")
    held = on(five["b"], hold).remote(str(tmp_path), "b")
    wait_until((tmp_path / "b-began").exists, "the first choice is busy")
    assert zones(five, prefers, 2) == {"c"}
    (tmp_path / "go").touch()
    rabbitry.get(held, timeout=20)


# -- strategies --------------------------------------------------------------------------------------------------------


def test_spread_uses_all_nodes_and_default_any(five: Five):
    spread = nap.options(scheduling_strategy="SPREAD", num_cpus=0.1)
    assert len(set(rabbitry.get([spread.remote(0.3) for _ in range(10)], timeout=30))) >= 4
    actors = [Resident.options(scheduling_strategy="SPREAD", num_cpus=0.1).remote() for _ in range(5)]
    assert len(set(rabbitry.get([each.node.remote() for each in actors], timeout=30))) >= 4
    for actor in actors:
        rabbitry.kill(actor)
    assert rabbitry.get(where.options(scheduling_strategy="DEFAULT").remote(), timeout=20)


def test_affinity_to_each_of_five_nodes(five: Five):
    for zone, node in five.items():
        assert zones(five, on(node), 2) == {zone}
        assert zones(five, on(node, soft=True)) == {zone}


def test_affinity_spills_only_if_asked_to(five: Five, tmp_path: Path):
    held = on(five["c"], hold).remote(str(tmp_path), "c")
    wait_until((tmp_path / "c-began").exists, "the node is busy")
    waits = on(five["c"], soft=True).remote()
    assert zones(five, on(five["c"], soft=True, _spill_on_unavailable=True), 2) <= set("abde")
    with pytest.raises(TaskUnschedulableError, match="no room"):
        rabbitry.get(on(five["c"], _fail_on_unavailable=True).remote(), timeout=20)
    assert rabbitry.wait([waits], timeout=0.3) == ([], [waits])
    (tmp_path / "go").touch()
    assert rabbitry.get([held, waits], timeout=20) == [five["c"].node_id] * 2


def test_soft_affinity_to_a_node_that_could_never_run_it_runs_elsewhere(five: Five):
    with_gpu = where.options(num_gpus=1)
    assert zones(five, on(five["a"], with_gpu, soft=True), 2) <= set("de")
    with pytest.raises(TaskUnschedulableError, match="GPU"):
        rabbitry.get(on(five["a"], with_gpu).remote(), timeout=20)
