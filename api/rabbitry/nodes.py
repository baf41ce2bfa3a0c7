"""The nodes on record, and what they could run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from rabbitry.labels import check_labels, matches, why_unmatched
from rabbitry_broker.ids import NODE_BYTES
from rabbitry_broker.implicit import NODE_ID_LABEL, implicit_labels, with_implicit
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.living import open_record


class Caller(Protocol):
    """A connection to Redis, or what has one."""

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply."""


def read_nodes(store: Caller, keys: Keys, signer: Signer) -> list[dict[str, Any]]:
    """Return the records of all nodes on record, oldest first, with `alive` added.

    Args:
        store: runs the commands.
        keys: of the cluster.
        signer: of the cluster.
    """
    stored = store.call(b"HGETALL", keys.nodes)
    ids = stored[::2]
    if not ids:
        return []
    records = []
    living = store.call(b"MGET", *[keys.node(each) for each in ids])
    for node, last, now in zip(ids, stored[1::2], living, strict=True):
        record = open_record(signer, node, now or last)
        if record is not None:
            records.append({**record, "alive": now is not None})
    return sorted(records, key=lambda record: float(record["started"]))


def read_nodes_and_left(store: Caller, keys: Keys, signer: Signer) -> list[dict[str, Any]]:
    """Return the records of nodes on record and of those that said goodbye lately, oldest first.

    The latter have `left` added: when that was, in seconds since 1970. One whose work is still to be seen to is on
    record, too, and is listed once.

    Args:
        store: runs the commands.
        keys: of the cluster.
        signer: of the cluster.
    """
    found = {record["id"]: record for record in read_nodes(store, keys, signer)}
    flat = store.call(b"ZRANGE", keys.left_nodes, 0, -1, b"WITHSCORES")
    for member, microseconds in zip(flat[::2], flat[1::2], strict=True):
        node = member[:NODE_BYTES]
        record = open_record(signer, node, member[NODE_BYTES:])
        if record is not None:
            found[node] = {**record, "alive": False, "left": float(microseconds) / 1e6}
    return sorted(found.values(), key=lambda record: float(record["started"]))


def implicit(totals: dict[str, float], labels: Mapping[str, str], address: str | None = None) -> dict[str, Any]:
    """Return `totals`, `labels` and `address` of a node on this machine, with what it has without being told.

    Args:
        totals: what it was told to offer, by name.
        labels: those that its user set, checked.
        address: of the machine; None for what the system says.

    Raises:
        ValueError: `address` is none, or a label that the environment sets is none.
    """
    # Not at the top: drivers that join a cluster need none of the detection.
    from rabbitry.util.node_address import checked_address, find_address
    from rabbitry_broker.machine import accelerator_type

    address = find_address() if address is None else checked_address(address)
    kind = accelerator_type()
    given = check_labels(implicit_labels(totals, kind, os.environ))
    return {
        "totals": with_implicit(totals, address, kind),
        "labels": {**given, **labels},
        "address": address,
    }


def labels_of(node: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a node's record, with those that every node has."""
    return {NODE_ID_LABEL: node["id"].hex(), **node["labels"]}


def name_of(node: dict[str, Any]) -> str:
    """Return what a node's record says that people call it; if that is only its host's name, its address, as in Ray."""
    name: str = node["name"]
    return name if name != node["hostname"] else node["address"]


def totals_of(node: Mapping[str, Any]) -> ResourceRequest:
    """Return what a node has when nothing runs, by its record."""
    return _request_of(tuple(node["totals"].items()))


@lru_cache(maxsize=256)
def _request_of(amounts: tuple[tuple[str, float], ...]) -> ResourceRequest:
    # A node with hundreds of resources is asked about for each of hundreds of queues.
    return ResourceRequest.from_floats(dict(amounts))


def could_run(node: dict[str, Any], request: ResourceRequest, selector: str = "") -> bool:
    """Return True if a node has what a task needs when nothing else runs, and fitting labels.

    Args:
        node: its record.
        request: what the task needs.
        selector: canonical text of a label selector, "" for none.
    """
    return request.fits_in(totals_of(node)) and matches(selector, labels_of(node))


def why_infeasible(request: ResourceRequest, selector: str, living: Sequence[Mapping[str, Any]]) -> str:
    """Return what keeps every node from ever running something, for a person to read; "" if one could.

    Of resources it says how much is needed, and the most that one node has; of labels, which there are instead.

    Args:
        request: what it needs.
        selector: canonical text of the label selector that its node must satisfy, "" for none.
        living: the records of the nodes that are alive.
    """
    if not living:
        return "the cluster has no node"
    fitting = [node for node in living if matches(selector, labels_of(node))]
    if not fitting:
        return why_unmatched(selector, [labels_of(node) for node in living])
    missing = request.missing_from([totals_of(node) for node in fitting])
    if missing and selector:
        missing += f" (among the {len(fitting)} of {len(living)} nodes whose labels fit)"
    return missing


def why_group_infeasible(bundles: Sequence[tuple[str, str]], strategy: str, living: Sequence[Mapping[str, Any]]) -> str:
    """Return what keeps a placement group from ever being placed on these nodes, "" if nothing that is easy to see.

    Args:
        bundles: the resource class and the label selector ("" for none) of each bundle.
        strategy: of the group.
        living: the records of the nodes that are alive.
    """
    if strategy == "STRICT_PACK":
        together: dict[str, int] = {}
        for resources, _ in bundles:
            for name, units in ResourceRequest.parse(resources).units:
                together[name] = together.get(name, 0) + units
        selector = ";".join(sorted({part for _, each in bundles for part in each.split(";") if part}))
        return why_infeasible(ResourceRequest.from_units(together), selector, living)
    for resources, selector in dict.fromkeys(bundles):
        why = why_infeasible(ResourceRequest.parse(resources), selector, living)
        if why:
            return why
    if strategy == "STRICT_SPREAD" and len(bundles) > len(living):
        return f"{len(bundles)} bundles on a node each, and {len(living)} nodes live"
    return ""
