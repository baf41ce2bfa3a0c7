"""What tasks and actors printed, read from the files of the nodes they ran on, through these nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from rabbitry.node_requests import TIMEOUT_SECONDS, NodeRefused, NodeRequests
from rabbitry.nodes import read_nodes
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys

FOLLOW_SECONDS: Final = 0.3  # between two looks at a file that is followed


class NoSuchLog(RabbitryBrokerError, LookupError):
    """Nothing was printed by what was asked for, or its node is gone, or its file had to make room for newer ones."""


class Asks(Protocol):
    """Who answers questions about files: `NodeRequests`, or the files of an ended node themselves."""

    def ask(self, node: bytes, word: str, arguments: Mapping[str, Any], *, timeout: float = TIMEOUT_SECONDS) -> Any:
        """Return a node's answer."""

    def ask_all(
        self, nodes: Sequence[bytes], word: str, arguments: Mapping[str, Any], *, timeout: float = TIMEOUT_SECONDS
    ) -> dict[bytes, Any]:
        """Return the answers of several nodes."""


def living_nodes(requests: NodeRequests, endpoint: Endpoint, which: str | None = None) -> list[dict[str, Any]]:
    """Return the records of nodes that can be asked.

    Args:
        requests: over which they are read.
        endpoint: the cluster.
        which: id (or its beginning), name or host of one node; None for all.

    Raises:
        NoSuchLog: there is no such node.
    """
    found = [each for each in read_nodes(requests, Keys.of(endpoint), Signer(endpoint.secrets)) if each["alive"]]
    if which:
        found = [
            each for each in found if which in (each["name"], each["hostname"]) or each["id"].hex().startswith(which)
        ]
        if not found:
            raise NoSuchLog(f"no living node has the id, name or host {which!r}; `rabbitry status` shows them all")
    return found


def find_files(
    asks: Asks, nodes: Sequence[bytes], wanted: Mapping[str, Any], *, timeout: float = TIMEOUT_SECONDS
) -> list[tuple[bytes, str]]:
    """Return (node, name) of the files in which something of that stands.

    Args:
        asks: who answers.
        nodes: ids of those to ask.
        wanted: some of `task`, `actor`, `worker`, `job` (ids in hexadecimal), `pid`, `suffix` ("out", "err").
        timeout: seconds to wait for answers.
    """
    answers = asks.ask_all(nodes, "logs.find", wanted, timeout=timeout)
    return [
        (node, name) for node in nodes if not isinstance(names := answers.get(node, []), NodeRefused) for name in names
    ]


def list_files(
    asks: Asks, nodes: Sequence[bytes], glob: str = "*", *, timeout: float = TIMEOUT_SECONDS
) -> dict[bytes, dict[str, list[str]]]:
    """Return the names of files by node, and by what they are (`worker_out`, `worker_err`, `other`)."""
    answers = asks.ask_all(nodes, "logs.list", {"glob": glob}, timeout=timeout)
    return {node: names for node, names in answers.items() if not isinstance(names, NodeRefused)}


class LogFollower:
    """Reads one file on, piece by piece.

    Args:
        asks: who answers.
        node: id of the node that has it.
        file: its name.
        task: only what this task printed (id in hexadecimal); "" for all.
        actor: the same of an actor.
        tail: only so many lines at the end of what is there now; -1 for all.
        timeout: seconds to wait for an answer.
    """

    def __init__(
        self,
        asks: Asks,
        node: bytes,
        file: str,
        *,
        task: str = "",
        actor: str = "",
        tail: int = -1,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.node = node
        self.file = file
        self._asks = asks
        self._timeout = timeout
        self._wanted = {"file": file, "task": task, "actor": actor, "tail": tail}
        self._place: list[Any] | None = None

    def read(self) -> tuple[bytes, bool]:
        """Return the next piece, and whether that is the end for now."""
        asked = {**self._wanted, "place": self._place}
        data, self._place, ended = self._asks.ask(self.node, "logs.read", asked, timeout=self._timeout)
        return data, ended

    def pieces(self, *, follow: bool = False, interval: float = FOLLOW_SECONDS) -> Iterator[bytes]:
        """Yield what is there; with `follow` also what comes, for ever."""
        while True:
            data, ended = self.read()
            if data:
                yield data
            if ended:
                if not follow:
                    return
                time.sleep(interval)
