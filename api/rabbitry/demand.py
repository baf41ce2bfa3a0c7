"""What the cluster is asked for beyond what its nodes can take now: what brings nodes, and keeps them.

| demand | where it stands | goes |
|---|---|---|
| queued work | messages on queues of resource classes; what waits on nodes, in their records | as it is taken |
| pending groups | records of placement groups | when they are placed or removed |
| requested resources | the hash `requested`, job -> what it asked for | with its job, or its next call |

`rabbitry status` shows it, `rabbitry autoscale` acts on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from rabbitry.nodes import Caller, read_nodes
from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import encode
from rabbitry_broker.queue_names import QueueKind
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.groups import PENDING, RESCHEDULING, open_group
from rabbitry_broker.store.keys import Keys


class Need(NamedTuple):
    """So many of the same kind.

    Attributes:
        resources: the resource class of one.
        selector: canonical text of its label selector, "" for none.
        number: how many.
    """

    resources: str
    selector: str
    number: int


class GroupNeed(NamedTuple):
    """A placement group that waits.

    Attributes:
        bundles: the resource class and the label selector ("" for none) of each bundle that has no place.
        strategy: "PACK", "SPREAD", "STRICT_PACK" or "STRICT_SPREAD".
    """

    bundles: Sequence[tuple[str, str]]
    strategy: str


@dataclass(frozen=True)
class Demand:
    """What is asked for, and the nodes that there are for it.

    Attributes:
        nodes: records of the living nodes; what they have free is not part of the demand.
        queued: tasks and actors that wait.
        groups: placement groups that wait.
        requested: what jobs asked for by `request_resources`; it counts as a whole, what runs included.
    """

    nodes: Sequence[dict[str, Any]]
    queued: Sequence[Need]
    groups: Sequence[GroupNeed]
    requested: Sequence[Need]

    def to_json(self) -> dict[str, Any]:
        """Return what is asked for, fit for JSON."""
        return {
            "queued": [each._asdict() for each in self.queued],
            "groups": [
                {"strategy": each.strategy, "bundles": [{"resources": r, "selector": s} for r, s in each.bundles]}
                for each in self.groups
            ],
            "requested": [each._asdict() for each in self.requested],
        }


_CONTEXT: Final = b"requested"
_decode: Final = msgspec.msgpack.Decoder(list[tuple[str, str, int]]).decode


def write_request(store: Caller, keys: Keys, signer: Signer, job: bytes, needs: Sequence[Need]) -> None:
    """Write what a job asks for in the place of what it asked for before; nothing for no more."""
    if needs:
        store.call(b"HSET", keys.requested, job, signer.seal(_CONTEXT + job, encode([tuple(each) for each in needs])))
    else:
        store.call(b"HDEL", keys.requested, job)


def read_requests(store: Caller, keys: Keys, signer: Signer) -> list[Need]:
    """Return what all jobs ask for together."""
    total: Counter[tuple[str, str]] = Counter()
    stored = store.call(b"HGETALL", keys.requested)
    for job, sealed in zip(stored[::2], stored[1::2], strict=True):
        try:
            for resources, selector, count in _decode(signer.open(_CONTEXT + job, sealed)):
                ResourceRequest.parse(resources)
                total[resources, selector] += count
        except (RabbitryBrokerError, ValueError, msgspec.MsgspecError):
            continue  # whoever wrote it is no job of ours
    return [Need(*kind, count) for kind, count in total.items()]


def read_groups(store: Caller, keys: Keys, signer: Signer) -> list[GroupNeed]:
    """Return the placement groups that wait for room, each with the bundles that have none."""
    found = []
    for name in store.call(b"SMEMBERS", keys.groups):
        try:
            group_id = bytes.fromhex(name.decode())
            flat = store.call(b"HGETALL", keys.group(group_id))
            group = open_group(signer, group_id, dict(zip(flat[::2], flat[1::2], strict=True)))
        except (RabbitryBrokerError, msgspec.MsgspecError, ValueError, LookupError):
            continue  # it is gone by now, or none of ours
        if group.state in (PENDING, RESCHEDULING):
            bundles = [(group.spec.bundles[index], group.spec.selector(index)) for index in group.missing]
            found.append(GroupNeed(bundles, group.spec.strategy))
    return found


def read_demand(store: Caller, keys: Keys, signer: Signer, depths: Mapping[str, int | None]) -> Demand:
    """Return the demand as it stands now.

    Args:
        store: runs commands on Redis.
        keys: of the cluster.
        signer: of the cluster.
        depths: messages that wait in each queue. One holds a batch of quick tasks, or one long task: it counts as one.
    """
    nodes = [node for node in read_nodes(store, keys, signer) if node["alive"]]
    waiting: Counter[tuple[str, str]] = Counter()
    for queue, depth in depths.items():
        place = names.parse(queue)
        if depth and place.kind is QueueKind.TASK:
            waiting[place.resource_class, place.selector] += depth
    for node in nodes:
        for resources, selector, count in node["waiting"]:
            waiting[resources, selector] += count
    queued = [Need(*kind, count) for kind, count in sorted(waiting.items())]
    return Demand(nodes, queued, read_groups(store, keys, signer), read_requests(store, keys, signer))
