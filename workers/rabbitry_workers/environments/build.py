"""The child process of a node that makes an environment ready. Its agent waits for it without standing still.

    agent --request--> builder --READY, descriptors of locks--> agent
                          |----FAILED, why---------------------->
                          '--(its end, without a word: killed, or a bug)

What it prints, and what uv, pip and the like print, goes into a log in the cache; of a failure, the end of that goes
into the error. The locks of the entries go to the agent, which holds them as long as the environment is in use.
"""

from __future__ import annotations

import socket
import sys
import time
import traceback
from typing import Any, Final

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.parent_death import die_with_parent
from rabbitry_broker.runtime_environments import Record
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.channel import BlockingChannel, pack_message
from rabbitry_workers.environments.cache import Cache, Entry
from rabbitry_workers.environments.making import Plan
from rabbitry_workers.environments.masking import masked

READY: Final = "ready"
FAILED: Final = "failed"
SWEEP: Final = "sweep"
MOST_LOCKS: Final = 200  # that one message can carry


def main(descriptor: int) -> int:
    """Do what the agent asks for on this socket; return the exit code."""
    die_with_parent()
    link = socket.socket(fileno=descriptor)
    request = BlockingChannel(link).receive()
    if request is None:
        return 1
    facts: dict[str, Any] = request[0]
    cache = Cache.from_environment()
    if facts.get(SWEEP) is not None:
        for name in facts[SWEEP]:
            cache.remove(name)
        cache.sweep()
        return 0
    print(time.strftime("%Y-%m-%d %H:%M:%S"), "setting up environment", facts["name"], flush=True)
    try:
        entries, setup = _make(facts, cache)
    except Exception as error:
        known = isinstance(error, (RabbitryBrokerError, OSError))
        said = f"{type(error).__name__}: {error}" if known else traceback.format_exc().rstrip()
        print(masked(said), file=sys.stderr, flush=True)
        text = masked(str(error) if isinstance(error, RabbitryBrokerError) else f"{type(error).__name__}: {error}")
        link.sendall(pack_message([FAILED, text.encode("utf-8", "backslashreplace").decode()]))
        return 1
    print("ready", flush=True)
    locks = [entry.lock for entry in entries]
    socket.send_fds(link, [pack_message([READY, setup])[:1]], locks)
    link.sendall(pack_message([READY, setup])[1:])
    cache.sweep()
    return 0


def _make(facts: dict[str, Any], cache: Cache) -> tuple[list[Entry], bytes]:
    endpoint = Endpoint(
        store_url=facts["store_url"],
        broker_url=facts["broker_url"],
        secrets=tuple(facts["secrets"]),
        prefix=facts["prefix"],
    )
    store = ObjectStore(endpoint, Signer(endpoint.secrets))
    try:
        plan = Plan(Record.unpack(facts["record"]), facts["job"], cache, facts["sites"], store.packages)
        entries = plan.make()
    finally:
        store.close()
    if len(entries) > MOST_LOCKS:
        raise RabbitryBrokerError(f"the environment has {len(entries)} parts; {MOST_LOCKS} is the most")
    return entries, plan.setup().pack()
