"""Where objects are, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rabbitry import cluster, current
from rabbitry.arguments import wrong_type
from rabbitry.exceptions import GetTimeoutError
from rabbitry.object_ref import ObjectRef
from rabbitry_broker.records import LARGE_TAG, read_manifest

if TYPE_CHECKING:
    from rabbitry.client import Client

Locations = dict[ObjectRef[Any], dict[str, Any]]


def get_object_locations(obj_refs: Sequence[ObjectRef[Any]], timeout_ms: int = -1) -> Locations:
    """Return where objects are: `{ref: {"node_ids": [...], "object_size": bytes, "did_spill": False}}`.

    Small values are in Redis and at their owner, at no node: their list is empty. Large ones are in the shared memory
    of their host: its nodes are listed (and in Redis, or a spill file, for all others). What is not there yet has
    no nodes, and None as its size.

    Args:
        obj_refs: refs.
        timeout_ms: milliseconds to wait for the answer of Redis at most; negative: no limit of its own.

    Raises:
        RuntimeError: there is no session.
        GetTimeoutError: no answer in time.
        TypeError: not a sequence of refs.
    """
    client = _session()
    refs = _checked(obj_refs)
    here = _known(client, refs)
    missing = [ref for ref in refs if here[ref] is None]
    if missing:
        import time

        client.send_waiting()
        ids = [ref._id for ref in missing]
        if timeout_ms < 0:
            found = client.store.fetch(ids)
        else:
            deadline = time.monotonic() + timeout_ms / 1000
            with client.store.within(deadline):
                try:
                    found = client.store.fetch(ids)
                except Exception as error:
                    if time.monotonic() < deadline:
                        raise
                    raise GetTimeoutError(f"Redis did not say within {timeout_ms} ms where the objects are.") from error
        here.update(zip(missing, found, strict=True))
    return _described(client, here)


def get_local_object_locations(obj_refs: Sequence[ObjectRef[Any]]) -> Locations:
    """Return what this process knows by itself of where objects are; nobody is asked. See `get_object_locations`.

    Raises:
        RuntimeError: there is no session.
        TypeError: not a sequence of refs.
    """
    client = _session()
    refs = _checked(obj_refs)
    client.inbox.drain()
    return _described(client, _known(client, refs))


def _session() -> Client:
    client = current.peek()
    if client is None:
        raise RuntimeError("There is no session. Call init() first.")
    return client


def _checked(refs: Any) -> list[ObjectRef[Any]]:
    if not isinstance(refs, (list, tuple)) or not all(isinstance(ref, ObjectRef) for ref in refs):
        raise wrong_type("obj_refs", refs, "a list of ObjectRefs")
    return list(dict.fromkeys(refs))


def _known(client: Client, refs: list[ObjectRef[Any]]) -> dict[ObjectRef[Any], bytes | None]:
    values = client.inbox.values
    return {ref: values.get(ref._id) for ref in refs}


def _described(client: Client, found: dict[ObjectRef[Any], bytes | None]) -> Locations:
    nodes: dict[bytes, list[str]] | None = None
    described: Locations = {}
    for ref, record in found.items():
        if record is None:
            size, where = None, []
        elif record[0] == LARGE_TAG:
            manifest = read_manifest(record)
            size = len(manifest.data) + sum(manifest.sizes)
            if nodes is None:
                nodes = _nodes_by_host(client)
            where = nodes.get(manifest.host, [])
        else:
            size, where = len(record) - 1, []
        described[ref] = {"node_ids": where, "object_size": size, "did_spill": False}
    return described


def _nodes_by_host(client: Client) -> dict[bytes, list[str]]:
    """Return the ids of the living nodes of each host. Which nodes there are is asked of Redis, once a call."""
    nodes: dict[bytes, list[str]] = {}
    for record in cluster.node_records(client):
        if record["alive"]:
            nodes.setdefault(record["host"], []).append(record["id"].hex())
    return nodes
