"""Who a client is: what is fixed when it is made, and what its job says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys


@dataclass(slots=True)
class Identity:
    """Who a client is, and how it speaks to its cluster. Its id is given to it later where it is made ahead.

    Attributes:
        id: its 12 bytes.
        job: the 4-byte id of the job it belongs to.
        detached_id: the pseudo owner of the job's detached tasks.
        keys: names of the cluster's keys.
        signer: signs and checks what the cluster's processes tell each other.
        lease: seconds without a sign of life after which it counts as dead.
        driver: it must keep its own lease (others are kept by their agent).
        by_connection: it lives as long as its connection to the store does, however silent it is, and no longer.
    """

    id: bytes
    job: bytes
    detached_id: bytes
    keys: Keys
    signer: Signer
    lease: float
    driver: bool = False
    by_connection: bool = False


class Job:
    """What a session says of its job, and what is known of the room for it. Plans read it when they are made.

    Attributes:
        namespace: where its named actors live.
        env: environment of its tasks, as `runtime_env` has it.
        slots: tasks that the cluster can run at once.
        priority: of its tasks that have none of their own.
    """

    __slots__ = ("env", "namespace", "priority", "slots")

    def __init__(self, namespace: str, *, slots: int = 1) -> None:
        self.namespace = namespace
        self.env: dict[str, Any] = {}
        self.slots = slots
        self.priority = 0
