"""Questions to nodes, from any process of the cluster: what only a node can say, such as what stands in its files.

A question is a control message that names the node; its answer is published on a channel of the asker's own. Both are
signed. A node answers each question by itself, and keeps nothing: who hears no answer asks again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectionLost, RabbitryBrokerError, ReplyTimeout
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Connection

TIMEOUT_SECONDS: Final = 10.0
ASK_AGAIN_SECONDS: Final = 2.0


class NodeRefused(RabbitryBrokerError):
    """A node cannot answer. The message says why."""


class NodeSilent(RabbitryBrokerError, TimeoutError):
    """A node did not answer in time: it may be gone, or its machine be very busy."""


class NodeRequests:
    """Asks nodes. For one thread; close it, or use it with `with`.

    Args:
        endpoint: the cluster.
        timeout: seconds to reach Redis.
    """

    def __init__(self, endpoint: Endpoint, *, timeout: float = 5.0) -> None:
        self._keys = Keys.of(endpoint)
        self._signer = Signer(endpoint.secrets)
        self._token = secrets.token_bytes(16)
        self._asked = 0
        self._sending = Connection.open(endpoint, timeout=timeout, name="rabbitry-asks")
        try:
            self._hearing = Connection.open(endpoint, timeout=timeout, name="rabbitry-hears")
            self._hearing.call(b"SUBSCRIBE", self._keys.answers_channel(self._token))
        except BaseException:
            self._sending.close()
            raise

    def call(self, *args: Any) -> Any:
        """Run one command of Redis and return its reply."""
        return self._sending.call(*args)

    def ask(self, node: bytes, word: str, arguments: Mapping[str, Any], *, timeout: float = TIMEOUT_SECONDS) -> Any:
        """Ask one node.

        Args:
            node: its id.
            word: what is asked (`rabbitry_workers.node.peers.requests` knows the words).
            arguments: what belongs to it.
            timeout: seconds to wait for the answer.

        Raises:
            NodeRefused: it cannot say.
            NodeSilent: it did not answer.
        """
        found = self.ask_all([node], word, arguments, timeout=timeout)
        if node not in found:
            raise NodeSilent(f"node {node.hex()[:8]} did not answer within {timeout:g} s")
        answer = found[node]
        if isinstance(answer, NodeRefused):
            raise answer
        return answer

    def ask_all(
        self, nodes: Sequence[bytes], word: str, arguments: Mapping[str, Any], *, timeout: float = TIMEOUT_SECONDS
    ) -> dict[bytes, Any]:
        """Ask several nodes at once.

        Returns:
            Answers by node; a `NodeRefused` for one that cannot say, nothing for one that did not answer.
        """
        self._asked += 1
        number, waiting = self._asked, set(nodes)
        question = encode([self._token, number, word, dict(arguments)])
        found: dict[bytes, Any] = {}
        deadline = time.monotonic() + timeout
        again = 0.0
        while waiting and (now := time.monotonic()) < deadline:
            if now >= again:
                again = now + ASK_AGAIN_SECONDS
                for node in waiting:
                    message = self._signer.seal(b"control", encode(["ask", node, question]))
                    self._sending.call(b"PUBLISH", self._keys.control_channel, message)
            try:
                message = self._hearing.read(min(again, deadline) - now)
            except ReplyTimeout:
                continue
            if isinstance(message, list) and message[0] == b"message":
                node, of, refusal, answer = decode(self._signer.open(b"answer" + self._token, message[2]))
                if of == number and node in waiting:
                    waiting.discard(node)
                    found[node] = NodeRefused(refusal) if refusal else answer
        return found

    def close(self) -> None:
        """Close the connections."""
        for connection in (self._sending, self._hearing):
            try:
                connection.close()
            except ConnectionLost:
                continue

    def __enter__(self) -> NodeRequests:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
