"""What a node says of itself with its signs of life: how much work it has, and how it fares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sized
from typing import Any

from rabbitry_broker.events import Recorder
from rabbitry_broker.queues.protocol import Publisher
from rabbitry_workers.node.model.lanes import Executor, Lanes
from rabbitry_workers.node.services.gpus import GpuUse


class Figures:
    """Reads the figures of a node.

    Args:
        lanes: its waiting work.
        executors: its processes, by pid.
        hosted: the actors it hosts.
        recorder: counts the events that were dropped.
        publisher: counts the messages that RabbitMQ confirmed, and those it has yet to; queues in the store itself are
            confirmed by its answer, and their publisher counts nothing.
        gpus: returns how busy each GPU is.
        peers: returns what was sent to other hosts.
    """

    def __init__(
        self,
        lanes: Lanes,
        executors: Mapping[int, Executor],
        hosted: Sized,
        recorder: Recorder,
        publisher: Publisher,
        gpus: Callable[[], list[GpuUse]],
        peers: Callable[[], Mapping[str, int]],
    ) -> None:
        self._lanes = lanes
        self._executors = executors
        self._hosted = hosted
        self._recorder = recorder
        self._publisher = publisher
        self._gpus = gpus
        self._peers = peers

    def read(self) -> dict[str, Any]:
        """Return them by name."""
        return {
            "waiting": sum(lane.waiting for lane in self._lanes.values()),
            "executors": dict(Counter(executor.state.value for executor in self._executors.values())),
            "actors": len(self._hosted),
            "events_dropped": self._recorder.dropped,
            "unconfirmed": getattr(self._publisher, "unconfirmed", 0),
            "confirmed": getattr(self._publisher, "confirmed", 0),
            "gpus": self._gpus(),
            **self._peers(),
        }
