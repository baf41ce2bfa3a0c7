"""`ray._private.internal_api`: what is known of memory."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

from rabbitry import current
from rabbitry.calls import free as free
from rabbitry.cluster import node_records


def get_state_from_address(address: str | None = None) -> Any:
    """Return what `get_memory_info_reply` wants: the session of this process says which cluster is meant."""
    return None


def get_memory_info_reply(state: Any = None, *_: Any) -> Any:
    """Return the figures of the object stores of all nodes, as an object with the fields of Ray's.

    What was spilled is counted by each process for itself, not for the cluster: those figures are 0.
    """
    records = [record for record in node_records(current.client()) if record["alive"]]
    total = sum(record["objects"][0] for record in records)
    free_bytes = sum(record["objects"][1] for record in records)
    zeros = dict.fromkeys(
        (
            "spill_time_total_s",
            "spilled_bytes_total",
            "spilled_objects_total",
            "restore_time_total_s",
            "restored_bytes_total",
            "restored_objects_total",
            "cumulative_created_bytes",
            "cumulative_created_objects",
            "num_local_objects",
            "object_pulls_queued",
        ),
        0,
    )
    used = total - free_bytes
    return SimpleNamespace(
        store_stats=SimpleNamespace(
            object_store_bytes_used=used,
            object_store_bytes_avail=total,
            object_store_bytes_primary_copy=used,
            **zeros,
        )
    )


MAX_MESSAGE_LENGTH: Final = 512 * 1024 * 1024


def node_stats(
    node_manager_address: str | None = None, node_manager_port: int | None = None, include_memory_info: bool = True
) -> Any:
    """Return the figures of the object stores of all nodes, as `get_memory_info_reply` does.

    Args:
        node_manager_address: ignored: no node listens on a port; the session says which cluster is meant.
        node_manager_port: ignored, too.
        include_memory_info: ignored: what single processes hold is told by `ray.util.state.list_objects`.
    """
    reply = get_memory_info_reply()
    reply.core_workers_stats = []
    return reply


def store_stats_summary(reply: Any) -> str:
    """Return the figures of `node_stats` in one line."""
    stats = reply.store_stats
    return f"objects take {stats.object_store_bytes_used} of {stats.object_store_bytes_avail} bytes"


def get_local_ongoing_lineage_reconstruction_tasks() -> Sequence[tuple[Any, int]]:
    """Return nothing: results outlive their nodes, and are not computed anew."""
    return ()


def memory_summary(*_: Any, **__: Any) -> str:
    """Return how much memory objects take, in one line."""
    return store_stats_summary(get_memory_info_reply())


def global_gc() -> None:
    """Collect garbage in this process: refs count for themselves in others."""
    import gc

    gc.collect()
