"""`util.actor_group`, `util.iter`, `experimental.shuffle`: on both engines, what the oracle's snippets leave open."""

from __future__ import annotations

from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import RayActorError
from rabbitry.experimental.shuffle import ObjectStoreWriterNonStreaming, simple_shuffle
from rabbitry.util.iter import from_range

pytestmark = [
    pytest.mark.usefixtures("session"),
    pytest.mark.filterwarnings("ignore::rabbitry.util.annotations.RayDeprecationWarning"),
]
TIMEOUT = 30


class Member:
    def __init__(self, base: int, step: int = 1) -> None:
        self.base, self.step = base, step

    def get_actor_metadata(self) -> str:
        return "about me"

    def add(self, value: int) -> int:
        self.base += self.step * value
        return self.base


def get(refs: Any) -> Any:
    return rabbitry.get(refs, timeout=TIMEOUT)


def test_an_actor_group() -> None:
    from rabbitry.util.actor_group import ActorGroup

    group = ActorGroup(Member, 2, num_cpus_per_actor=0, init_args=(10,), init_kwargs={"step": 2})
    assert get(group.add.remote(1)) == [12, 12]
    group.add_actors(1)
    assert len(group) == 3
    assert group.actor_metadata == ["about me"] * 3
    assert get(group.add.remote(1)) == [14, 14, 12]
    with pytest.raises(TypeError, match="cannot be called directly"):
        group.add(1)
    group.remove_actors([0])
    assert get(group.add.remote(0)) == [14, 12]
    first = group[0].actor
    with pytest.raises(RuntimeError, match="already been started"):
        group.start()
    group.shutdown()
    with pytest.raises(RayActorError):
        get(first.add.remote(1))
    with pytest.raises(RuntimeError, match="shutdown"):
        group.add  # noqa: B018
    group.start()
    assert get(group.add.remote(0)) == [10, 10]
    group.shutdown(patience_s=0)
    with pytest.raises(ValueError, match="greater than 0"):
        ActorGroup(Member, 0)
    with pytest.raises(ValueError, match="negative"):
        ActorGroup(Member, 1, num_cpus_per_actor=-1)


@pytest.mark.parametrize(("writer", "streaming"), [(None, True), (None, False), (ObjectStoreWriterNonStreaming, True)])
def test_a_shuffle(writer: Any, streaming: bool) -> None:
    options: dict[str, Any] = {} if writer is None else {"object_store_writer": writer}
    are_refs = writer is None and streaming

    def write(number: int, items: list[Any]) -> list[int]:
        return [number, *sorted(rabbitry.get(items) if are_refs else items)]

    for outputs in (1, 3):
        written = simple_shuffle(
            input_reader=lambda number: range(number * 10, number * 10 + 4),
            input_num_partitions=2,
            output_num_partitions=outputs,
            output_writer=write,
            streaming=streaming,
            **options,
        )
        assert written == (
            [[0, 0, 1, 2, 3, 10, 11, 12, 13]] if outputs == 1 else [[0, 0, 3, 10, 13], [1, 1, 11], [2, 2, 12]]
        )


def test_an_iterator_begins_anew_and_travels() -> None:
    numbers = from_range(6, num_shards=2).for_each(lambda x: x * x)
    assert list(numbers.gather_sync()) == list(numbers.gather_sync()) == [0, 9, 1, 16, 4, 25]

    @rabbitry.remote(num_cpus=0)
    def total(iterator: Any) -> int:
        return sum(iterator)

    assert get(total.remote(numbers.gather_async())) == 55
    assert get([total.remote(shard) for shard in numbers.shards()]) == [5, 50]
