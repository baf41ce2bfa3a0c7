"""Our connection to Redis beside redis-py's, with hiredis: the measurement behind docs/decisions/001.

Run it with `python -m benchmarks.redis_connection` on a machine that does nothing else. It starts a Redis of its own on
a unix socket; each round takes every contender once, in turn, with the same commands. The number is the median over the
rounds of processor time (user and system, of this process) and of elapsed time, in microseconds a command.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import redis

from rabbitry_broker.embedded_server import EmbeddedServer
from rabbitry_broker.store.redis.connection import Connection

ROUNDS = 15
CALLS = 3000
PIPELINED = 100  # commands in one write
LUA = "return ARGV[1]"


def contenders(url: str) -> dict[str, Callable[[str], Callable[[], Any]]]:
    """Return makers of one step for each way to reach Redis: 'get', 'script' (one command) and 'pipeline' (100)."""
    ours = Connection.open(url)
    path = url.removeprefix("unix://").partition("?")[0]
    bare = redis.UnixDomainSocketConnection(path=path)
    bare.connect()
    client = redis.Redis(unix_socket_path=path, single_connection_client=True)
    many: list[tuple[Any, ...]] = [("SET", f"key-{number}", b"x" * 100) for number in range(PIPELINED)]
    script = ours.script(LUA)
    script((), (b"",))
    registered = client.register_script(LUA)
    registered(args=[b""])

    def own(what: str) -> Callable[[], Any]:
        if what == "get":
            return lambda: ours.call(b"GET", b"key-1")
        return (lambda: script((), (b"x" * 100,))) if what == "script" else lambda: ours.pipeline(many)

    def connection(what: str) -> Callable[[], Any]:
        def one(*command: Any) -> Any:
            bare.send_command(*command)
            return bare.read_response()

        def all_of_them() -> Any:
            bare.send_packed_command(bare.pack_commands(many))
            return [bare.read_response() for _ in many]

        if what == "get":
            return lambda: one(b"GET", b"key-1")
        return (lambda: one(b"EVALSHA", script.digest, 0, b"x" * 100)) if what == "script" else all_of_them

    def whole(what: str) -> Callable[[], Any]:
        if what == "get":
            return lambda: client.get(b"key-1")
        if what == "script":
            return lambda: registered(args=[b"x" * 100])

        def all_of_them() -> Any:
            pipeline = client.pipeline(transaction=False)
            for command in many:
                pipeline.execute_command(*command)
            return pipeline.execute()

        return all_of_them

    return {"ours": own, "redis-py Connection": connection, "redis-py Redis": whole}


def imports() -> dict[str, float]:
    """Return seconds of processor time that a fresh interpreter takes for each import more than for none."""
    texts = {
        "(nothing)": "pass",
        "ours": "import rabbitry_broker.store.redis.connection",
        "redis.connection": "import redis.connection",
    }
    took: dict[str, list[float]] = {name: [] for name in texts}
    for _ in range(7):
        for name, text in texts.items():
            code = f"{text}\nimport time; print(time.process_time())"
            took[name].append(float(subprocess.check_output([sys.executable, "-c", code])))
    bare = statistics.median(took["(nothing)"])
    return {name: statistics.median(times) - bare for name, times in took.items() if name != "(nothing)"}


def main() -> None:
    """Print one table."""
    with EmbeddedServer.start() as server:
        ways = contenders(server.url)
        for what in ("get", "script", "pipeline"):
            count = CALLS if what != "pipeline" else CALLS // 30
            commands = count * (PIPELINED if what == "pipeline" else 1)
            used: dict[str, list[float]] = {name: [] for name in ways}
            took: dict[str, list[float]] = {name: [] for name in ways}
            steps = {name: way(what) for name, way in ways.items()}
            for _ in range(ROUNDS):
                for name, step in steps.items():
                    cpu, wall = time.process_time(), time.perf_counter()
                    for _ in range(count):
                        step()
                    used[name].append((time.process_time() - cpu) / commands * 1e6)
                    took[name].append((time.perf_counter() - wall) / commands * 1e6)
            for name in ways:
                cpu, wall = statistics.median(used[name]), statistics.median(took[name])
                print(f"{what:9} {name:20} {cpu:7.2f} us of processor, {wall:7.2f} us elapsed a command")
    for name, seconds in imports().items():
        print(f"import    {name:20} {seconds * 1000:7.1f} ms of processor")


if __name__ == "__main__":
    main()
