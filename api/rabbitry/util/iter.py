"""Iterators over items that actors make, each a shard of its own (deprecated in Ray).

    numbers = from_range(10, num_shards=2).for_each(lambda x: x * x).filter(lambda x: x % 2 == 0)
    for number in numbers.gather_sync(): ...

What is noted on a `ParallelIterator` runs in its actors; `gather_sync` and `gather_async` bring the items here. An
actor's iterator begins anew with each of these.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from rabbitry import calls
from rabbitry.decorator import remote
from rabbitry.util.iter_metrics import MetricsContext, SharedMetrics
from rabbitry.util.local_iterator import LocalIterator, NotReady

__all__ = [
    "LocalIterator",
    "MetricsContext",
    "ParallelIterator",
    "ParallelIteratorWorker",
    "SharedMetrics",
    "from_actors",
    "from_items",
    "from_iterators",
    "from_range",
]

T = TypeVar("T")
_NextValueNotReady = NotReady
_Transform = Callable[[LocalIterator[Any]], LocalIterator[Any]]


def from_items(items: Sequence[T], num_shards: int = 2, repeat: bool = False) -> ParallelIterator[T]:
    """Return an iterator over items, dealt out to the shards in turn.

    Args:
        items: the items.
        num_shards: actors to create.
        repeat: begin again after the last item, for ever.
    """
    shards = [list(items[start::num_shards]) for start in range(num_shards)]
    kind = type(items[0]).__name__ if items else "None"
    name = f"from_items[{kind}, {len(items)}, shards={num_shards}{_repeated(repeat)}]"
    return from_iterators(shards, repeat=repeat, name=name)


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator[int]:
    """Return an iterator over the numbers below `n`; each shard has some that follow each other.

    Args:
        n: the end.
        num_shards: actors to create.
        repeat: begin again after the last number, for ever.
    """
    size = n // num_shards
    ranges = [range(each * size, n if each == num_shards - 1 else (each + 1) * size) for each in range(num_shards)]
    return from_iterators(ranges, repeat=repeat, name=f"from_range[{n}, shards={num_shards}{_repeated(repeat)}]")


def from_iterators(
    generators: Sequence[Iterable[T] | Callable[[], Iterable[T]]], repeat: bool = False, name: str | None = None
) -> ParallelIterator[T]:
    """Return an iterator over several iterables, each in an actor of its own.

    Args:
        generators: iterables that can be pickled, or functions that return one.
        repeat: begin each again when it ends, for ever.
        name: shown by `repr`.
    """
    worker = remote(ParallelIteratorWorker)
    actors = [worker.remote(each, repeat) for each in generators]
    return from_actors(actors, name=name or f"from_iterators[shards={len(actors)}{_repeated(repeat)}]")


def from_actors(actors: Sequence[Any], name: str | None = None) -> ParallelIterator[Any]:
    """Return an iterator over what actors make.

    Args:
        actors: handles on actors whose classes inherit from `ParallelIteratorWorker`.
        name: shown by `repr`.
    """
    return ParallelIterator([_ActorSet(list(actors), [])], name or f"from_actors[shards={len(actors)}]", [])


def _repeated(repeat: bool) -> str:
    return ", repeat=True" if repeat else ""


class _ActorSet:
    """Actors, and what each does with its items."""

    def __init__(self, actors: list[Any], transforms: list[_Transform]) -> None:
        self.actors = actors
        self.transforms = transforms

    def init_actors(self) -> None:
        calls.get([actor.par_iter_init.remote(self.transforms) for actor in self.actors])

    def with_transform(self, transform: _Transform) -> _ActorSet:
        return _ActorSet(self.actors, [*self.transforms, transform])


class ParallelIterator(Generic[T]):
    """Items in several actors. It may be passed to other processes; each shard is for one reader.

    Args:
        actor_sets: who has the items; several after `union`.
        name: shown by `repr`.
        parent_iterators: those whose actors this one's need.
    """

    def __init__(self, actor_sets: list[_ActorSet], name: str, parent_iterators: list[ParallelIterator[Any]]) -> None:
        self.actor_sets = actor_sets
        self.name = name
        self.parent_iterators = parent_iterators

    def __iter__(self) -> Iterator[T]:
        raise TypeError(
            "You must use it.gather_sync() or it.gather_async() to iterate over the results of a ParallelIterator."
        )

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    def _then(self, transform: _Transform, name: str) -> ParallelIterator[Any]:
        sets = [each.with_transform(transform) for each in self.actor_sets]
        return ParallelIterator(sets, self.name + name, self.parent_iterators)

    def transform(self, fn: Callable[[Iterator[T]], Iterator[Any]]) -> ParallelIterator[Any]:
        """Pass the items of each shard through a generator function, which is called once for each."""
        return self._then(lambda local: local.transform(fn), ".transform()")

    def for_each(
        self, fn: Callable[[T], Any], max_concurrency: int = 1, resources: dict[str, Any] | None = None
    ) -> ParallelIterator[Any]:
        """Apply a function to each item.

        Args:
            fn: the function.
            max_concurrency: calls at a time of each shard; other than 1: in tasks, in no order. 0 for no limit.
            resources: options of these tasks.
        """
        assert max_concurrency >= 0, "max_concurrency must be non-negative."
        return self._then(lambda local: local.for_each(fn, max_concurrency, resources), ".for_each()")

    def filter(self, fn: Callable[[T], bool]) -> ParallelIterator[T]:
        """Keep the items for which `fn` returns True."""
        return self._then(lambda local: local.filter(fn), ".filter()")

    def batch(self, n: int) -> ParallelIterator[list[T]]:
        """Gather items of a shard into lists of `n`."""
        return self._then(lambda local: local.batch(n), f".batch({n})")

    def flatten(self) -> ParallelIterator[Any]:
        """Take lists of items apart."""
        return self._then(lambda local: local.flatten(), ".flatten()")

    def combine(self, fn: Callable[[T], list[Any]]) -> ParallelIterator[Any]:
        """Apply a function that returns lists, and take these apart."""
        combined = self.for_each(fn).flatten()
        combined.name = self.name + ".combine()"
        return combined

    def local_shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> ParallelIterator[T]:
        """Shuffle the items of each shard; see `LocalIterator.shuffle`."""
        return self._then(
            lambda local: local.shuffle(shuffle_buffer_size, seed),
            f".local_shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})",
        )

    def repartition(self, num_partitions: int, batch_ms: int = 0) -> ParallelIterator[T]:
        """Return an iterator with another number of shards; items are dealt out in turn.

        Args:
            num_partitions: actors to create.
            batch_ms: milliseconds for which an actor gathers items that it sends at once.
        """
        actors = self._begun()

        def generator(start: int) -> Callable[[], Iterator[Any]]:
            return lambda: _as_they_come(
                actors, lambda actor: actor.par_iter_slice_batch.remote(num_partitions, start, batch_ms), 1, None
            )

        worker = remote(ParallelIteratorWorker)
        made = [worker.remote(generator(start), False) for start in range(num_partitions)]
        name = f"{self.name}.repartition[num_partitions={num_partitions}]"
        return ParallelIterator([_ActorSet(made, [])], name, [self])

    def _begun(self) -> list[Any]:
        for each in self.actor_sets:
            each.init_actors()
        return [actor for each in self.actor_sets for actor in each.actors]

    def gather_sync(self) -> LocalIterator[T]:
        """Return the items here, one of each shard in turn."""
        gathered = self.batch_across_shards().flatten()
        gathered.name = f"{self}.gather_sync()"
        return gathered

    def batch_across_shards(self) -> LocalIterator[list[T]]:
        """Return lists of items here: one of each shard that has some left."""

        def source(timeout: Any) -> Iterator[Any]:
            active = self._begun()
            while active:
                refs = [actor.par_iter_next_batch.remote(0) for actor in active]
                while not _all_ready(refs, timeout):
                    yield NotReady()
                row, rest = [], []
                for actor, ref in zip(active, refs, strict=True):
                    try:
                        row += calls.get(ref)
                    except StopIteration:
                        continue
                    rest.append(actor)
                active = rest
                if row:
                    yield row
                if timeout is not None:
                    yield NotReady()

        return LocalIterator(source, SharedMetrics(), name=f"{self}.batch_across_shards()")

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> LocalIterator[T]:
        """Return the items here as they are ready.

        Args:
            batch_ms: milliseconds for which an actor gathers items that it sends at once.
            num_async: requests under way to each actor.

        Raises:
            ValueError: one is too small.
        """
        if num_async < 1:
            raise ValueError("queue depth must be positive")
        if batch_ms < 0:
            raise ValueError("batch time must be positive")
        metrics = SharedMetrics()
        # By the iterator: a union of several puts a context of its own in the place of this one.
        gathered: list[LocalIterator[T]] = []

        def note(actor: Any) -> None:
            gathered[0].shared_metrics.get().current_actor = actor

        def source(timeout: Any) -> Iterator[Any]:
            return _as_they_come(
                self._begun(), lambda actor: actor.par_iter_next_batch.remote(batch_ms), num_async, timeout, note
            )

        gathered.append(LocalIterator(source, metrics, name=f"{self}.gather_async()"))
        return gathered[0]

    def take(self, n: int) -> list[T]:
        """Return the first `n` items."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Print the first `n` items."""
        self.gather_sync().show(n)

    def union(self, other: ParallelIterator[T]) -> ParallelIterator[T]:
        """Return an iterator over the shards of this one and of another.

        Raises:
            TypeError: the other is no ParallelIterator.
        """
        if not isinstance(other, ParallelIterator):
            raise TypeError(f"other must be of type ParallelIterator, got {type(other)}")
        return ParallelIterator(
            [*self.actor_sets, *other.actor_sets],
            f"ParallelUnion[{self}, {other}]",
            [*self.parent_iterators, *other.parent_iterators],
        )

    def select_shards(self, shards_to_keep: list[int]) -> ParallelIterator[T]:
        """Return an iterator over some of the shards.

        Raises:
            ValueError: after `union`, or no shard at all.
            AssertionError: there is no such shard.
        """
        if len(self.actor_sets) > 1:
            raise ValueError("select_shards() is not allowed after union()")
        if not shards_to_keep:
            raise ValueError("at least one shard must be selected")
        every = self.actor_sets[0]
        kept = [actor for index, actor in enumerate(every.actors) if index in shards_to_keep]
        assert len(kept) == len(shards_to_keep), "Invalid actor index"
        name = f"{self}.select_shards({len(shards_to_keep)} total)"
        return ParallelIterator([_ActorSet(kept, every.transforms)], name, self.parent_iterators)

    def num_shards(self) -> int:
        """Return how many shards there are."""
        return sum(len(each.actors) for each in self.actor_sets)

    def shards(self) -> list[LocalIterator[T]]:
        """Return an iterator over each shard."""
        return [self.get_shard(index) for index in range(self.num_shards())]

    def get_shard(self, shard_index: int, batch_ms: int = 0, num_async: int = 1) -> LocalIterator[T]:
        """Return an iterator over one shard. It may be passed to another process.

        Args:
            shard_index: which one.
            batch_ms: milliseconds for which the actor gathers items that it sends at once.
            num_async: requests under way to the actor.

        Raises:
            ValueError: there is no such shard, or a number is too small.
        """
        if num_async < 1:
            raise ValueError("num async must be positive")
        if batch_ms < 0:
            raise ValueError("batch time must be positive")
        places = [(actor, each.transforms) for each in self.actor_sets for actor in each.actors]
        if not 0 <= shard_index < len(places):
            raise ValueError("Shard index out of range", shard_index, self.num_shards())
        actor, transforms = places[shard_index]

        def source(timeout: Any) -> Iterator[Any]:
            calls.get(actor.par_iter_init.remote(transforms))
            refs = deque(actor.par_iter_next_batch.remote(batch_ms) for _ in range(num_async))
            while True:
                while not _all_ready([refs[0]], timeout):
                    yield NotReady()
                try:
                    batch = calls.get(refs.popleft())
                except StopIteration:
                    return
                refs.append(actor.par_iter_next_batch.remote(batch_ms))
                yield from batch
                if timeout is not None:
                    yield NotReady()

        return LocalIterator(source, SharedMetrics(), name=f"{self.name}.shard[{shard_index}]")


def _all_ready(refs: list[Any], timeout: float | None) -> bool:
    if timeout is None:
        return True
    return not calls.wait(refs, num_returns=len(refs), timeout=timeout)[1]


def _as_they_come(
    actors: list[Any],
    ask: Callable[[Any], Any],
    depth: int,
    timeout: float | None,
    note: Callable[[Any], None] = lambda actor: None,
) -> Iterator[Any]:
    """Ask actors for batches, each anew when it answers, until all have said that they are at their end."""
    asked = {ask(actor): actor for _ in range(depth) for actor in actors}
    while asked:
        pending = list(asked)
        ready, _ = calls.wait(pending, num_returns=len(pending), timeout=timeout or 0)
        if not ready and timeout is None:
            ready, _ = calls.wait(pending, num_returns=1)
        for ref in ready:
            actor = asked.pop(ref)
            try:
                batch = calls.get(ref)
            except StopIteration:
                continue
            asked[ask(actor)] = actor
            for item in batch:
                note(actor)
                yield item
        if timeout is not None:
            yield NotReady()


class ParallelIteratorWorker:
    """The base of actors that iterate; those of `from_actors` inherit from it and call its constructor.

    Args:
        item_generator: an iterable, or a function that returns one.
        repeat: begin again when it ends, for ever.
    """

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        self.item_generator: Any = _repeating(item_generator) if repeat else _made(item_generator)
        self.local_it: Iterator[Any] | None = None
        self.next_ith_buffer: defaultdict[int, deque[Any]] | None = None

    def par_iter_init(self, transforms: list[_Transform]) -> None:
        """Begin, with what is to be done with the items."""
        local: LocalIterator[Any] = LocalIterator(lambda timeout: self.item_generator, SharedMetrics())
        for transform in transforms:
            local = transform(local)
            assert local is not None, transform
        self.local_it = iter(local)

    def _begun(self) -> Iterator[Any]:
        assert self.local_it is not None, "must call par_iter_init()"
        return self.local_it

    def par_iter_next(self) -> Any:
        """Return the next item.

        Raises:
            StopIteration: there is none.
        """
        return next(self._begun())

    def par_iter_next_batch(self, batch_ms: int) -> list[Any]:
        """Return the items that can be had in so many milliseconds, one at least.

        Raises:
            StopIteration: there is none.
        """
        return _batch(self.par_iter_next, batch_ms)

    def par_iter_slice(self, step: int, start: int) -> Any:
        """Return the next item of those with the numbers `start`, `start + step`, ...

        Raises:
            StopIteration: there is none.
        """
        items = self._begun()
        if self.next_ith_buffer is None:
            self.next_ith_buffer = defaultdict(deque)
        buffers = self.next_ith_buffer
        if not buffers[start]:
            for number, item in zip(range(step), items, strict=False):
                buffers[number].append(item)
            if not buffers[start]:
                raise StopIteration
        return buffers[start].popleft()

    def par_iter_slice_batch(self, step: int, start: int, batch_ms: int) -> list[Any]:
        """Return the items of `par_iter_slice` that can be had in so many milliseconds, one at least.

        Raises:
            StopIteration: there is none.
        """
        return _batch(lambda: self.par_iter_slice(step, start), batch_ms)


def _made(item_generator: Any) -> Any:
    return item_generator() if callable(item_generator) else item_generator


def _repeating(item_generator: Any) -> Iterator[Any]:
    while True:
        items = iter(_made(item_generator))
        if items is item_generator:
            raise ValueError(
                f"Cannot iterate over {item_generator} multiple times. Pass the iterable that it is of, or a function "
                "that returns it."
            )
        yield from items


def _batch(take: Callable[[], Any], batch_ms: int) -> list[Any]:
    batch = [take()]
    end = time.monotonic() + batch_ms / 1000
    while batch_ms and time.monotonic() < end:
        try:
            batch.append(take())
        except StopIteration:
            break
    return batch
