"""Custody: RabbitMQ closes a channel whose delivery stays unacknowledged too long, so long work is kept elsewhere.

A delivery that is unsettled after `CUSTODY_SECONDS` is written to the node's custody hash in Redis as it came (its
frames are signed), and acknowledged. When its work is done the entry goes. When the node's lease ends, the janitor of
any other node puts what is left of it back on its queue.

    held --10 s--> in custody (Redis) + acknowledged --done--> entry deleted
                                                    '--node dead--> published again, entry deleted
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING

from warren_broker.errors import WarrenBrokerError
from warren_broker.messages import (
    KIND_ACTOR_CALL,
    MalformedMessage,
    decode,
    decode_frames,
    decode_header,
    encode,
    encode_frame,
)
from warren_workers.executor.calls import result_ids
from warren_workers.node.intake import Held

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

log = logging.getLogger("warren.node")

CUSTODY_SECONDS = 10.0


class Custody:
    """The agent's custody of its own deliveries. Loop thread only; nothing happens on the embedded engine."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._held: dict[int, Held] = {}

    def watch(self, held: Held) -> None:
        """A delivery was taken."""
        if not self._agent.endpoint.embedded:
            self._held[id(held)] = held

    def settled(self, held: Held) -> None:
        """Nothing of it is outstanding."""
        self._held.pop(id(held), None)
        if held.custody:
            self._agent.store.call(b"HDEL", self._agent.keys.custody(self._agent.node_id), held.custody)

    def run_once(self) -> None:
        """Take custody of what is unsettled for `CUSTODY_SECONDS`."""
        agent = self._agent
        deadline = time.monotonic() - CUSTODY_SECONDS
        for key, held in list(self._held.items()):
            if held.received_at > deadline:
                break  # they are in the order of their arrival
            del self._held[key]
            if held.delivery is None or held.outstanding <= 0:
                continue
            field = secrets.token_bytes(12)
            try:
                agent.store.call(
                    b"HSET", agent.keys.custody(agent.node_id), field, encode([held.queue, held.delivery.body])
                )
            except WarrenBrokerError as error:
                log.warning("cannot take custody now: %s", error)
                self._held[key] = held
                return
            held.custody = field
            agent.consumer.ack(held.delivery)


def give_back(agent: Agent, node: bytes) -> int:
    """Put a dead node's custody back on its queues; return how many messages there were."""
    store, key = agent.store, agent.keys.custody(node)
    entries = store.call(b"HGETALL", key)
    for field, entry in zip(entries[::2], entries[1::2], strict=True):
        queue, body = decode(entry)
        try:
            left = _unfinished(agent, body)
        except MalformedMessage as error:
            store.put_aside(f"custody of node {node.hex()}", body, str(error))
            store.call(b"HDEL", key, field)
            continue
        if left:
            agent.publisher.publish(
                queue,
                left,
                on_confirm=lambda field=field: agent.loop.add_callback(  # type: ignore[misc]
                    lambda: store.call(b"HDEL", key, field)
                ),
            )
        else:
            store.call(b"HDEL", key, field)
    return len(entries) // 2


def _unfinished(agent: Agent, body: bytes) -> bytes:
    """Return the frames of a message without the tasks whose result stands; one attempt is counted for the rest."""
    frames = []
    for header_bytes, tasks in decode_frames(agent.signer, body):
        header = decode_header(header_bytes)
        finals = [result_ids(task[0], header.num_returns)[-1:] for task in tasks]
        known = [each[0] for each in finals if each]
        stands = {key for key, record in zip(known, agent.store.fetch(known), strict=True) if record is not None}
        count = 0 if header.kind == KIND_ACTOR_CALL or header.max_retries == 0 else 1
        left = [
            (task[0], task[1], task[2] + count, task[3], task[4], task[5])
            for task, final in zip(tasks, finals, strict=True)
            if not final or final[0] not in stands
        ]
        if left:
            frames.append(encode_frame(agent.signer, header_bytes, left))
    return b"".join(frames)
