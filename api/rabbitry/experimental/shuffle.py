"""A shuffle: the items of some partitions are dealt out anew to others, by one task for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rabbitry import calls
from rabbitry.decorator import remote
from rabbitry.object_ref import ObjectRef


class ObjectStoreWriter:
    """Gathers what a task gives to one output partition; this one stores each item as an object of its own."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def add(self, item: Any) -> None:
        """Take an item."""
        self.results.append(calls.put(item))

    def finish(self) -> list[Any]:
        """Return what the output partition gets: refs of objects, or items."""
        return self.results


class ObjectStoreWriterNonStreaming(ObjectStoreWriter):
    """Gives all items of an output partition as one value."""

    def add(self, item: Any) -> None:
        """Take an item."""
        self.results.append(item)


def round_robin_partitioner(input_stream: Iterable[Any], num_partitions: int) -> Iterator[tuple[int, Any]]:
    """Give each item with the number of an output partition: each in turn."""
    for index, item in enumerate(input_stream):
        yield index % num_partitions, item


def simple_shuffle(
    *,
    input_reader: Callable[[int], Iterable[Any]],
    input_num_partitions: int,
    output_num_partitions: int,
    output_writer: Callable[[int, list[Any]], Any],
    partitioner: Callable[[Iterable[Any], int], Iterable[tuple[int, Any]]] = round_robin_partitioner,
    object_store_writer: type[ObjectStoreWriter] = ObjectStoreWriter,
    tracker: Any = None,
    streaming: bool = True,
) -> list[Any]:
    """Shuffle; return what the output writers returned, in order.

    Args:
        input_reader: returns the items of an input partition, by its number.
        input_num_partitions: how many there are.
        output_num_partitions: how many there will be.
        output_writer: gets the number of an output partition and what it consists of (refs, with the default writer).
        partitioner: gives each item the number of its output partition.
        object_store_writer: how items are stored in between.
        tracker: an actor whose `register_objectrefs.remote(map_refs, reduce_refs)` is told of the tasks; None for none.
        streaming: the output writer gets what there is of all inputs in one list; else one value after the other is
            read first.
    """

    def map_one(number: int) -> Any:
        writers = [object_store_writer() for _ in range(output_num_partitions)]
        for output, item in partitioner(input_reader(number), output_num_partitions):
            writers[output].add(item)
        finished = [writer.finish() for writer in writers]
        return finished if output_num_partitions != 1 else finished[0]

    def reduce_one(number: int, *parts: Any) -> Any:
        given = [item for part in parts for item in part]
        if not streaming:
            refs = [item for item in given if isinstance(item, ObjectRef)]
            values = dict(zip(refs, calls.get(refs), strict=True))
            given = [values[item] if isinstance(item, ObjectRef) else item for item in given]
        return output_writer(number, given)

    shuffle_map = remote(num_returns=output_num_partitions)(map_one)
    shuffle_reduce = remote(reduce_one)
    mapped = [shuffle_map.remote(number) for number in range(input_num_partitions)]
    rows = [row if isinstance(row, list) else [row] for row in mapped]
    reduced = [shuffle_reduce.remote(number, *[row[number] for row in rows]) for number in range(output_num_partitions)]
    if tracker is not None:
        tracker.register_objectrefs.remote([row[0] for row in rows], reduced)
    results: list[Any] = calls.get(reduced)
    return results
