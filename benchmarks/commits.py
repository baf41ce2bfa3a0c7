"""What Redis spends on the end of a task: the commit itself, and the owner's reading and letting go.

    python -m benchmarks.commits                       # batches of 1, 10 and 100
    python -m benchmarks.commits --source OTHER.lua    # the whole text of another script too, in commit.lua's place

A Redis of its own gets the commits that executors send, while their owner blocks on its inbox. `plain` is the cheap
form (`PlainCommits`), which executors try first. Figures are microseconds of processor time of `redis-server` for each
task, medians over rounds:

| pace | |
|---|---|
| `paced` | one commit every 5 ms: the server falls asleep after each, as one does that has little work |
| `in turn` | the next one when the last is done |
| `crowd` | as many at a time as there are executors, as a server finds them that is nearly full |
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.scale_processes import processor_time
from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import CLIENT_BYTES
from rabbitry_broker.messages import Completion, encode_completion
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import scripts
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.results import PlainCommits
from rabbitry_broker.store.store import ObjectStore

ROUNDS: Final = 5
PACE_SECONDS: Final = 0.005
COMMITS: Final = {1: 1280, 10: 416, 100: 96}
PACED: Final = 100
CONNECTIONS: Final = 32
PACES: Final = ("paced", "in turn", "crowd")
RECORD: Final = records.plain(b"\x80\x05K\x01.")


class Owner(threading.Thread):
    """Blocks on its inbox, as a client does that waits, and keeps what came."""

    def __init__(self, url: str, key: bytes) -> None:
        super().__init__(name="owner", daemon=True)
        self._connection = Connection.open(url)
        self._key = key
        self.entries = 0

    def run(self) -> None:
        """Read until an empty entry comes."""
        while True:
            reply = self._connection.call_blocking(b"BLPOP", self._key, b"60", timeout=60.0)
            if reply is not None:
                if reply[1] == b"":
                    return
                self.entries += 1


class Executor:
    """Commits on a connection of its own, by arguments of commit.lua.

    Args:
        connection: its own.
        source: of the script; None for the plain form.
    """

    def __init__(self, connection: Connection, source: str | None) -> None:
        self._connection = connection
        self._script = None if source is None else connection.script(source)
        self._plain = PlainCommits(connection)

    def send(self, arguments: list[bytes]) -> int:
        """Send a commit; return how many replies there will be."""
        commands = self._plain.commands(arguments) if self._script is None else [self._script.command((), arguments)]
        self._connection.send_many(commands)
        return len(commands)

    def read(self, replies: int) -> None:
        """Read them."""
        if self._script is None:
            assert self._plain.read(replies)
        else:
            assert self._connection.read() == []


def measure(store: ObjectStore, pid: int, source: str | None, batch: int, pace: str) -> float:
    """Return microseconds of the server's processor time for each task; `source` as for `Executor`."""
    owner = secrets.token_bytes(CLIENT_BYTES)
    store.server.call(b"SET", store.keys.client(owner), b"1")
    store.server.call(b"ZADD", store.keys.clients, time.time() + 3600, owner)
    connections = [store.open_connection("commit") for _ in range(CONNECTIONS)]
    executors = [Executor(each, source) for each in connections]
    commits = []
    for _ in range(CONNECTIONS + (PACED if pace == "paced" else COMMITS[batch])):
        items: list[bytes] = []
        for _ in range(batch):
            items += (owner + secrets.token_bytes(12) + (1).to_bytes(4, "big"), RECORD)
        entry = encode_completion(store.signer, owner, Completion(b"f" * 16, batch, 0.01, items))
        commits.append(store.commit_arguments(owner, items, entry, require_owner=True))
    for executor in executors:  # the scripts' text crosses
        executor.read(executor.send(commits.pop()))
    reader = Owner(store.endpoint.store_url, store.keys.inbox(owner))
    reader.start()
    time.sleep(0.05)
    before = processor_time(pid)
    at_a_time = CONNECTIONS if pace == "crowd" else 1
    for at in range(0, len(commits), at_a_time):
        sent = [(each, each.send(one)) for each, one in zip(executors, commits[at : at + at_a_time], strict=False)]
        for executor, replies in sent:
            executor.read(replies)
        if pace == "paced":
            time.sleep(PACE_SECONDS)
    took = processor_time(pid) - before
    store.server.call(b"RPUSH", store.keys.inbox(owner), b"")
    reader.join()
    for each in connections:
        each.close()
    store.server.call(b"FLUSHALL")
    return took / len(commits) / batch * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, action="append", default=[], help="whole text of another script")
    parser.add_argument("--appendonly", action="store_true", help="with the append-only file, as in production")
    options = parser.parse_args(arguments)
    sources: dict[str, str | None] = {"plain": None, "commit.lua": scripts.source_of("commit")}
    sources |= {each.name: each.read_text() for each in options.source}
    from tests.servers import RedisServer

    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="commits-", dir="/tmp"))
        server = RedisServer(Path(directory), appendonly=options.appendonly)
        server.start()
        stack.callback(server.stop)
        secret = secrets.token_bytes(32)
        store = ObjectStore(Endpoint(server.url, "amqp://unused", (secret,)), Signer((secret,)))
        for pace in PACES:
            for batch in COMMITS:
                found: dict[str, list[float]] = {name: [] for name in sources}
                for _ in range(ROUNDS):
                    for name, source in sources.items():
                        found[name].append(measure(store, server.pid, source, batch, pace))
                figures = [f"{name} {statistics.median(us):7.2f} us" for name, us in found.items()]
                print(f"batches of {batch:3}, {pace:8}", *figures)


if __name__ == "__main__":
    main()
