"""A node of a stage that reaches its servers by way of two proxies: its network can be cut, slow, and cut one way."""

from __future__ import annotations

from contextlib import suppress

from tests.chaos.proxy import Proxy
from tests.chaos.stage import Stage


class Network:
    """The two ways of one node to its servers.

    Attributes:
        proxies: to the broker and to the store.
        node: the node behind them.
    """

    def __init__(self, stage: Stage, resources: dict[str, float] | None = None) -> None:
        self._stage = stage
        self.proxies = Proxy(stage.rabbitmq.port), Proxy(stage.redis.port)
        self.node = stage.add_node_behind(*self.proxies, resources=resources)

    def delay(self, *, to_server: float = 0.0, to_client: float = 0.0) -> None:
        """Let every byte take so many seconds from now on."""
        for proxy in self.proxies:
            proxy.delay(to_server=to_server, to_client=to_client)

    def cut(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Let nothing pass in these directions."""
        for proxy in self.proxies:
            proxy.cut(to_server=to_server, to_client=to_client)

    def heal(self) -> None:
        """Let everything pass, at once."""
        for proxy in self.proxies:
            proxy.heal()

    def reset(self) -> None:
        """Break all connections."""
        for proxy in self.proxies:
            proxy.reset()

    def slow(self, seconds: float) -> None:
        """Let everything take so long, each way."""
        self.delay(to_server=seconds, to_client=seconds)

    def close(self) -> None:
        """Heal, and take the node out of the cluster."""
        self.heal()
        with suppress(ValueError):
            self._stage.cluster.remove_node(self.node)
        for proxy in self.proxies:
            proxy.close()
