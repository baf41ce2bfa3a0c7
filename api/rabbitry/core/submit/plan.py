"""`Plan`: what all calls of one function, or method, with one set of options share. HOT PATH."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakValueDictionary

from rabbitry.arguments import shown
from rabbitry_broker.messages import Task, TaskHeader, encode_header

HEADER_BYTES_MAX = 4 * 1024 * 1024  # it travels with each message, of which RabbitMQ 4 takes 16 MiB


class Route(Protocol):
    """Decides where each message of a plan goes."""

    def next_queue(self) -> str:
        """Return the queue of the next message."""


class Timing:
    """How long the runs of one function take, whatever their options: plans of the same function share it."""

    __slots__ = ("__weakref__", "mean")

    def __init__(self) -> None:
        self.mean: float | None = None

    def learn(self, mean: float) -> None:
        """Take the mean of one batch into account."""
        self.mean = mean if self.mean is None else 0.7 * self.mean + 0.3 * mean


class Timings:
    """Run times by function, as long as there are plans for it. Any thread may call anything."""

    def __init__(self) -> None:
        self._by_function: WeakValueDictionary[bytes, Timing] = WeakValueDictionary()

    def of(self, function: bytes) -> Timing:
        """Return what the plans of a function share."""
        timing = self._by_function.get(function)
        if timing is None:
            timing = self._by_function[function] = Timing()
        return timing

    def learn(self, function: bytes, mean: float) -> None:
        """Take the mean run time of one batch into the batch size of the next."""
        timing = self._by_function.get(function)
        if timing is not None:
            timing.learn(mean)


class Plan:
    """What all calls of one function with one set of options share.

    Args:
        header: of all its messages.
        queue: where they go.
        single: each task travels in a message of its own.
        route: decides for each message instead of `queue`.
        timing: run times of the function; of this plan alone by default.
        line: of the actor that its calls go to.

    Raises:
        ValueError: the header is too large.
    """

    __slots__ = (
        "__weakref__",
        "function",
        "header",
        "header_bytes",
        "line",
        "pending",
        "priority",
        "queue",
        "route",
        "single",
        "timing",
    )

    def __init__(
        self,
        header: TaskHeader,
        queue: str,
        *,
        single: bool = False,
        route: Route | None = None,
        timing: Timing | None = None,
        line: Line | None = None,
    ) -> None:
        self.header = header
        self.header_bytes = encode_header(header)
        size = len(self.header_bytes)
        if size > HEADER_BYTES_MAX:
            raise ValueError(
                f"the options of {shown(header.name)} take {size} bytes, and {HEADER_BYTES_MAX} at most travel with "
                "each task: pass what is large in its name, runtime_env or retry_exceptions as an argument"
            )
        self.function = header.function
        self.queue = queue
        self.priority = header.priority
        self.single = single
        self.route = route
        self.pending: list[Task] = []
        self.timing = timing or Timing()
        self.line = line

    @property
    def mean(self) -> float | None:
        """Seconds that a run takes, None if not known."""
        return self.timing.mean

    def next_queue(self) -> str:
        """Return the queue of the next message."""
        return self.queue if self.route is None else self.route.next_queue()


class Line:
    """The calls of this client to one actor that were not sent yet, in order."""

    __slots__ = ("pending", "position", "queue")

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.pending: list[tuple[Plan, Task]] = []
        self.position = 0
