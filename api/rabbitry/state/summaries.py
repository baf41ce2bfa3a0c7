"""Summaries of tasks, actors and objects, in the form that Ray gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rabbitry.state.schemas import DRIVER_TASK_ID_PREFIX

Row = dict[str, Any]

_RUNNING = ("RUNNING", "RUNNING_IN_RAY_GET", "RUNNING_IN_RAY_WAIT")
_PENDING = ("PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "PENDING_OBJ_STORE_MEM_AVAIL", "PENDING_ARGS_FETCH")


def _totals(tasks: Sequence[Row]) -> Row:
    kinds = Counter(task["type"] for task in tasks)
    return {
        "total_tasks": kinds["NORMAL_TASK"],
        "total_actor_tasks": kinds["ACTOR_TASK"],
        "total_actor_scheduled": kinds["ACTOR_CREATION_TASK"],
    }


def by_function(tasks: Sequence[Row]) -> Row:
    """Return how many tasks of each function are in which state.

    Args:
        tasks: rows, see `TaskState`.
    """
    summary: dict[str, Row] = {}
    for task in tasks:
        name = task["name"] or task["func_or_class_name"]
        entry = summary.setdefault(name, {"func_or_class_name": name, "type": task["type"], "state_counts": {}})
        counts = entry["state_counts"]
        counts[task["state"]] = counts.get(task["state"], 0) + 1
    return {"summary": summary, **_totals(tasks), "summary_by": "func_name"}


class _Group:
    """What stands together in a summary by lineage: a task, an actor, or children of one name."""

    def __init__(self, name: str, key: str, kind: str, begun: float | None, link: Row | None = None) -> None:
        self.name = name
        self.key = key
        self.kind = kind
        self.begun = begun
        self.link = link
        self.counts: Counter[str] = Counter()
        self.children: list[_Group] = []


def by_lineage(tasks: Sequence[Row], actors: Sequence[Row]) -> Row:
    """Return tasks below the tasks and actors that they belong to; those of one name and one parent stand together.

    Args:
        tasks: rows, see `TaskState`.
        actors: rows, see `ActorState`.
    """
    groups: dict[str, _Group] = {}
    parents: dict[str, str] = {}
    classes = {actor["actor_id"]: actor["repr_name"] or actor["class_name"] for actor in actors}
    for task in sorted(tasks, key=lambda task: task["creation_time_ms"] or 0):
        key = task["task_id"]
        group = groups.get(key)
        if group is None:
            link = {"type": "task", "id": key}
            group = groups[key] = _Group(task["name"], key, task["type"], task["creation_time_ms"], link)
        group.counts[task["state"]] += 1
        parents[key] = task["parent_task_id"]
        actor = task["actor_id"]
        if actor:
            of_actor = f"actor:{actor}"
            if of_actor not in groups:
                name = classes.get(actor) or task["name"].partition(".")[0]
                link = {"type": "actor", "id": actor}
                groups[of_actor] = _Group(name, of_actor, "ACTOR", task["creation_time_ms"], link)
            if task["type"] == "ACTOR_CREATION_TASK":
                parents[of_actor] = task["parent_task_id"]
            parents[key] = of_actor
    top: list[_Group] = []
    for key, group in groups.items():
        parent = parents.get(key, "")
        above = groups.get(parent)
        # What has a parent that is not known any more stands at the top.
        (top if above is None or parent.startswith(DRIVER_TASK_ID_PREFIX) else above.children).append(group)
    return {"summary": [_shown(each) for each in _sorted(_merged(top))], **_totals(tasks), "summary_by": "lineage"}


def _merged(groups: list[_Group]) -> list[_Group]:
    """Return groups in which those of one name are one, with them as its children; counts go up, from the leaves."""
    done: list[_Group] = []
    pending: list[tuple[_Group, bool]] = [(each, False) for each in groups]
    while pending:  # not by recursion: a chain of tasks may be of any length
        group, ready = pending.pop()
        if not ready:
            pending.append((group, True))
            pending += [(each, False) for each in group.children]
            continue
        group.children = _sorted(_together(group.children))
        for child in group.children:
            group.counts.update(child.counts)
        done.append(group)
    return _together(groups)


def _together(groups: list[_Group]) -> list[_Group]:
    named: dict[str, list[_Group]] = {}
    for group in groups:
        named.setdefault(group.name, []).append(group)
    found: list[_Group] = []
    for name, same in named.items():
        if len(same) == 1:
            found += same
            continue
        begun = min((each.begun for each in same if each.begun is not None), default=None)
        together = _Group(name, name, "GROUP", begun)
        together.children = _sorted(same)
        for each in same:
            together.counts.update(each.counts)
        found.append(together)
    return found


def _sorted(groups: list[_Group]) -> list[_Group]:
    def rank(group: _Group) -> tuple[Any, ...]:
        running = sum(group.counts[state] for state in _RUNNING)
        pending = sum(group.counts[state] for state in _PENDING)
        begun = group.begun if group.begun is not None else float("inf")
        return (-running, -pending, -group.counts["FAILED"], begun, group.kind != "ACTOR_CREATION_TASK")

    return sorted(groups, key=rank)


def _shown(top: _Group) -> Row:
    """Return a group as a dictionary, with its children."""
    made: dict[int, Row] = {}
    order: list[_Group] = []
    pending = [top]
    while pending:
        group = pending.pop()
        order.append(group)
        pending += group.children
    for group in reversed(order):
        made[id(group)] = {
            "name": group.name,
            "key": group.key,
            "type": group.kind,
            "timestamp": group.begun,
            "state_counts": dict(group.counts),
            "children": [made[id(child)] for child in group.children],
            "link": group.link,
        }
    return made[id(top)]


def by_class(actors: Sequence[Row]) -> Row:
    """Return how many actors of each class are in which state.

    Args:
        actors: rows, see `ActorState`.
    """
    summary: dict[str, Row] = {}
    for actor in actors:
        name = actor["class_name"]
        counts = summary.setdefault(name, {"class_name": name, "state_counts": {}})["state_counts"]
        counts[actor["state"]] = counts.get(actor["state"], 0) + 1
    return {"summary": summary, "total_actors": len(actors), "summary_by": "class"}


def of_objects(objects: Sequence[Row]) -> Row:
    """Return how many objects there are, and of which size; call sites are not recorded, so all are one entry.

    Args:
        objects: rows, see `ObjectState`.
    """
    summary: dict[str, Row] = {}
    owners: dict[str, set[Any]] = {}
    for each in objects:
        site = each["call_site"]
        entry = summary.setdefault(
            site,
            {
                "total_objects": 0,
                "total_size_mb": 0.0,
                "total_num_workers": 0,
                "total_num_nodes": 0,
                "task_state_counts": {},
                "task_attempt_number_counts": {},
                "ref_type_counts": {},
            },
        )
        entry["total_objects"] += 1
        entry["total_size_mb"] += each["object_size"] / 1024**2
        owners.setdefault(site, set()).add((each["ip"], each["pid"]))
        for name, value in (
            ("task_state_counts", each["task_status"]),
            ("task_attempt_number_counts", str(each["attempt_number"])),
            ("ref_type_counts", each["reference_type"]),
        ):
            entry[name][value] = entry[name].get(value, 0) + 1
    for site, who in owners.items():
        summary[site]["total_num_workers"] = len(who)
        summary[site]["total_num_nodes"] = len({ip for ip, _ in who})
    return {
        "summary": summary,
        "total_objects": len(objects),
        "total_size_mb": sum(each["object_size"] for each in objects) / 1024**2,
        "callsite_enabled": False,
        "summary_by": "callsite",
    }
