"""`rabbitry.dag`: lazy graphs, executed and compiled."""

from __future__ import annotations

import asyncio
import copy
import pickle
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import graphviz
import numpy
import pytest

import rabbitry
from rabbitry.dag import InputNode, MultiOutputNode
from rabbitry.exceptions import ChannelError, ChannelTimeoutError, CompiledGraphCapacityExceeded, GetTimeoutError

pytestmark = [
    pytest.mark.usefixtures("session"),
    pytest.mark.filterwarnings("ignore::rabbitry.util.annotations.RayDeprecationWarning"),
]
TIMEOUT = 30


@rabbitry.remote(num_cpus=0)
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@rabbitry.remote(num_cpus=0)
class Counter:
    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.seen: list[Any] = []

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    def see(self, value: Any) -> list[Any]:
        self.seen.append(value)
        return list(self.seen)

    @rabbitry.method(num_returns=2)
    def halves(self, values: list[int]) -> tuple[list[int], list[int]]:
        return values[: len(values) // 2], values[len(values) // 2 :]

    def size(self, value: Any) -> int:
        return len(value)

    def fail(self, value: Any) -> None:
        raise ValueError(f"not {value}")

    def sleep(self, seconds: float) -> None:
        import time

        time.sleep(seconds)


def get(refs: Any) -> Any:
    return rabbitry.get(refs, timeout=TIMEOUT)


class Pair:
    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right


@rabbitry.remote(num_cpus=0)
def both(pair: Pair) -> Any:
    return get(pair.left) + get(pair.right)


def test_each_node_runs_once() -> None:
    counter = Counter.remote()
    once = counter.add.bind(1)
    graph = MultiOutputNode([add.bind(once, once), add.bind(once, 10), once])
    assert get(graph.execute()) == [2, 11, 1]
    assert get(graph.execute()) == [4, 12, 2]


def test_nodes_are_found_in_objects_of_the_user() -> None:
    graph = both.bind(Pair(add.bind(1, 2), add.bind(3, 4)))
    assert get(graph.execute()) == 10


def test_refs_and_handles_are_arguments_as_they_are() -> None:
    counter = Counter.remote(5)
    graph = add.bind(rabbitry.put(1), add.bind(rabbitry.put(numpy.arange(3))))
    assert get(graph.execute()).tolist() == [1, 2, 3]

    @rabbitry.remote(num_cpus=0)
    def use(handle: Any, amount: int) -> Any:
        return rabbitry.get(handle.add.remote(amount))

    assert get(use.bind(counter, add.bind(1, 1)).execute()) == 7


def test_a_graph_is_pickled_and_runs_in_a_task() -> None:
    with InputNode() as x:
        graph = add.bind(add.bind(x, 1), x)
    assert copy.copy(graph).get_stable_uuid() == graph.get_stable_uuid()

    @rabbitry.remote(num_cpus=0)
    def run(graph: Any, value: int) -> Any:
        warnings.simplefilter("ignore")
        return rabbitry.get(graph.execute(value))

    assert get(run.remote(graph, 4)) == 9


def test_refs_of_the_last_execution() -> None:
    inner = add.bind(1, 2)
    graph = add.bind(inner, 3)
    ref = graph.execute(_ray_cache_refs=True)
    refs = asyncio.run(graph.get_object_refs_from_last_execute())
    assert refs[graph.get_stable_uuid()] == ref
    assert get(refs[inner.get_stable_uuid()]) == 3


def test_a_compiled_graph_keeps_the_order_of_its_calls() -> None:
    first, second = Counter.remote(), Counter.remote()
    with InputNode() as x:
        a = first.add.bind(x)
        b = second.see.bind(a)
        graph = MultiOutputNode([b, first.add.bind(a)])
    compiled = graph.experimental_compile(_max_inflight_executions=30)
    refs = [compiled.execute(1) for _ in range(20)]
    counts = [get(ref) for ref in refs]
    count, seen = 0, []
    for given in counts:
        count += 1
        seen.append(count)
        count += count
        assert given == [seen, count]
    compiled.teardown()
    assert get(first.add.remote(0)) == count, "the actors are as any others"


def test_several_results_and_a_large_input() -> None:
    first, second = Counter.remote(), Counter.remote()
    with InputNode() as x:
        left, right = first.halves.bind(x)
        graph = MultiOutputNode([second.size.bind(left), second.size.bind(right), first.size.bind(x)])
    compiled = graph.experimental_compile()
    assert get(compiled.execute([1, 2, 3])) == [1, 2, 3]
    assert get(compiled.execute(numpy.zeros(300_001, numpy.uint8))) == [150_000, 150_001, 300_001]


def test_parts_of_the_input() -> None:
    counter = Counter.remote()
    with InputNode() as x:
        compiled = counter.add.bind(x.more).experimental_compile()
    assert get(compiled.execute(more=3)) == 3
    with pytest.raises(ValueError, match="must be called with kwarg `more`"):
        compiled.execute()
    with pytest.raises(ValueError, match="called with 0 positional args, got 1"):
        compiled.execute(3)


def diamond() -> tuple[Any, str, str]:
    """Return a compiled graph in which two results of a call go to another actor, and how these actors' ids begin."""
    counter, other = Counter.remote(), Counter.remote()
    with InputNode() as x:
        left, right = counter.halves.bind(x.values)
        graph = MultiOutputNode([other.size.bind(left), other.see.bind(right)])
    return graph.experimental_compile(), counter._actor_id.hex()[:6], other._actor_id.hex()[:6]


def test_a_compiled_graph_is_drawn_in_letters() -> None:
    compiled, first, second = diamond()
    assert compiled.visualize(format="ascii") == "\n".join(
        [
            "Nodes Information:",
            '0 [label="Task 0  InputNode"]',
            '1 [label="Task 1  InputAttributeNode[values]"]',
            f'2 [label="Task 2  Actor: Counter ID: {first}... Method: halves"]',
            '3 [label="Task 3  ClassMethodOutputNode[0]"]',
            '4 [label="Task 4  ClassMethodOutputNode[1]"]',
            f'5 [label="Task 5  Actor: Counter ID: {second}... Method: size"]',
            f'6 [label="Task 6  Actor: Counter ID: {second}... Method: see"]',
            '7 [label="Task 7  MultiOutputNode"]',
            "",
            "Edges Information:",
            *[f"{a} ---> {b}" for a, b in ((0, 1), (1, 2), (2, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 7))],
            "",
            "Graph Built:",
            "0:InputNode",
            "|",
            "1:InputAttributeNode[values]",
            "|",
            f"2:Actor_{first}:halves",
            "|",
            "|---------------------------->|",
            "3:Output[0]                   4:Output[1]",
            "|                             |",
            f"5:Actor_{second}:size           6:Actor_{second}:see",
            "|",
            "|<----------------------------|",
            "7:MultiOutputNode",
        ]
    )
    for nonsense in ("view", "channel_details"):
        with pytest.raises(ValueError, match=f"{nonsense}=True is not for format='ascii'"):
            compiled.visualize(format="ascii", **{nonsense: True})


def test_a_compiled_graph_is_drawn_by_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, first, _ = diamond()
    source = compiled.visualize(str(tmp_path / "graph"), format="dot")
    assert (tmp_path / "graph.dot").read_text() == source
    assert f"Actor: Counter\nID: {first}...\nMethod: halves" in source
    assert "0 -> 1\n" in source
    detailed = compiled.visualize(str(tmp_path / "graph"), format="dot", channel_details=True)
    assert "0 -> 1 [label=value]" in detailed and "3 -> 5 [label=ObjectRef]" in detailed
    with pytest.raises(ValueError, match="format"):
        compiled.visualize(str(tmp_path / "graph"), format="nonsense")
    if shutil.which("dot"):
        assert compiled.visualize(str(tmp_path / "picture")) == source
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    else:
        with pytest.raises(graphviz.ExecutableNotFound):
            compiled.visualize(str(tmp_path / "picture"))
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match="pip install graphviz"):
        compiled.visualize(str(tmp_path / "graph"))
    compiled.teardown()


def test_errors_pass_through_and_the_graph_goes_on() -> None:
    counter, failing = Counter.remote(), Counter.remote()
    with InputNode() as x:
        compiled = counter.see.bind(failing.fail.bind(x)).experimental_compile()
    for value in range(2):
        with pytest.raises(ValueError, match=f"not {value}"):
            get(compiled.execute(value))
    assert get(counter.see.remote(0)) == [0]


def test_a_result_is_had_once_and_stays_here() -> None:
    counter = Counter.remote()
    with InputNode() as x:
        compiled = counter.add.bind(x).experimental_compile()
    ref = compiled.execute(1)
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(ValueError, match="CompiledDAGRef cannot be"):
            copying(ref)
    with pytest.raises(TypeError):
        rabbitry.wait([ref])
    with pytest.raises(ValueError, match="Invalid type of object refs"):
        rabbitry.get([ref, rabbitry.put(1)])
    assert rabbitry.get([ref]) == [1]
    with pytest.raises(ValueError, match="only be called once"):
        rabbitry.get(ref)
    compiled.teardown()
    compiled.teardown()
    with pytest.raises(ChannelError):
        compiled.execute(1)


def test_limits() -> None:
    counter = Counter.remote()
    with InputNode() as x:
        compiled = counter.add.bind(x).experimental_compile(_max_inflight_executions=2, _max_buffered_results=1)
    refs = [compiled.execute(1), compiled.execute(1)]
    with pytest.raises(CompiledGraphCapacityExceeded, match="2 in-flight"):
        compiled.execute(1)
    del refs[0]
    refs += [compiled.execute(1)]  # a dropped ref counts no more
    assert get(refs[1]) == 3
    refs += [compiled.execute(1), compiled.execute(1)]
    with pytest.raises(CompiledGraphCapacityExceeded, match="buffered"):
        get(refs[3])
    assert [get(refs[0]), get(refs[2]), get(refs[3])] == [2, 4, 5]


def test_a_timeout() -> None:
    counter = Counter.remote()
    with InputNode() as x:
        compiled = counter.sleep.bind(x).experimental_compile()
    with pytest.raises(ChannelTimeoutError) as caught:
        rabbitry.get(compiled.execute(5), timeout=0.05)
    assert isinstance(caught.value.__cause__, GetTimeoutError)
    compiled.teardown(kill_actors=True)
    with pytest.raises(rabbitry.exceptions.ActorDiedError):
        get(counter.add.remote(1))


def test_asyncio() -> None:
    counter = Counter.remote()
    with InputNode() as x:
        compiled = counter.add.bind(x).experimental_compile(enable_asyncio=True)

    async def run() -> list[Any]:
        futures = [await compiled.execute_async(1) for _ in range(5)]
        values = [await each for each in futures]
        with pytest.raises(ValueError, match="once"):
            await futures[0]
        return values

    assert asyncio.run(run()) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="execute_async"):
        compiled.execute(1)
