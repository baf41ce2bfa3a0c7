"""An iterator of one process that may be passed to another before it is begun: the local half of `util.iter`.

A source is a function `source(timeout) -> iterator`. With a timeout it does not wait longer than that, and yields
`NotReady` instead of an item; all transformations pass that through, so that `union` can go on with another source.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from rabbitry import calls
from rabbitry.decorator import remote
from rabbitry.util.iter_metrics import MetricsContext, SharedMetrics

T = TypeVar("T")

MOST_AT_ONCE = 100
"""Items that `union` takes from a source of weight "*" before the next one has its turn."""


class NotReady:
    """Stands for an item that is yet to come."""


Source = Callable[[Any], Iterator[Any]]
Step = Callable[[Iterator[Any]], Iterator[Any]]


class LocalIterator(Generic[T]):
    """An iterator that is made when the first item is asked for. Made by `ParallelIterator.gather_sync` and others.

    Args:
        base_iterator: the source.
        shared_metrics: what it and those made of it count together.
        local_transforms: what is done with the items of the source, one after the other.
        timeout: seconds to wait for an item at most; None for ever.
        name: shown by `repr`.
    """

    ON_FETCH_START_HOOK_NAME = "_on_fetch_start"
    thread_local = threading.local()

    def __init__(
        self,
        base_iterator: Source,
        shared_metrics: SharedMetrics,
        local_transforms: list[Step] | None = None,
        timeout: float | None = None,
        name: str | None = None,
    ) -> None:
        self.base_iterator = base_iterator
        self.shared_metrics = shared_metrics
        self.local_transforms = local_transforms or []
        self.timeout = timeout
        self.name = name or "unknown"
        self.built_iterator: Iterator[Any] | None = None

    @staticmethod
    def get_metrics() -> MetricsContext:
        """Return what the iterator counts whose function this is called in.

        Raises:
            ValueError: not inside such a function.
        """
        metrics: MetricsContext | None = getattr(LocalIterator.thread_local, "metrics", None)
        if metrics is None:
            raise ValueError("Cannot access context outside an iterator.")
        return metrics

    @contextmanager
    def _metrics_context(self) -> Iterator[None]:
        self.thread_local.metrics = self.shared_metrics.get()
        yield

    def __iter__(self) -> Iterator[T]:
        if self.built_iterator is None:
            built = iter(self.base_iterator(self.timeout))
            for step in self.local_transforms:
                built = step(built)
            self.built_iterator = built
        return self.built_iterator

    def __next__(self) -> T:
        return next(iter(self))

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    def _then(self, step: Step, name: str) -> LocalIterator[Any]:
        return LocalIterator(
            self.base_iterator, self.shared_metrics, [*self.local_transforms, step], name=self.name + name
        )

    def transform(self, fn: Callable[[Iterator[T]], Iterator[Any]]) -> LocalIterator[Any]:
        """Pass all items through a generator function, which is called once."""

        def step(items: Iterator[Any]) -> Iterator[Any]:
            yield from fn(items)

        return self._then(step, ".transform()")

    def for_each(
        self, fn: Callable[[T], Any], max_concurrency: int = 1, resources: dict[str, Any] | None = None
    ) -> LocalIterator[Any]:
        """Apply a function to each item.

        Args:
            fn: the function.
            max_concurrency: calls at a time; other than 1: in tasks, and their results come as they are ready. 0 is as
                many as there are items.
            resources: options of these tasks.
        """
        applied = self._applied(fn) if max_concurrency == 1 else _in_tasks(fn, max_concurrency, resources or {})
        begin = getattr(fn, self.ON_FETCH_START_HOOK_NAME, None)

        def step(items: Iterator[Any]) -> Iterator[Any]:
            results = applied(items)
            fresh = True
            while True:
                if fresh and begin is not None:
                    with self._metrics_context():
                        begin()
                try:
                    item = next(results)
                except StopIteration:
                    return
                fresh = not isinstance(item, NotReady)
                yield item

        return self._then(step, ".for_each()")

    def _applied(self, fn: Callable[[Any], Any]) -> Step:
        def step(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                if isinstance(item, NotReady):
                    yield item
                    continue
                # A function may say that it is not ready itself: it is asked again.
                result: Any = None
                while True:
                    with self._metrics_context():
                        result = fn(item)
                    yield result
                    if not isinstance(result, NotReady):
                        break

        return step

    def filter(self, fn: Callable[[T], bool]) -> LocalIterator[T]:
        """Keep the items for which `fn` returns True."""

        def step(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                with self._metrics_context():
                    kept = isinstance(item, NotReady) or fn(item)
                if kept:
                    yield item

        return self._then(step, ".filter()")

    def batch(self, n: int) -> LocalIterator[list[T]]:
        """Gather items into lists of `n`; the last one may be shorter."""

        def step(items: Iterator[Any]) -> Iterator[Any]:
            batch: list[Any] = []
            for item in items:
                if isinstance(item, NotReady):
                    yield item
                    continue
                batch.append(item)
                if len(batch) >= n:
                    yield batch
                    batch = []
            if batch:
                yield batch

        return self._then(step, f".batch({n})")

    def flatten(self) -> LocalIterator[Any]:
        """Take lists of items apart."""

        def step(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                if isinstance(item, NotReady):
                    yield item
                else:
                    yield from item

        return self._then(step, ".flatten()")

    def shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> LocalIterator[T]:
        """Give items in random order, each out of a buffer of so many.

        Args:
            shuffle_buffer_size: with as many as there are items, every order is as likely.
            seed: of the random numbers; None for another order each time.
        """
        generator = random.Random(seed)

        def drawn(buffer: list[Any]) -> Any:
            return buffer.pop(generator.randint(0, len(buffer) - 1))

        def step(items: Iterator[Any]) -> Iterator[Any]:
            buffer: list[Any] = []
            for item in items:
                if isinstance(item, NotReady):
                    yield item
                    continue
                buffer.append(item)
                if len(buffer) >= shuffle_buffer_size:
                    yield drawn(buffer)
            while buffer:
                yield drawn(buffer)

        return self._then(step, f".shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})")

    def combine(self, fn: Callable[[T], list[Any]]) -> LocalIterator[Any]:
        """Apply a function that returns lists, and take these apart."""
        combined = self.for_each(fn).flatten()
        combined.name = self.name + ".combine()"
        return combined

    def zip_with_source_actor(self) -> LocalIterator[tuple[Any, T]]:
        """Give `(actor, item)`: which actor each item came from. After `gather_async`."""

        def paired(item: T) -> tuple[Any, T]:
            actor = LocalIterator.get_metrics().current_actor
            if actor is None:
                raise ValueError("Could not identify source actor of item")
            return actor, item

        zipped = self.for_each(paired)
        zipped.name = self.name + ".zip_with_source_actor()"
        return zipped

    def take(self, n: int) -> list[T]:
        """Return the first `n` items, or all if there are fewer."""
        taken: list[T] = []
        for item in self:
            taken.append(item)
            if len(taken) >= n:
                break
        return taken

    def show(self, n: int = 20) -> None:
        """Print the first `n` items."""
        for item in self.take(n):
            print(item)

    def duplicate(self, n: int) -> list[LocalIterator[T]]:
        """Return `n` iterators that all give the items of this one; none gets further ahead than by one item.

        Raises:
            ValueError: `n` is less than 2.
        """
        if n < 2:
            raise ValueError("Number of copies must be >= 2")
        queues: list[deque[Any]] = [deque() for _ in range(n)]

        def source_of(own: deque[Any]) -> Source:
            def source(timeout: Any) -> Iterator[Any]:
                while True:
                    if len(own) < max(map(len, queues)):
                        yield NotReady()  # the others have not had what this one had
                        continue
                    if not own:
                        self.timeout = timeout
                        try:
                            item = next(self)
                        except StopIteration:
                            return
                        for each in queues:
                            each.append(item)
                    yield own.popleft()

            return source

        return [
            LocalIterator(source_of(own), self.shared_metrics, name=f"{self.name}.duplicate[{index}]")
            for index, own in enumerate(queues)
        ]

    def union(
        self,
        *others: LocalIterator[T],
        deterministic: bool = False,
        round_robin_weights: list[Any] | None = None,
    ) -> LocalIterator[T]:
        """Give the items of this iterator and of others.

        Args:
            others: the others.
            deterministic: take turns; else items come as they are ready.
            round_robin_weights: how many items of each are taken in its turn; "*" for all that are ready.

        Raises:
            ValueError: one is no LocalIterator, or there is not one weight for each.
        """
        for other in others:
            if not isinstance(other, LocalIterator):
                raise ValueError(f"other must be of type LocalIterator, got {type(other)}")
        parents = [self, *others]
        weights = [1] * len(parents) if round_robin_weights is None else round_robin_weights
        if len(weights) != len(parents):
            raise ValueError("Length of round robin weights must equal number of iterators total.")
        if round_robin_weights is None:
            timeouts: list[int | None] = [None if deterministic else 0] * len(parents)
        else:
            timeouts = [0 if weight == "*" else None for weight in weights]
        metrics = SharedMetrics(parents=[parent.shared_metrics for parent in parents])
        active: list[tuple[Any, LocalIterator[T]]] = [
            (weight, LocalIterator(parent.base_iterator, metrics, parent.local_transforms, timeout))
            for weight, parent, timeout in zip(weights, parents, timeouts, strict=True)
        ]

        def source(timeout: Any) -> Iterator[Any]:
            while active:
                for turn in list(active):
                    weight, each = turn
                    for _ in range(MOST_AT_ONCE if weight == "*" else _rounded(weight)):
                        try:
                            item = next(each)
                        except StopIteration:
                            active.remove(turn)
                            break
                        if not isinstance(item, NotReady):
                            yield item
                            continue
                        if timeout is not None:
                            yield item
                        break

        return LocalIterator(source, metrics, name=f"LocalUnion[{self}, {', '.join(map(str, others))}]")


def _in_tasks(fn: Callable[[Any], Any], most: int, options: dict[str, Any]) -> Step:
    def step(items: Iterator[Any]) -> Iterator[Any]:
        function = remote(fn).options(**options) if options else remote(fn)
        running: list[Any] = []
        for item in items:
            if isinstance(item, NotReady):
                yield item
                continue
            if most and len(running) >= most:
                done, running = calls.wait(running)
                yield from calls.get(done)
            running.append(function.remote(item))
        while running:
            done, running = calls.wait(running)
            yield from calls.get(done)

    return step


def _rounded(weight: float) -> int:
    """Return a whole number that is `weight` on average."""
    whole = int(weight)
    return whole + (random.random() < weight - whole)
