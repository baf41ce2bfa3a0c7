"""RabbitMQ, Redis and the nodes on which a program runs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from compat.control_group import ControlGroup
from compat.environments import ROOT
from tests.servers import RabbitMQServer, RedisServer, wait_until

NODES = 3
SECONDS_TO_END = 60.0
LOGS = ROOT / ".compat" / "logs"
"""Where the nodes leave what they said in the last run of each program."""


def end(nodes: list[subprocess.Popen[bytes]]) -> None:
    """End nodes in good order, all at the same time since each waits for its work, or by force if that takes long."""
    for node in nodes:
        node.terminate()
    for node in nodes:
        try:
            node.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


@contextmanager
def cluster(python: Path, group: ControlGroup, wanted: dict[str, str], program: str) -> Iterator[dict[str, str]]:
    """Start RabbitMQ, Redis and nodes of two CPUs each; yield the variables that name them.

    Args:
        python: the interpreter of the nodes.
        group: where the nodes run.
        wanted: further variables of the nodes.
        program: the name of the program that they are for, which their logs get: several may run at once.
    """
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="wt-", dir="/tmp") as folder:
        redis, rabbitmq = RedisServer(Path(folder, "redis")), RabbitMQServer(Path(folder, "rabbitmq"))
        for server in (redis, rabbitmq):
            stack.callback(server.stop)  # before it starts, since whoever waits for it may be told to end
            server.start()
        variables = {
            "RABBITRY_BROKER_URL": rabbitmq.url,
            "RABBITRY_STORE_URL": redis.url,
            "RABBITRY_SECRET": "s" * 40,
        }
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        logs = [LOGS / program / f"node{number}.log" for number in range(NODES)]
        logs[0].parent.mkdir(parents=True, exist_ok=True)
        nodes: list[subprocess.Popen[bytes]] = []
        stack.callback(end, nodes)
        for number, path in enumerate(logs):
            log = stack.enter_context(path.open("wb"))
            node = subprocess.Popen(
                group.command([str(python.parent / "rabbitry"), "start", "--num-cpus", "2", "--name", f"node{number}"]),
                env={**inherited, **variables, **wanted},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            nodes.append(node)
        # As with Ray, whose nodes are there before the program: what is spread is spread over all of them.
        wait_until(lambda: all("takes work" in log.read_text() for log in logs), "all nodes take work", timeout=120)
        yield {**variables, "RABBITRY_ADDRESS": "auto"}
