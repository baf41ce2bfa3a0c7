"""Notes of continuations, in a node's hash in Redis: see `continuations`."""

from __future__ import annotations

from rabbitry_broker.store.specs import Dependant
from rabbitry_workers.node.model.node import Node


def clear_notes(node: Node, whose: bytes, dependants: list[Dependant]) -> None:
    """Forget specs and notes of what has ended or is on its queue.

    Args:
        node: this one.
        whose: notes they are: this node's, or those of one that is gone.
        dependants: what they are of.
    """
    node.store.launched(dependants)
    node.store.call(b"HDEL", node.keys.continuations(whose), *[spec for spec, *_ in dependants])
