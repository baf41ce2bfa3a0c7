"""Summaries by function and by lineage, and why something waits."""

from __future__ import annotations

from typing import Any

from rabbitry.state.schemas import DRIVER_TASK_ID_PREFIX
from rabbitry.state.summaries import by_class, by_function, by_lineage, of_objects
from rabbitry.state.tasks import Task
from rabbitry.state.waiting import Reasons
from rabbitry_broker.queue_names import actor_queue, bundle_queue, node_queue, task_queue

DRIVER = DRIVER_TASK_ID_PREFIX + "01020304"


def row(task_id: str, name: str = "f", *, parent: str = DRIVER, state: str = "FINISHED", **more: Any) -> dict[str, Any]:
    kind = "ACTOR_TASK" if more.get("actor_id") else "NORMAL_TASK"
    return {
        "task_id": task_id,
        "name": name,
        "func_or_class_name": name,
        "type": kind,
        "state": state,
        "parent_task_id": parent,
        "actor_id": None,
        "creation_time_ms": 1,
        **more,
    }


def test_functions_are_counted_by_state():
    summary = by_function([row("1"), row("2"), row("3", state="FAILED"), row("4", "g", actor_id="a")])
    assert summary["summary"]["f"]["state_counts"] == {"FINISHED": 2, "FAILED": 1}
    assert (summary["total_tasks"], summary["total_actor_tasks"]) == (3, 1)


def test_lineage_puts_children_below_their_parents_and_those_of_one_name_together():
    rows = [row("1", "outer"), *[row(f"2{at}", "inner", parent="1", state="RUNNING") for at in range(3)]]
    (top,) = by_lineage(rows, [])["summary"]
    assert (top["name"], top["state_counts"]) == ("outer", {"FINISHED": 1, "RUNNING": 3})
    (group,) = top["children"]
    assert (group["name"], group["type"], group["state_counts"]) == ("inner", "GROUP", {"RUNNING": 3})
    assert {child["link"]["id"] for child in group["children"]} == {"20", "21", "22"}


def test_calls_stand_below_their_actor():
    rows = [
        row("1", "A.__init__", actor_id="aa", type="ACTOR_CREATION_TASK"),
        row("2", "A.m", actor_id="aa"),
        row("3", "A.m", actor_id="aa"),
    ]
    (top,) = by_lineage(rows, [{"actor_id": "aa", "repr_name": "", "class_name": "A"}])["summary"]
    assert (top["name"], top["type"], top["key"]) == ("A", "ACTOR", "actor:aa")
    assert top["state_counts"] == {"FINISHED": 3}


def test_a_long_chain_of_parents_is_no_trouble():
    rows = [row("0")] + [row(str(at), f"f{at}", parent=str(at - 1)) for at in range(1, 3000)]
    (top,) = by_lineage(rows, [])["summary"]
    assert top["state_counts"] == {"FINISHED": 3000}


def test_a_parent_that_is_not_known_any_more_hides_nothing():
    assert [each["key"] for each in by_lineage([row("1", parent="gone")], [])["summary"]] == ["1"]


def test_actors_and_objects_are_counted():
    actors = [{"class_name": "A", "state": "ALIVE"}, {"class_name": "A", "state": "DEAD"}]
    assert by_class(actors)["summary"]["A"]["state_counts"] == {"ALIVE": 1, "DEAD": 1}
    objects = [
        {
            "call_site": "disabled",
            "object_size": 1 << 20,
            "ip": "127.0.0.1",
            "pid": 1,
            "task_status": "NIL",
            "attempt_number": 1,
            "reference_type": "LOCAL_REFERENCE",
        }
    ] * 2
    summary = of_objects(objects)
    assert (summary["total_objects"], summary["total_size_mb"]) == (2, 2.0)
    assert summary["summary"]["disabled"]["total_num_workers"] == 1


def node(name: str, *, cpus: float = 2.0, free: float = 2.0, **labels: str) -> dict[str, Any]:
    return {
        "id": name.encode() * 28,
        "name": name,
        "alive": True,
        "totals": {"CPU": cpus},
        "available": {"CPU": free},
        "labels": labels,
    }


def test_why_a_task_waits_for_room():
    reasons = Reasons([node("a", free=0.0), node("b", free=0.5)], {}, {})
    assert reasons.for_room("CPU=1", task_queue("CPU=1")) == (
        "waits for room on any of 2 nodes that could run it: CPU (needs 1, free at most 0.5)"
    )
    assert "CPU: 4 needed, at most 2 on one node" in reasons.for_room("CPU=4", task_queue("CPU=4"))
    assert "no node has the labels" in reasons.for_room("CPU=1", task_queue("CPU=1", "zone=x"))
    assert "which is not alive" in reasons.for_room("CPU=1", node_queue(b"z" * 28))
    assert "CPU (needs 1, free at most 0)" in reasons.for_room("CPU=1", node_queue(b"a" * 28))
    assert reasons.for_room("CPU=0.5", task_queue("CPU=0.5")).endswith("has room, and will take it")
    assert "bundle 1 of placement group 67" in reasons.for_room("CPU=1", bundle_queue(b"g", 1))
    assert "in any bundle of placement" in reasons.for_room("CPU=1", bundle_queue(b"g", -1))
    assert "one of the bundles 1, 3 of placement group 67" in reasons.for_room("CPU=1", bundle_queue(b"g", -1, [1, 3]))
    assert Reasons([], {}, {}).for_room("CPU=1", task_queue("CPU=1")) == "no node is alive"


def test_why_a_call_waits_for_its_actor():
    queue = actor_queue(b"a" * 16)
    actor = (b"a" * 16).hex()
    for state, words in (
        ("ALIVE", "in its actor's queue"),
        ("RESTARTING", "being restarted"),
        ("PENDING", "no process yet"),
        ("DEAD", "is dead"),
    ):
        assert words in Reasons([], {}, {actor: state}).for_room("", queue)


def test_why_a_task_waits_for_arguments():
    first, second = Task(b"1" * 24), Task(b"2" * 24)
    waits = Task(b"3" * 24)
    waits.needs = (first.id, second.id, b"4" * 24)
    second.attempt(0).state = "FINISHED"
    reasons = Reasons([], {each.id: each for each in (first, second)}, {})
    assert reasons.for_arguments(waits) == f"waits for results of a task ({first.id.hex()})"
