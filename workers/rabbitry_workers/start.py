"""`rabbitry start`: a node in the foreground, from its checks to its last word.

    starting --> working --SIGTERM, SIGINT, `rabbitry stop`--> draining --nothing runs | limit | second signal--> gone

A process that started the node (`Cluster`) may hold the other end of a link: it is told when the node takes work, and
the node ends at once when it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rabbitry_broker.environment import number
from rabbitry_broker.errors import RabbitryBrokerError

if TYPE_CHECKING:
    from rabbitry_workers.node.agent import Agent
    from rabbitry_workers.node.model.config import NodeConfig

DRAIN_VARIABLE = "RABBITRY_DRAIN_SECONDS"
DRAIN_SECONDS = 30.0

log = logging.getLogger("rabbitry.node")


class StartError(RabbitryBrokerError, ValueError):
    """An argument of `rabbitry start` that is impossible. The message names it and the remedy."""


@dataclass(frozen=True)
class StartOptions:
    """What `rabbitry start` was told.

    Attributes:
        address: RabbitMQ's URL, "auto", or `unix:///directory`; None for the environment's.
        store: Redis' URL; None for the environment's.
        prefix: of keys and queues; None for the environment's.
        num_cpus: CPUs it offers; None for the machine's.
        num_gpus: GPUs it offers; None for those found.
        memory: bytes it offers; None for most of the machine's.
        resources: custom resources it offers, by name.
        labels: its labels.
        name: what people call it; None for the host's name.
        node_ip_address: by which other hosts reach this one; None for what the system says.
        own_host: share no memory with others, as on a host of its own.
        link: descriptor of a socket to whoever started it; None for a node of its own.
    """

    address: str | None = None
    store: str | None = None
    prefix: str | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    node_ip_address: str | None = None
    own_host: bool = False
    link: int | None = None


def run_node(options: StartOptions) -> int:
    """Run a node until it is told to leave; return the exit code.

    Raises:
        RabbitryBrokerError: a setting is wrong, a server cannot be reached, or the cluster would not have this node.
        ValueError: an impossible resource or label.
    """
    from rabbitry_broker.shared_memory import raise_file_limit
    from rabbitry_workers.node.dispatch.forker import fork_template

    raise_file_limit()  # every executor and actor takes some of the agent's descriptors
    # First of all: the template is forked while this process has neither threads nor connections.
    template_pid, template_socket = fork_template()
    try:
        config = _configure(options)
        from rabbitry_workers.node.agent import Agent

        link = None if options.link is None else socket.socket(fileno=options.link)
        agent = Agent(config, (template_pid, template_socket), ready=lambda: _on_ready(config, link))
    except BaseException:
        template_socket.close()
        os.waitpid(template_pid, 0)
        raise
    leaving = Leaving(agent, _drain_seconds())
    if link is not None:
        agent.loop.add_handler(link.fileno(), leaving.on_link, agent.loop.READ)
    leaving.watch_signals()
    agent.run()
    log.info("node %s has left", config.short_id)
    return 0


def _configure(options: StartOptions) -> NodeConfig:
    from rabbitry.cluster import check_cluster
    from rabbitry.labels import check_labels
    from rabbitry.nodes import implicit
    from rabbitry_broker.resources import detect_totals
    from rabbitry_broker.store.host import own_host, shared_session
    from rabbitry_workers.joining import find_cluster
    from rabbitry_workers.node.model.config import NodeConfig
    from rabbitry_workers.node.services.peers import port_from_environment

    totals = detect_totals(options.num_cpus, options.num_gpus, options.memory, options.resources).to_floats()
    facts = implicit(totals, check_labels(options.labels), options.node_ip_address)
    cluster = find_cluster(options.address, options.store, options.prefix)
    _drain_seconds()
    port_from_environment()
    mark = check_cluster(cluster.endpoint, timeout=cluster.connect_timeout)
    config = NodeConfig(
        endpoint=cluster.endpoint,
        **facts,
        session=cluster.session or shared_session(cluster.endpoint, mark.cluster_id),
        mark=mark.sealed,
        object_ttl=cluster.object_ttl,
        spill_url=cluster.spill_url,
        memory_limit=cluster.memory_limit,
        executor_memory=cluster.executor_memory,
        lease=cluster.node_lease,
        client_lease=cluster.client_lease,
    )
    if options.name:
        config.name = options.name
    if options.own_host:
        config.host, config.session = own_host(config.session, config.node_id)
    return config


def _drain_seconds() -> float:
    try:
        return number(DRAIN_VARIABLE, float, DRAIN_SECONDS, unit="seconds")
    except ValueError as error:
        raise StartError(str(error)) from None


def _on_ready(config: NodeConfig, link: socket.socket | None) -> None:
    offers = ", ".join(f"{name}={amount:g}" for name, amount in config.totals.items())
    labels = "".join(f" {key}={value}" for key, value in config.labels.items())
    log.info("node %s (%s) takes work: %s%s", config.short_id, config.name, offers, labels)
    if link is not None:
        link.sendall(json.dumps({"node_id": config.node_id.hex(), "pid": os.getpid()}).encode() + b"\n")


class Leaving:
    """When and how a node leaves. Loop thread only.

    Args:
        agent: the node's agent.
        limit: seconds that draining may take; what runs then goes back to its queue.
    """

    def __init__(self, agent: Agent, limit: float) -> None:
        self._agent = agent
        self._limit = limit
        self._asked = False

    def watch_signals(self) -> None:
        """Drain at the first SIGTERM or SIGINT, end at the second."""
        from rabbitry_workers.node.signals import SignalWatch

        SignalWatch(self._agent.loop, (signal.SIGTERM, signal.SIGINT), self.on_signal)
        self._agent.on_drain = self.drain

    def on_signal(self, number: int) -> None:
        """A signal arrived."""
        name = signal.Signals(number).name
        if self._asked:
            log.warning("%s again: ending at once, what runs goes back to its queue", name)
            self._agent.stop()
        else:
            self.drain(name)

    def drain(self, why: str) -> None:
        """Begin to leave; may be called again."""
        if self._asked:
            return
        self._asked = True
        log.info("%s: draining for up to %g s", why, self._limit)
        self._agent.loop.call_later(self._limit, self._on_limit)
        self._agent.drain()

    def _on_limit(self) -> None:
        log.warning("still at work after %g s: what runs goes back to its queue", self._limit)
        self._agent.stop()

    def on_link(self, fd: int, events: int) -> None:
        """Whoever started this node is gone: nobody would ever stop it."""
        if not os.read(fd, 4096):
            self._agent.loop.remove_handler(fd)
            self._agent.stop()
