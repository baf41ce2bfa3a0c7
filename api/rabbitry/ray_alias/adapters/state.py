"""`ray._private.state`: the state of the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rabbitry.cluster import available_resources, cluster_resources, connected, nodes
from rabbitry.ids import PlacementGroupID
from rabbitry.ray_alias.adapters.gcs import GcsClient
from rabbitry.ray_alias.adapters.node_resources import available_resources_per_node, total_resources_per_node

__all__ = [
    "GlobalState",
    "actors",
    "available_resources",
    "available_resources_per_node",
    "cluster_resources",
    "current_node_id",
    "jobs",
    "node_ids",
    "nodes",
    "object_transfer_timeline",
    "state",
    "timeline",
    "total_resources_per_node",
    "workers",
]


def timeline(filename: str | None = None) -> Any:
    """Write a Chrome trace of what ran; see `rabbitry.timeline`."""
    import rabbitry

    return rabbitry.timeline(filename)


def node_ids() -> list[str]:
    """Return the resource `node:<address>` of each living node."""
    return [
        name
        for node in nodes()
        if node["Alive"]
        for name in node["Resources"]
        if name.startswith("node:") and not name.startswith("node:__")
    ]


def current_node_id() -> str:
    """Return the resource `node:<address>` of the node that the calling code is on."""
    from rabbitry.util import get_node_ip_address

    return f"node:{get_node_ip_address()}"


def object_transfer_timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """Return a Chrome trace without entries, or write it: transfers are not recorded, by Ray neither."""
    if filename is None:
        return []
    Path(filename).write_text("[]")
    return None


def workers() -> dict[str, dict[str, str]]:
    """Return, by the ids of living workers, where they are."""
    from rabbitry.util.state import list_workers

    found = list_workers(filters=[("is_alive", "=", True)], limit=10_000, detail=True)
    return {each.worker_id: {"node_ip_address": each.ip or ""} for each in found if each.worker_type == "WORKER"}


def actors(actor_id: str | None = None, job_id: Any = None, actor_state_name: str | None = None) -> dict[str, Any]:
    """Return what is known of one actor, or of all by their ids, with the fields of Ray's table.

    Args:
        actor_id: of one.
        job_id: only those of this job.
        actor_state_name: only those in this state.

    Raises:
        ValueError: no such state, or no id.
    """
    from rabbitry.util.state import get_actor, list_actors

    places = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes()}
    if actor_id is not None:
        found = get_actor(actor_id)
        return {} if found is None else _actor(found, places)
    wanted: list[tuple[str, str, Any]] = [("state", "=", actor_state_name)] if actor_state_name is not None else []
    if job_id is not None:
        wanted.append(("job_id", "=", job_id.hex()))
    return {each.actor_id: _actor(each, places) for each in list_actors(filters=wanted, limit=10_000, detail=True)}


def _actor(found: Any, places: dict[str, str]) -> dict[str, Any]:
    return {
        "ActorID": found.actor_id,
        "ActorClassName": found.class_name,
        "IsDetached": found.is_detached,
        "Name": found.name,
        "JobID": found.job_id,
        "Address": {"IPAddress": places.get(found.node_id, ""), "Port": 0, "NodeID": found.node_id or ""},
        "State": found.state,
        "NumRestarts": found.num_restarts or 0,
        "DeathCause": found.death_cause,
        "Pid": found.pid or 0,
    }


def jobs() -> list[dict[str, Any]]:
    """Return what is known of the jobs, with the fields of Ray's table."""
    from rabbitry.util.state import list_jobs

    return [
        {
            "JobID": each.job_id,
            "DriverIPAddress": each.driver_info["node_ip_address"] if each.driver_info else "",
            "DriverPid": int(each.driver_info["pid"] or 0) if each.driver_info else 0,
            "StartTime": each.start_time or 0,
            "EndTime": each.end_time or 0,
            "IsDead": each.end_time is not None,
            "Entrypoint": each.entrypoint,
        }
        for each in list_jobs(limit=10_000, detail=True)
        if each.job_id
    ]


class GlobalState:
    """The state of the cluster, as Ray's libraries read it."""

    def get_cluster_config(self) -> None:
        """Return None: how large a cluster may become is not for rabbitry to know."""

    def get_max_resources_from_cluster_config(self) -> None:
        """Return None; see `get_cluster_config`."""

    def get_draining_nodes(self) -> dict[str, int]:
        """Return the nodes that are leaving."""
        return GcsClient().get_draining_nodes()

    def node_table(self) -> list[dict[str, Any]]:
        """Return one dictionary a node."""
        return nodes()

    def actor_table(
        self, actor_id: str | None = None, job_id: Any = None, actor_state_name: str | None = None
    ) -> dict[str, Any]:
        """Return what is known of actors; see `actors`."""
        return actors(actor_id, job_id, actor_state_name)

    def job_table(self) -> list[dict[str, Any]]:
        """Return what is known of jobs; see `jobs`."""
        return jobs()

    def placement_group_table(self, placement_group_id: Any = None) -> dict[str, Any]:
        """Return what is known of placement groups; see `rabbitry.util.placement_group_table`."""
        from rabbitry.util.placement_group import PlacementGroup, placement_group_table

        group = None if placement_group_id is None else PlacementGroup(placement_group_id)
        return placement_group_table(group)

    def get_placement_group_by_name(self, placement_group_name: str, ray_namespace: str) -> dict[str, Any] | None:
        """Return the row that `placement_group_table` has of the living group of that name; None if there is none."""
        found = connected().groups.by_name(ray_namespace, placement_group_name)
        return None if found is None else self.placement_group_table(PlacementGroupID(found))

    def workers(self) -> dict[str, dict[str, str]]:
        """Return where living workers are; see `workers`."""
        return workers()

    def chrome_tracing_dump(self) -> Any:
        """Return a Chrome trace of what ran; see `rabbitry.timeline`."""
        return timeline()

    def chrome_tracing_object_transfer_dump(self) -> list[dict[str, Any]] | None:
        """Return a Chrome trace without entries; see `object_transfer_timeline`."""
        return object_transfer_timeline()

    def total_resources_per_node(self) -> dict[str, dict[str, float]]:
        """Return what each living node has, by its id."""
        return total_resources_per_node()

    def available_resources_per_node(self) -> dict[str, dict[str, float]]:
        """Return what is free on each living node, by its id."""
        return available_resources_per_node()

    def cluster_resources(self) -> dict[str, float]:
        """Return the resources of all living nodes."""
        return cluster_resources()

    def available_resources(self) -> dict[str, float]:
        """Return what is free."""
        return available_resources()

    def _check_connected(self) -> None:
        nodes()


state = GlobalState()
