"""Log files, as the state API asks for them: which there are on a node, and what is in one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from rabbitry.node_logs import FOLLOW_SECONDS, LogFollower, NoSuchLog, find_files, list_files
from rabbitry.node_requests import NodeRequests
from rabbitry.nodes import read_nodes
from rabbitry.state.schemas import DEFAULT_RPC_TIMEOUT
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys

_ANSI: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")


@dataclass
class GetLogOptions:
    """Which file is wanted, and what of it.

    Attributes:
        timeout: seconds until a node answers.
        node_id: of the node that has it.
        node_ip: the address of that node instead.
        media_type: "file" for what is there, "stream" to be followed.
        filename: its name.
        actor_id: what this actor printed instead.
        task_id: what this task printed instead.
        attempt_number: accepted for Ray's sake: attempts of a task stand one after the other.
        pid: what this process printed instead.
        lines: only so many at the end; -1 for all.
        interval: seconds between two looks at a file that is followed.
        suffix: "out" or "err".
        submission_id: what this submitted job printed instead.
        filter_ansi_code: leave out what colours text.

    Raises:
        ValueError: not enough is said, or what contradicts itself.
    """

    timeout: int = DEFAULT_RPC_TIMEOUT
    node_id: str | None = None
    node_ip: str | None = None
    media_type: str = "file"
    filename: str | None = None
    actor_id: str | None = None
    task_id: str | None = None
    attempt_number: int = 0
    pid: int | None = None
    lines: int = 1000
    interval: float | None = None
    suffix: str = "out"
    submission_id: str | None = None
    filter_ansi_code: bool = False

    def __post_init__(self) -> None:
        if self.media_type not in ("file", "stream"):
            raise ValueError(f"The media type {self.media_type!r} is neither 'file' nor 'stream'.")
        if self.suffix not in ("out", "err"):
            raise ValueError(f"The suffix {self.suffix!r} must be one of 'out' or 'err'.")
        if self.node_id and self.node_ip:
            raise ValueError("Both node_id and node_ip are given: one of them says which node is meant.")
        if not any((self.actor_id, self.task_id, self.pid, self.filename, self.submission_id)):
            raise ValueError("One of actor_id, task_id, pid, submission_id and filename says which log is wanted.")
        if not any((self.node_id, self.node_ip, self.actor_id, self.task_id, self.submission_id)):
            raise ValueError("With a filename or pid, node_id or node_ip says on which node.")


def names_of(
    endpoint: Endpoint, *, node_id: str | None, node_ip: str | None, glob: str, timeout: float
) -> dict[str, list[str]]:
    """Return the names of log files on nodes, by what they are.

    Args:
        endpoint: the cluster.
        node_id: of the node; None for all, or for that of `node_ip`.
        node_ip: address of the node.
        glob: pattern of names.
        timeout: seconds until nodes answer.

    Raises:
        NoSuchLog: there is no such node.
        ConnectError: the store cannot be reached.
    """
    with _asking(endpoint, timeout) as requests:
        nodes = _nodes(requests, endpoint, node_id, node_ip)
        found: dict[str, list[str]] = {}
        for kinds in list_files(requests, nodes, glob or "*", timeout=timeout).values():
            for kind, names in kinds.items():
                found.setdefault(kind, []).extend(names)
        return found


def pieces_of(endpoint: Endpoint, options: GetLogOptions) -> Iterator[bytes]:
    """Yield what stands in a log, piece by piece; for ever, if it is to be followed.

    Args:
        endpoint: the cluster.
        options: which log.

    Raises:
        NoSuchLog: nobody printed that, or its node is gone.
        ConnectError: the store cannot be reached.
    """
    with _asking(endpoint, options.timeout) as requests:
        nodes = _nodes(requests, endpoint, options.node_id, options.node_ip)
        wanted: dict[str, Any] = {"suffix": options.suffix}
        part: dict[str, str] = {}
        if options.filename:
            files = [
                (node, name)
                for node, kinds in list_files(requests, nodes, options.filename, timeout=options.timeout).items()
                for names in kinds.values()
                for name in names
            ]
        else:
            if options.task_id:
                wanted["task"] = part["task"] = options.task_id.lower()
            elif options.actor_id:
                wanted["actor"] = part["actor"] = options.actor_id.lower()
            elif options.pid:
                wanted["pid"] = options.pid
            files = find_files(requests, nodes, wanted, timeout=options.timeout)
        if not files:
            raise NoSuchLog(
                "no living node has that log: nothing was printed, its node is gone, or its file was deleted in favour "
                "of newer ones"
            )
        follow = options.media_type == "stream"
        for node, name in files[-1:] if follow else files:
            follower = LogFollower(requests, node, name, **part, tail=options.lines, timeout=options.timeout)
            for piece in follower.pieces(follow=follow, interval=options.interval or FOLLOW_SECONDS):
                yield _ANSI.sub(b"", piece) if options.filter_ansi_code else piece


class _asking:  # noqa: N801  used with `with` only
    """A connection over which nodes are asked, closed in the end."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._requests = NodeRequests(endpoint, timeout=timeout)

    def __enter__(self) -> NodeRequests:
        return self._requests

    def __exit__(self, *_: object) -> None:
        self._requests.close()


def _nodes(requests: NodeRequests, endpoint: Endpoint, node_id: str | None, node_ip: str | None) -> list[bytes]:
    found = [each for each in read_nodes(requests, Keys.of(endpoint), Signer(endpoint.secrets)) if each["alive"]]
    if node_id:
        found = [each for each in found if each["id"].hex() == node_id.lower()]
    elif node_ip:
        found = [each for each in found if node_ip in (each.get("address"), each["hostname"])]
    if not found:
        raise NoSuchLog(f"no living node has the id or address {node_id or node_ip!r}")
    return [each["id"] for each in found]
