"""Scheduling strategies: where a task or actor may run beyond what its resources say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rabbitry.arguments import flag, shown
from rabbitry.labels import Condition, check_label_key, check_labels, text_of

DEFAULT: Final = "DEFAULT"
SPREAD: Final = "SPREAD"

_NODE_ID_BYTES: Final = 28


@dataclass(frozen=True)
class PlacementGroupSchedulingStrategy:
    """Run in a placement group.

    Attributes:
        placement_group: the group; None for none, even if the parent task's group captures its children.
        placement_group_bundle_index: which of its bundles, from 0; -1 for any.
        placement_group_capture_child_tasks: whether what this task submits runs in the group too; None as the parent.
    """

    placement_group: Any
    placement_group_bundle_index: int = -1
    placement_group_capture_child_tasks: bool | None = None

    def __post_init__(self) -> None:
        index = self.placement_group_bundle_index
        if not isinstance(index, int):
            raise TypeError(f"placement_group_bundle_index must be an int, but is {shown(index)}.")
        if index < -1:
            raise ValueError(f"placement_group_bundle_index must be -1 (any bundle) or more, but is {index}.")


@dataclass(frozen=True)
class NodeAffinitySchedulingStrategy:
    """Run on one node.

    Attributes:
        node_id: hex id of the node, as `nodes()` lists it.
        soft: True to run elsewhere if that node is gone or could never run it; False to fail then.
        _spill_on_unavailable: with `soft`, run elsewhere also if the node has no room now.
        _fail_on_unavailable: without `soft`, fail if the node has no room now.

    Raises:
        TypeError: `node_id` is neither text nor an id.
        ValueError: `node_id` is no node's id, or flags that exclude each other.
    """

    node_id: str
    soft: bool
    _spill_on_unavailable: bool = False
    _fail_on_unavailable: bool = False

    def __post_init__(self) -> None:
        node_id: Any = self.node_id
        if not isinstance(node_id, str):
            if not hasattr(node_id, "hex"):
                raise TypeError(f"node_id must be a node's hex id, but is {shown(node_id)}.")
            node_id = node_id.hex() if callable(node_id.hex) else ""
        try:
            raw = bytes.fromhex(node_id)
        except (TypeError, ValueError):
            raw = b""
        if len(raw) != _NODE_ID_BYTES or raw == b"\xff" * _NODE_ID_BYTES:
            raise ValueError(
                f"node_id {shown(node_id)} is no node's id: that has {2 * _NODE_ID_BYTES} hex digits. "
                "`rabbitry.nodes()` lists the ids of all nodes."
            )
        if self._spill_on_unavailable and not self.soft:
            raise ValueError("_spill_on_unavailable needs soft=True: a hard affinity never goes to another node.")
        if self._fail_on_unavailable and self.soft:
            raise ValueError("_fail_on_unavailable needs soft=False: a soft affinity goes to another node.")
        object.__setattr__(self, "node_id", raw.hex())
        object.__setattr__(self, "soft", flag("soft", self.soft))


class _Operator:
    def condition(self, key: str) -> Condition:
        """Return what this operator asks of the label `key`."""
        raise NotImplementedError


@dataclass(frozen=True, init=False)
class _Values(_Operator):
    values: list[str] = field(hash=False)

    def __init__(self, *values: str) -> None:
        name = type(self).__name__
        if not values:
            raise ValueError(f'{name} needs at least one value, as in {name}("a", "b").')
        for value in values:
            if not isinstance(value, str):
                raise ValueError(f'{name} takes text, as in {name}("a", "b"), but got {shown(value)}.')
        object.__setattr__(self, "values", list(values))


class In(_Values):
    """The label must be one of these values."""

    def condition(self, key: str) -> Condition:
        """Return what this operator asks of the label `key`."""
        return Condition(key, tuple(sorted(set(self.values))), negated=False)


class NotIn(_Values):
    """The label must be none of these values; a node without the label fits."""

    def condition(self, key: str) -> Condition:
        """Return what this operator asks of the label `key`."""
        return Condition(key, tuple(sorted(set(self.values))), negated=True)


@dataclass(frozen=True)
class Exists(_Operator):
    """The label must be there, whatever its value."""

    def condition(self, key: str) -> Condition:
        """Return what this operator asks of the label `key`."""
        return Condition(key, (), negated=False)


@dataclass(frozen=True)
class DoesNotExist(_Operator):
    """The label must not be there."""

    def condition(self, key: str) -> Condition:
        """Return what this operator asks of the label `key`."""
        return Condition(key, (), negated=True)


LabelMatchExpressions = Mapping[str, _Operator]


class NodeLabelSchedulingStrategy:
    """Run on a node with certain labels.

    Attributes:
        hard: label to operator (`In`, `NotIn`, `Exists`, `DoesNotExist`); a node must fulfil all of them.
        soft: the same; nodes that fulfil them are preferred.

    Raises:
        ValueError: both are empty, or something in them is not a label and an operator.
    """

    def __init__(self, hard: LabelMatchExpressions | None, *, soft: LabelMatchExpressions | None = None) -> None:
        self.hard = _check_expressions(hard, "hard")
        self.soft = _check_expressions(soft, "soft")
        if not self.hard and not self.soft:
            raise ValueError("NodeLabelSchedulingStrategy needs a condition in `hard` or in `soft`.")

    def hard_selector(self) -> str:
        """Return what must hold, as the canonical text of a label selector."""
        return text_of([operator.condition(key) for key, operator in self.hard.items()])

    def soft_selector(self) -> str:
        """Return what should hold, as the canonical text of a label selector."""
        return text_of([operator.condition(key) for key, operator in self.soft.items()])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeLabelSchedulingStrategy) and (self.hard, self.soft) == (other.hard, other.soft)

    def __hash__(self) -> int:
        return hash((self.hard_selector(), self.soft_selector()))

    def __repr__(self) -> str:
        return f"NodeLabelSchedulingStrategy({self.hard!r}, soft={self.soft!r})"


def _check_expressions(expressions: Any, name: str) -> dict[str, _Operator]:
    if expressions is None:
        return {}
    if not isinstance(expressions, dict):
        raise ValueError(f'{name} must be a dict such as {{"zone": In("a")}}, but is a {type(expressions).__name__}.')
    for key, operator in expressions.items():
        if not isinstance(key, str):
            raise ValueError(f'{name} must have label keys, as in {{"zone": In("a")}}, but has {shown(key)}.')
        check_label_key(key)
        if not isinstance(operator, _Operator):
            raise ValueError(
                f"{name}[{shown(key)}] must be an In, NotIn, Exists or DoesNotExist, but is {shown(operator)}."
            )
        if isinstance(operator, _Values):
            for value in operator.values:
                check_labels({key: value})
    return dict(expressions)
