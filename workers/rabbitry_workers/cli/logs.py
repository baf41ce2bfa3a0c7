"""`rabbitry logs`: what tasks and actors printed, read through the nodes that they ran on."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from rabbitry_workers.cli.output import print_table
from rabbitry_workers.cli.parsing import add_addresses, cluster_of

if TYPE_CHECKING:
    from pathlib import Path

    from rabbitry.node_logs import Asks

KINDS = ("task", "actor", "worker", "job", "cluster")
LOOK_AGAIN_SECONDS = 2.0  # for files that are new, when some are followed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    parser.add_argument(
        "what", nargs="?", default="", metavar="WHAT",
        help="task, actor, worker or job (with --id), or a file's name or pattern; without it, files are listed",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)  # as in Ray: `logs cluster PATTERN`
    parser.add_argument("--id", default="", help="of the task, actor, worker or job, in hexadecimal")
    parser.add_argument("--pid", type=int, default=0, help="of a worker, instead of --id")
    parser.add_argument("--node", metavar="NODE", help="only of this node: id (or its beginning), name or host")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("--tail", type=int, default=-1, metavar="N", help="only the last N lines of each file")
    parser.add_argument("--err", action="store_true", help="only standard error")
    parser.add_argument("--out", action="store_true", help="only standard output")
    parser.add_argument("--ended", action="store_true", help="of nodes and sessions on this machine that have ended")


@dataclass
class Nodes:
    """Who is asked for files.

    Attributes:
        asks: answers.
        names: what people call them, by id.
        close: lets go of them.
    """

    asks: Asks
    names: dict[bytes, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


def run(options: argparse.Namespace) -> int:
    """Print them, or list them."""
    if options.what == "cluster":
        options.what = options.name or ""
    elif options.name:
        raise ValueError(f"{options.what} {options.name}: say `--id {options.name}`")
    if options.what in KINDS and not (options.id or options.pid):
        raise ValueError(f"logs of which {options.what}? Say --id ID" + (" or --pid PID" * (options.what == "worker")))
    if options.out and options.err:
        options.out = options.err = False
    nodes = _nodes(options)
    try:
        if not options.what:
            return _list(nodes)
        return _show(nodes, options)
    finally:
        nodes.close()


def _nodes(options: argparse.Namespace) -> Nodes:
    from rabbitry_broker.errors import ConnectError

    if options.ended:
        return _ended_nodes(options.node)
    try:
        cluster = cluster_of(options)
    except ConnectError as error:
        if options.address or options.store:
            raise
        nodes = _ended_nodes(options.node)
        if not nodes.names:
            raise
        print(f"rabbitry: no session runs here; these are of ended ones ({error.cause})", file=sys.stderr)
        return nodes
    from rabbitry.node_logs import living_nodes
    from rabbitry.node_requests import NodeRequests

    requests = NodeRequests(cluster.endpoint, timeout=cluster.connect_timeout)
    try:
        living = living_nodes(requests, cluster.endpoint, options.node)
    except BaseException:
        requests.close()
        raise
    return Nodes(requests, {each["id"]: each["name"] for each in living}, requests.close)


def _ended_nodes(which: str | None) -> Nodes:
    from rabbitry_workers.node.services.log_files import of_ended_nodes

    paths = {bytes.fromhex(path.name.partition("-")[2]): path for path in of_ended_nodes() if _is_id(path.name)}
    chosen = {node: path for node, path in paths.items() if not which or node.hex().startswith(which)}
    return Nodes(EndedNodes(chosen), {node: time.ctime(path.stat().st_mtime) for node, path in chosen.items()})


def _is_id(name: str) -> bool:
    try:
        return bool(bytes.fromhex(name.partition("-")[2]))
    except ValueError:
        return False


class EndedNodes:
    """Answers in the place of nodes that have ended, from the files that they left on this machine.

    Args:
        paths: their directories.
    """

    def __init__(self, paths: Mapping[bytes, Path]) -> None:
        from rabbitry_workers.node.services.log_reading import LogReader

        self._answers = {node: LogReader(path).answers() for node, path in paths.items()}

    def ask(self, node: bytes, word: str, arguments: Mapping[str, Any], *, timeout: float = 0.0) -> Any:
        """Return what the node would say."""
        return self._answers[node][word](dict(arguments))()

    def ask_all(
        self, nodes: Sequence[bytes], word: str, arguments: Mapping[str, Any], *, timeout: float = 0.0
    ) -> dict[bytes, Any]:
        """Return what they would say."""
        return {node: self.ask(node, word, arguments) for node in nodes}


def _list(nodes: Nodes) -> int:
    from rabbitry.node_logs import list_files

    found = list_files(nodes.asks, list(nodes.names))
    rows = [
        (node.hex()[:8], nodes.names[node], kind, name)
        for node, kinds in found.items()
        for kind, names in kinds.items()
        for name in names
    ]
    print_table(("NODE", "NAME", "KIND", "FILE"), rows)
    return 0


def _show(nodes: Nodes, options: argparse.Namespace) -> int:
    from rabbitry.node_logs import FOLLOW_SECONDS, LogFollower, NoSuchLog

    part = {options.what: options.id} if options.what in ("task", "actor") else {}
    followers: dict[tuple[bytes, str], LogFollower] = {}
    tail = options.tail
    look_at = 0.0
    while True:
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_AGAIN_SECONDS
            for key in _files(nodes, options):
                if key not in followers:
                    followers[key] = LogFollower(nodes.asks, *key, **part, tail=tail)
            tail = -1  # of a file that is new all is
        if not followers and not options.follow:
            raise NoSuchLog(_nothing(options))
        came = False
        for (_, name), follower in followers.items():
            ended = False
            while not ended:
                data, ended = follower.read()
                came = came or bool(data)
                _write(data, sys.stderr if name.endswith(".err") else sys.stdout)
        if not options.follow:
            return 0
        sys.stdout.flush()
        if not came:
            time.sleep(FOLLOW_SECONDS)


def _files(nodes: Nodes, options: argparse.Namespace) -> list[tuple[bytes, str]]:
    from rabbitry.node_logs import find_files, list_files

    suffix = "err" if options.err else "out" if options.out else ""
    ids = list(nodes.names)
    if options.what not in KINDS:
        found = list_files(nodes.asks, ids, options.what)
        files = [(node, name) for node, kinds in found.items() for names in kinds.values() for name in names]
        return [each for each in files if not suffix or each[1].endswith(f".{suffix}")]
    wanted = {"pid": options.pid, "suffix": suffix}
    if options.id:
        wanted[options.what] = options.id.lower()
    return find_files(nodes.asks, ids, wanted)


def _nothing(options: argparse.Namespace) -> str:
    if options.what not in KINDS:
        return f"no file is called {options.what!r}; `rabbitry logs` lists them"
    whom = f"{options.what} {options.id or options.pid}"
    return (
        f"no living node has output of {whom}: it printed nothing, its node is gone (`--ended` on its machine), or "
        "its file was deleted in favour of newer ones"
    )


def _write(data: bytes, to: TextIO) -> None:
    """Write lines: to a terminal, only what colours them and no other command; elsewhere, as they are."""
    if not data:
        return
    if to.isatty():
        from rabbitry_broker.terminal import with_colours

        to.write(with_colours(data.decode("utf-8", "replace")))
    else:
        to.flush()
        to.buffer.write(data)
