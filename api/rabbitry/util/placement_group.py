"""Placement groups: resources reserved together, in bundles, for tasks and actors that belong together.

group = placement_group([{"CPU": 2}, {"CPU": 2}], strategy="SPREAD")
rabbitry.get(group.ready())
f.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0)).remote()
remove_placement_group(group)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rabbitry import current
from rabbitry.arguments import shown, text
from rabbitry.ids import NodeID, PlacementGroupID
from rabbitry.labels import selector_text
from rabbitry.outages import with_public_errors
from rabbitry.runtime_context import current_group, task_context
from rabbitry.scheduling import PlacementGroupSchedulingStrategy
from rabbitry_broker.queue_names import ANY_BUNDLE
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.serialization import pack_in_band
from rabbitry_broker.store.groups import STRATEGIES, Group, GroupSpec

if TYPE_CHECKING:
    from rabbitry.object_ref import ObjectRef

VALID_PLACEMENT_GROUP_STRATEGIES: Final = frozenset(STRATEGIES)

NODE_ID_LABEL_KEY: Final = "ray.io/node-id"
"""In `topology_strategy`, what says how bundles spread over nodes."""

_GPU_DOMAINS: Final = frozenset(("GB200", "GB300"))
_TOLD: Final = 200  # characters of a text in a message
_ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"

__all__ = [
    "NODE_ID_LABEL_KEY",
    "VALID_PLACEMENT_GROUP_STRATEGIES",
    "PlacementGroup",
    "PlacementGroupID",
    "PlacementGroupSchedulingStrategy",
    "check_placement_group_index",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
    "validate_placement_group",
]


class PlacementGroup:
    """A handle on a placement group; it may be pickled, and passed to tasks. Made by `placement_group`.

    Attributes:
        id: of the group.
        bundle_cache: the resources of its bundles, None if they were not looked up yet.
    """

    def __init__(self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None) -> None:
        self.id = id
        self.bundle_cache = bundle_cache

    @staticmethod
    def empty() -> PlacementGroup:
        """Return the handle that names no group."""
        return PlacementGroup(PlacementGroupID.nil())

    @property
    def is_empty(self) -> bool:
        """True if this handle names no group."""
        return self.id.is_nil()

    @with_public_errors
    def ready(self) -> ObjectRef[PlacementGroup]:
        """Return a ref that resolves to this handle once all bundles are reserved.

        It fails with TaskPlacementGroupRemoved if the group is removed before that.
        """
        client = current.client()
        if self.is_empty:
            return client.put(self)
        return client.groups.ready(self.id.binary(), self, pack_in_band(self, "a placement group").data)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait until all bundles are reserved.

        Args:
            timeout_seconds: how long, at most.

        Returns:
            True if they are; False after the time, and for the handle that names no group.

        Raises:
            Exception: the group was removed (Ray's class for this).
        """
        from rabbitry import exceptions, get, wait

        if self.is_empty:
            return False
        ref = self.ready()
        ready, _ = wait([ref], timeout=timeout_seconds)
        if not ready:
            return False
        try:
            get(ref)
        except exceptions.TaskPlacementGroupRemoved:
            raise Exception(f"Placement group {self.id} does not exist.") from None
        return True

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The resources of its bundles.

        Raises:
            KeyError: there is no such group (Ray's class for this).
        """
        if not self.bundle_cache:
            self.bundle_cache = _bundles_of(self.id)
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self.bundle_specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


@with_public_errors
def _bundles_of(group: PlacementGroupID) -> list[dict[str, float]]:
    bundles = None if group.is_nil() else current.client().groups.bundles(group.binary())
    if bundles is None:
        raise KeyError("bundles")
    return [dict(each) for each in bundles]


@with_public_errors
def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Ask for a placement group; it is there when `ready()` resolves.

    All bundles are reserved, or none. Resources of a bundle are taken from its node, and are for what runs inside.

    Args:
        bundles: resources of each, by name, as `CPU`, `GPU`, `memory` (bytes) or custom ones; each has more than 0 of
            something.
        strategy: `PACK` (on few nodes; the default), `SPREAD` (on different nodes as far as there are),
            `STRICT_PACK` (on one node) or `STRICT_SPREAD` (each on another node).
        name: unique among living groups of the namespace, for `get_placement_group`; "" for none.
        lifetime: None: it ends with the job that made it, and with the actor that did; "detached": it lives until it is
            removed.
        _soft_target_node_id: hex id of the node to prefer (with `STRICT_PACK` only).
        bundle_label_selector: what labels the node of each bundle must have.
        topology_strategy: instead of `strategy`: strategy by label. `{"ray.io/node-id": strategy}` is the same; one
            more label with `STRICT_PACK` asks for nodes with the same value of it.

    Raises:
        ValueError: an impossible argument.
        TypeError: a name that is no text.
        RabbitrySystemError: the name is taken.
    """
    validate_placement_group(
        bundles, strategy, lifetime, _soft_target_node_id, bundle_label_selector, topology_strategy
    )
    name = text("the name of a placement group", name) if name else ""
    topology = topology_strategy or {}
    context = task_context()
    actor = context.header.actor if context is not None else b""
    client = current.client()
    spec = GroupSpec(
        bundles=[_class_of(bundle) for bundle in bundles],
        strategy=strategy or topology.get(NODE_ID_LABEL_KEY, "PACK"),
        selectors=[selector_text(each) for each in bundle_label_selector or ()],
        name=name,
        namespace=client.namespace,
        detached=lifetime == "detached",
        job=client.job,
        actor=actor,
        outlives_job=bool(actor) and context is not None and context.detached,
        target=NodeID.from_hex(_soft_target_node_id).binary() if _soft_target_node_id else b"",
        topology=next((label for label in topology if label != NODE_ID_LABEL_KEY), ""),
    )
    group_id, taken = client.groups.create(spec)
    if taken is not None:
        from rabbitry.exceptions import RabbitrySystemError

        raise RabbitrySystemError(
            f"Failed to create placement group '{group_id.hex()}' because name {name!r} already exists."
        )
    floats = [{key: float(amount) for key, amount in bundle.items()} for bundle in bundles]
    client.groups.remember(group_id, floats)
    return PlacementGroup(PlacementGroupID(group_id), bundle_cache=floats)


def _class_of(bundle: Mapping[str, float]) -> str:
    amounts = dict(bundle)
    if "memory" in amounts:
        amounts["memory"] = int(amounts["memory"])
    amounts.pop("object_store_memory", None)  # deprecated: it reserves nothing
    return ResourceRequest.from_floats(amounts).class_name


@with_public_errors
def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Remove a group: what runs inside ends, what waits for it fails, its resources are free again.

    Nothing happens if it is removed already.

    Args:
        placement_group: the group.

    Raises:
        AssertionError: None was given.
        AttributeError: something else than a group was given (Ray's classes for both).
    """
    group = _id_of(placement_group)
    if not group.is_nil():
        current.client().groups.remove(group.binary())


@with_public_errors
def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """Return a handle on the living group of that name in this namespace.

    Raises:
        ValueError: there is none, or the name is empty.
    """
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    client = current.client()
    found = client.groups.by_name(client.namespace, text("the name of a placement group", placement_group_name))
    if found is None:
        raise ValueError(f"Failed to look up placement group with name: {_told(placement_group_name)}")
    return PlacementGroup(PlacementGroupID(found))


def get_current_placement_group() -> PlacementGroup | None:
    """Return the group that the calling task or actor runs in; None outside one, and in drivers."""
    current.client()
    group = current_group().group
    return PlacementGroup(PlacementGroupID(group)) if group else None


@with_public_errors
def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """Return the state of a group, or of all by their ids in hexadecimal.

    Each is a dictionary: `placement_group_id`, `name`, `bundles` (index -> resources), `bundles_to_node_id` (index ->
    hex id of the node, "" for none), `strategy`, `state` (PENDING, PREPARED, CREATED, RESCHEDULING or REMOVED) and
    `stats`: latencies in milliseconds, the number of attempts, and `scheduling_state`, which says why a group waits
    (`NO_RESOURCES`: not enough is free; `INFEASIBLE`: the nodes that there are could never hold it). Groups that were
    removed within the last hour are in it.

    Args:
        placement_group: the group; None for all.

    Raises:
        AttributeError: something else than a group was given.
    """
    client = current.client()
    if placement_group is None:
        return {group.id.hex(): _facts_of(group) for group in client.groups.table(None)}
    group = _id_of(placement_group)
    found = [] if group.is_nil() else client.groups.table(group.binary())
    return _facts_of(found[0]) if found else {}


def _told(value: object) -> str:
    """Return what messages of Ray show without quotes, unless it is long or no text."""
    return value if isinstance(value, str) and len(value) <= _TOLD else shown(value)


def _id_of(placement_group: PlacementGroup) -> PlacementGroupID:
    assert placement_group is not None, "placement_group must be a PlacementGroup, got None."
    if not isinstance(placement_group, PlacementGroup):
        # Ray's class: it asks whatever it is given for its id.
        raise AttributeError(f"placement_group must be a PlacementGroup, got {shown(placement_group)}.")
    return placement_group.id


def _facts_of(group: Group) -> dict[str, Any]:
    spec = group.spec
    latency = max(0.0, group.placed - group.created) * 1000 if group.placed else 0.0
    return {
        "placement_group_id": group.id.hex(),
        "name": spec.name,
        "bundles": {at: ResourceRequest.parse(each).to_floats() for at, each in enumerate(spec.bundles)},
        "bundles_to_node_id": {at: group.held.get(at, b"").hex() for at in range(len(spec.bundles))},
        "strategy": spec.strategy,
        "state": group.state,
        "stats": {
            "end_to_end_creation_latency_ms": round(latency, 3),
            "scheduling_latency_ms": round(latency, 3),
            "scheduling_attempt": group.attempts,
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": group.why,
        },
    }


def check_placement_group_index(placement_group: PlacementGroup, bundle_index: int) -> None:
    """Check the index of a bundle; -1 stands for any.

    Raises:
        ValueError: the group has no such bundle.
    """
    assert placement_group is not None
    if placement_group.is_empty:
        if bundle_index != ANY_BUNDLE:
            raise ValueError("If placement group is not set, the value of bundle index must be -1.")
    elif not ANY_BUNDLE <= bundle_index < placement_group.bundle_count:
        raise ValueError(
            f"placement group bundle index {bundle_index} is invalid. "
            f"Valid placement group indexes: 0-{placement_group.bundle_count}"
        )


def validate_placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> None:
    """Check the arguments of `placement_group`.

    Raises:
        ValueError: one is impossible.
    """
    if topology_strategy is not None and strategy is not None:
        raise ValueError(
            "`strategy` and `topology_strategy` exclude each other. Say how bundles spread over nodes by "
            f"`topology_strategy[{NODE_ID_LABEL_KEY!r}]`."
        )
    if strategy is not None and not (isinstance(strategy, str) and strategy in VALID_PLACEMENT_GROUP_STRATEGIES):
        raise ValueError(
            f"Invalid placement group strategy {_told(strategy)}. Supported strategies are: {', '.join(STRATEGIES)}."
        )
    if topology_strategy is not None:
        _check_topology(topology_strategy)
    spread = (topology_strategy or {}).get(NODE_ID_LABEL_KEY, "PACK") if strategy is None else strategy
    if _soft_target_node_id and spread != "STRICT_PACK":
        raise ValueError(f"_soft_target_node_id currently only works with STRICT_PACK but got {spread}")
    if _soft_target_node_id and NodeID.from_hex(_soft_target_node_id).is_nil():
        raise ValueError(f"Invalid hex ID of _soft_target_node_id, got {_soft_target_node_id}")
    _check_bundles(bundles)
    if bundle_label_selector is not None:
        if len(bundles) != len(bundle_label_selector):
            raise ValueError(
                f"Invalid bundle label selector {bundle_label_selector}. It must have as many entries as there are "
                f"bundles, {len(bundles)}."
            )
        _check_selectors(bundle_label_selector)
    if lifetime not in (None, "detached"):
        raise ValueError(f"Placement group `lifetime` argument must be either `None` or 'detached'. Got {lifetime}.")


def _check_topology(topology: Any) -> None:
    if not isinstance(topology, dict):
        raise ValueError(f"`topology_strategy` must be a dict, got {type(topology).__name__}.")
    if len(topology) > 2:
        raise ValueError(
            f"`topology_strategy` has {len(topology)} entries; it may have {NODE_ID_LABEL_KEY!r} and one more."
        )
    for key, value in topology.items():
        if not isinstance(key, str) or not key:
            raise ValueError(f"`topology_strategy` keys must be non-empty strings, got {key!r}.")
        if value not in VALID_PLACEMENT_GROUP_STRATEGIES:
            raise ValueError(
                f"Invalid topology strategy {value!r} for label {key!r}. "
                f"Supported strategies are: {', '.join(STRATEGIES)}."
            )
        if key != NODE_ID_LABEL_KEY and value != "STRICT_PACK":
            raise ValueError(
                f"Topology strategy {value!r} for label {key!r} is not supported; labels other than "
                f"{NODE_ID_LABEL_KEY!r} take 'STRICT_PACK' alone."
            )
    labels = [key for key in topology if key != NODE_ID_LABEL_KEY]
    if len(labels) > 1:
        raise ValueError(f"`topology_strategy` takes one label besides {NODE_ID_LABEL_KEY!r}. Got {labels}.")


def _check_bundles(bundles: Any) -> None:
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    example = "For example: `[{'CPU': 1.0}, {'GPU': 1.0}]`."
    if not bundles:
        raise ValueError(
            f"Bundles must be a non-empty list of resource dictionaries. {example} Got empty list instead."
        )
    for bundle in bundles:
        if (
            not isinstance(bundle, dict)
            or not all(isinstance(name, str) for name in bundle)
            or not all(isinstance(amount, (int, float)) for amount in bundle.values())
        ):
            raise ValueError(
                f"Bundles must be a non-empty list of resource dictionaries. {example} Got {shown(bundle)} among them."
            )
        if not any(bundle.values()):
            raise ValueError(
                f"Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: {bundles}"
            )
        if "object_store_memory" in bundle:
            warnings.warn(
                "'object_store_memory' in a bundle is deprecated: it reserves nothing. Leave it out.",
                DeprecationWarning,
                stacklevel=4,
            )
        _class_of(bundle)


def _check_selectors(selectors: Any) -> None:
    if not isinstance(selectors, list):
        raise ValueError(f"Placement group bundle_label_selector must be a list, got {type(selectors)}.")
    for selector in selectors:
        if not isinstance(selector, dict) or not all(
            isinstance(key, str) and isinstance(value, str) for key, value in selector.items()
        ):
            raise ValueError(
                "Bundle label selector must be a list of string dictionary label selectors, for example "
                f"`[{{'ray.io/market-type': 'spot'}}]`. Got {shown(selector)} among them."
            )
        try:
            selector_text(selector)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Invalid label selector provided in bundle_label_selector list. Detailed error: '{error}'"
            ) from None
    domain = next(
        (each[_ACCELERATOR_LABEL] for each in selectors if each.get(_ACCELERATOR_LABEL) in _GPU_DOMAINS), None
    )
    for selector in selectors if domain is not None else ():
        if selector.get(_ACCELERATOR_LABEL) != domain:
            raise ValueError(
                f"Invalid bundle label selector {selector}. All bundles of a GPU domain need "
                f"'{_ACCELERATOR_LABEL}: {domain}' in their label selector."
            )


def _valid_resource_shape(resources: Mapping[str, float], bundle_specs: list[dict[str, float]]) -> bool:
    """Return True if one of some bundles has all that is asked for; libraries written for Ray call it."""
    from rabbitry.core.submit.inside import fits_a_bundle

    return fits_a_bundle(resources, bundle_specs)
