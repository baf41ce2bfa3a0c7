"""What Redis spends on the end of a task: the commit itself, and the owner's reading and letting go.

    python -m benchmarks.commits                       # batches of 1, 10 and 100, one after the other and paced
    python -m benchmarks.commits --source OTHER.lua    # the whole text of another script too, in commit.lua's place

A Redis of its own gets the commits that executors send (`Results.commit_arguments`), and what an owner does: it blocks
on its inbox. `plain` is the cheap form (`PlainCommits`), which executors try first. Figures are microseconds of
processor time of `redis-server` for each task, medians over rounds; `paced` is one commit every 5 ms, after each of
which the server falls asleep, as a server does that has little work.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
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
COMMITS: Final = {1: 1000, 10: 400, 100: 100}
PACED: Final = 100
CONNECTIONS: Final = 8
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


def _committer(connection: Connection, source: str | None) -> Callable[[list[bytes]], None]:
    """Return what commits by these arguments of commit.lua, and reads the reply."""
    if source is not None:
        script = connection.script(source)
        return lambda arguments: script((), arguments)
    plain = PlainCommits(connection)

    def run(arguments: list[bytes]) -> None:
        commands = plain.commands(arguments)
        connection.send_many(commands)
        assert plain.read(len(commands))

    return run


def measure(store: ObjectStore, pid: int, source: str | None, batch: int, *, paced: bool, waits: bool) -> float:
    """Return microseconds of the server's processor time for each task; `source` None is the plain form."""
    owner = secrets.token_bytes(CLIENT_BYTES)
    store.server.call(b"SET", store.keys.client(owner), b"1")
    store.server.call(b"ZADD", store.keys.clients, time.time() + 3600, owner)
    connections = [store.open_connection("commit") for _ in range(CONNECTIONS)]
    runs = [_committer(each, source) for each in connections]
    commits = []
    for number in range(PACED if paced else COMMITS[batch]):
        items: list[bytes] = []
        for _ in range(batch):
            items += (owner + secrets.token_bytes(12) + (1).to_bytes(4, "big"), RECORD)
        entry = encode_completion(store.signer, owner, Completion(b"f" * 16, batch, 0.01, items))
        arguments = store.commit_arguments(owner, items, entry, require_owner=True)
        if number < CONNECTIONS:
            runs[number](arguments)  # the script's text crosses
        commits.append((runs[number % CONNECTIONS], arguments))
    commits = commits[CONNECTIONS:]
    reader = Owner(store.endpoint.store_url, store.keys.inbox(owner))
    if waits:
        reader.start()
    time.sleep(0.05)
    before = processor_time(pid)
    for run, arguments in commits:
        run(arguments)
        if paced:
            time.sleep(PACE_SECONDS)
    took = processor_time(pid) - before
    if waits:
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
        for paced in (False, True):
            for batch in COMMITS:
                for waits in (False, True):
                    found: dict[str, list[float]] = {name: [] for name in sources}
                    for _ in range(ROUNDS):
                        for name, source in sources.items():
                            found[name].append(measure(store, server.pid, source, batch, paced=paced, waits=waits))
                    what = f"batches of {batch:3}{', paced' if paced else '':7}{', owner waits' if waits else ''}"
                    print(f"{what:36}", *[f"{name} {statistics.median(us):7.2f} us" for name, us in found.items()])


if __name__ == "__main__":
    main()
