"""Where a cluster is: the addresses and the secret that one process needs to take part in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rabbitry_broker.engine import EMBEDDED, RABBITMQ, EngineTraits


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a process must know to reach its cluster. Cheap to import; `settings` makes it from the environment.

    Attributes:
        store_url: Redis, `redis://`, `rediss://` or `unix://` (embedded: `unix:///run/dir/redis.sock`).
        broker_url: RabbitMQ, `amqp://` or `amqps://`, or several servers (see `broker_address`); None for the embedded
            engine (queues in Redis itself).
        secrets: keys that authenticate messages, newest first; the first signs, all verify.
        prefix: what every Redis key and queue name of this cluster begins with (in Redis Cluster, keys have it as
            their hash tag, see `store/keys.py`).
    """

    store_url: str = field(repr=False)  # URLs hold passwords
    broker_url: str | None = field(default=None, repr=False)
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    prefix: str = "rabbitry:"

    @property
    def embedded(self) -> bool:
        """True if the queues are on the embedded engine."""
        return self.broker_url is None

    @property
    def traits(self) -> EngineTraits:
        """What the engine can, and needs."""
        return EMBEDDED if self.broker_url is None else RABBITMQ

    @property
    def patience(self) -> float:
        """Seconds that a server may be away before what needs it fails."""
        return self.traits.patience

    @property
    def spread(self) -> bool:
        """True if the store is a Redis Cluster: several servers, each with a share of the keys."""
        return self.store_url.partition("://")[0].endswith("+cluster")
