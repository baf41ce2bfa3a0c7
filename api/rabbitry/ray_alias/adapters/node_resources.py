"""What each node has, and has free, by its id."""

from __future__ import annotations

from rabbitry.cluster import connected, node_records, resources_of


def total_resources_per_node() -> dict[str, dict[str, float]]:
    """Return `{node id: {resource: amount}}` for all living nodes."""
    return _each("totals")


def available_resources_per_node() -> dict[str, dict[str, float]]:
    """Return what is free on each living node; what is used up is left out."""
    each = _each("available")
    return {node: {name: amount for name, amount in free.items() if amount > 0} for node, free in each.items()}


def _each(field: str) -> dict[str, dict[str, float]]:
    return {record["id"].hex(): resources_of(record, field) for record in node_records(connected()) if record["alive"]}
