"""`python -m warren_workers join`: a node for `warren.cluster_utils.Cluster`, configured by one JSON line on stdin.

It answers with one JSON line when it takes work, drains on SIGTERM, and ends when stdin closes (its parent is gone).
"""

from __future__ import annotations

import json
import os
import sys


def main() -> int:
    """Run the node."""
    request = json.loads(sys.stdin.readline())
    from warren_workers.node.forker import fork_template

    template = fork_template()
    from warren.embedded_address import SCHEME, endpoint_of
    from warren_broker.resources import detect_totals
    from warren_workers.cli import drain_on_signals
    from warren_workers.node.agent import Agent
    from warren_workers.node.config import NodeConfig

    totals = detect_totals(request["num_cpus"], request["num_gpus"], request["memory"], request["resources"])
    lease, object_ttl = 10.0, 0.0
    if request["address"].startswith(SCHEME):
        endpoint, session = endpoint_of(request["address"])
    else:
        from warren_broker.settings import Settings
        from warren_broker.store.host import shared_session

        settings = Settings.load()
        endpoint, lease, object_ttl = settings.endpoint(), settings.node_lease, settings.object_ttl or 0.0
        session = shared_session(endpoint)
    config = NodeConfig(
        endpoint=endpoint,
        totals=totals.to_floats(),
        labels=request["labels"],
        session=session,
        lease=float(os.environ.get("WARREN_NODE_LEASE", lease)),
        object_ttl=object_ttl,
    )
    if request["name"]:
        config.name = request["name"]

    def ready() -> None:
        print(json.dumps({"node_id": config.node_id.hex()}), flush=True)

    agent = Agent(config, template, ready=ready)
    drain_on_signals(agent)

    def on_stdin(fd: int, _: int) -> None:
        if not os.read(fd, 4096):
            agent.loop.remove_handler(fd)
            agent.stop()

    agent.loop.add_handler(sys.stdin.fileno(), on_stdin, agent.loop.READ)
    agent.run()
    return 0
