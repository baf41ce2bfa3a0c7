"""What iterators count: `LocalIterator.get_metrics()` inside a function that an iterator applies."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rabbitry.util.timer import Timer


class MetricsContext:
    """Counters, timers and notes of one iterator.

    Attributes:
        counters: numbers by name, from 0.
        timers: timers by name.
        info: anything by name.
        current_actor: the actor that the item at hand came from (`gather_async`).
    """

    def __init__(self) -> None:
        self.counters: dict[str, int] = defaultdict(int)
        self.timers: dict[str, Timer] = defaultdict(Timer)
        self.info: dict[str, Any] = {}
        self.current_actor: Any = None

    def save(self) -> dict[str, Any]:
        """Return what is counted, in a form for `restore`."""
        timers = {name: timer.mean for name, timer in self.timers.items()}
        return {"counters": dict(self.counters), "info": dict(self.info), "timers": timers}

    def restore(self, values: dict[str, Any]) -> None:
        """Take counters and notes back; timers begin anew."""
        self.counters.clear()
        self.counters.update(values["counters"])
        self.timers.clear()
        self.info = dict(values["info"])


class SharedMetrics:
    """The context that iterators share which were made of each other.

    Args:
        metrics: the context; a new one if None.
        parents: what is to use this one's context from now on.
    """

    def __init__(self, metrics: MetricsContext | None = None, parents: list[SharedMetrics] | None = None) -> None:
        self.metrics = metrics or MetricsContext()
        self.parents = parents or []
        self.set(self.metrics)

    def set(self, metrics: MetricsContext) -> None:
        """Use another context, here and in the parents."""
        self.metrics = metrics
        for parent in self.parents:
            parent.set(metrics)

    def get(self) -> MetricsContext:
        """Return the context."""
        return self.metrics
