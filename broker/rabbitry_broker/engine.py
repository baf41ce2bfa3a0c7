"""What an engine can, and what is to be done for it: the one table in which the engines differ outside of `queues/`.

Who asks "is it embedded?" anywhere else spreads the answer over the tree: add a trait here, named after what it means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SERVER_PATIENCE_SECONDS: Final = 60.0
EMBEDDED_PATIENCE_SECONDS: Final = 2.0  # an embedded server that is away has ended, with the session
NODE_PATIENCE_SECONDS: Final = 10 * 365 * 86400.0  # a node waits for its servers: whom would it tell?


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """What differs between the engines.

    Attributes:
        patience: seconds that a server may be away before what needs it fails.
        node_patience: seconds that a node goes on trying to publish.
        ends_with_its_server: a server whose address is gone has ended for good, and the session with it.
        one_host: all processes share this host: its shared memory is where large values are, its memory their limit.
        publishes_in_commit: queues are in the store, so that a commit publishes what it releases, in the same step.
        executors_publish: executors publish tasks by themselves; else their node does, over its one connection, as it
            does with calls to actors on any engine.
        takes_custody: a delivery unsettled for long is acknowledged and kept in the store (RabbitMQ closes the channel
            of a consumer that takes too long).
        first_reader_takes_all: among several consumers of a queue the first gets what there is; else they take turns.
        prefetch_counts_unsettled: what a consumer has not settled counts towards the limit of a new subscription.
        lost_come_back: seconds within which what a node was delivered is on its queues again, once the node counts as
            lost: a broker may keep a mute connection, and what went over it, for as long as two missed heartbeats.
        kills_at_end: the whole cluster ends with its node, and nobody waits for code of users then.
        output_in_order: once an answer has come over the store, so has all output before it.
    """

    patience: float
    node_patience: float
    ends_with_its_server: bool
    one_host: bool
    publishes_in_commit: bool
    executors_publish: bool
    takes_custody: bool
    first_reader_takes_all: bool
    prefetch_counts_unsettled: bool
    lost_come_back: float
    kills_at_end: bool
    output_in_order: bool


EMBEDDED: Final = EngineTraits(
    patience=EMBEDDED_PATIENCE_SECONDS,
    node_patience=SERVER_PATIENCE_SECONDS,
    ends_with_its_server=True,
    one_host=True,
    publishes_in_commit=True,
    executors_publish=True,
    takes_custody=False,
    first_reader_takes_all=True,
    prefetch_counts_unsettled=True,
    lost_come_back=2.0,  # who finds a node lost gives it back at once
    kills_at_end=True,
    output_in_order=True,
)
RABBITMQ: Final = EngineTraits(
    patience=SERVER_PATIENCE_SECONDS,
    node_patience=NODE_PATIENCE_SECONDS,
    ends_with_its_server=False,
    one_host=False,
    publishes_in_commit=False,
    executors_publish=False,
    takes_custody=True,
    first_reader_takes_all=False,
    prefetch_counts_unsettled=False,
    lost_come_back=40.0,
    kills_at_end=False,
    output_in_order=False,
)
