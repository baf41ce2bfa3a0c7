"""What a node has without having been told: resources that name it, and labels, under the names that Ray gives them.

| resource | amount | who has it |
|---|---|---|
| `node:<address>` | 1.0 | each node; those that share an address have one each |
| `node:__internal_head__` | 1.0 | one living node of the cluster, see `rabbitry_workers.node.peers.head` |
| `accelerator_type:<kind>` | 1.0 | nodes with GPUs of that kind |

They are there to be asked for in small parts: `resources={"node:192.0.2.7": 0.001}` places a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rabbitry_broker.resources import GPU

ADDRESS_PREFIX: Final = "node:"
ACCELERATOR_PREFIX: Final = "accelerator_type:"

NODE_ID_LABEL: Final = "ray.io/node-id"
ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"

LABEL_VARIABLES: Final = {
    "ray.io/node-group": "RAY_NODE_TYPE_NAME",
    "ray.io/market-type": "RAY_NODE_MARKET_TYPE",
    "ray.io/availability-region": "RAY_NODE_REGION",
    "ray.io/availability-zone": "RAY_NODE_ZONE",
}
"""Label to the variable of the environment that a node takes it from, as Ray's launchers set them."""


def with_implicit(totals: Mapping[str, float], address: str, accelerator: str) -> dict[str, float]:
    """Return what a node has in all.

    Args:
        totals: what it was told to offer, by name.
        address: of its host.
        accelerator: kind of its GPUs, "" if not known; it counts only if there are some in `totals`.

    >>> with_implicit({"CPU": 1.0}, "192.0.2.7", "A100")
    {'CPU': 1.0, 'node:192.0.2.7': 1.0}
    """
    amounts = {**totals, ADDRESS_PREFIX + address: 1.0}
    if accelerator and totals.get(GPU):
        amounts.setdefault(ACCELERATOR_PREFIX + accelerator, 1.0)
    return amounts


def implicit_labels(totals: Mapping[str, float], accelerator: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that a node has by itself, but for its id; those that a user sets count more.

    Args:
        totals: what it offers, by name.
        accelerator: kind of its GPUs, "" if not known.
        environment: of its process.

    >>> implicit_labels({"GPU": 1.0}, "A100", {"RAY_NODE_ZONE": "eu-1"})
    {'ray.io/availability-zone': 'eu-1', 'ray.io/accelerator-type': 'A100'}
    """
    labels = {key: environment[name] for key, name in LABEL_VARIABLES.items() if environment.get(name)}
    if accelerator and totals.get(GPU):
        labels[ACCELERATOR_LABEL] = accelerator
    return labels


def is_implicit(resource: str) -> bool:
    """True for a resource that a node has by itself."""
    return resource.startswith((ADDRESS_PREFIX, ACCELERATOR_PREFIX))
