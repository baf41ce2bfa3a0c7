"""`rabbitry.util.collective`, over gloo; without torch, what is said of that."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rabbitry
from rabbitry.experimental import collective as outside
from rabbitry.util import collective
from rabbitry.util.collective import backend_registry
from rabbitry.util.collective.collective_group.base_collective_group import BaseGroup
from rabbitry.util.collective.types import Backend, ReduceOp

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 90
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


class Noted(BaseGroup):
    """A backend of the program's own, which notes what it is asked for."""

    available = True

    def __init__(self, world_size: int, rank: int, group_name: str) -> None:
        super().__init__(world_size, rank, group_name)
        self.calls: list[Any] = []

    @classmethod
    def backend(cls) -> str:
        return "NOTED"

    @classmethod
    def check_backend_availability(cls) -> bool:
        return cls.available

    def allreduce(self, tensor: list[Any], allreduce_options: Any = None) -> None:
        self.calls.append(("allreduce", len(tensor), allreduce_options.reduceOp.name))

    def barrier(self, barrier_options: Any = None) -> None:
        self.calls.append(("barrier", type(barrier_options).__name__))

    def reduce(self, tensor: list[Any], reduce_options: Any = None) -> None:
        self.calls.append(("reduce", len(tensor), reduce_options.root_rank, reduce_options.reduceOp.name))

    def allgather(self, tensor_list: list[list[Any]], tensor: list[Any], allgather_options: Any = None) -> None:
        self.calls.append(("allgather", len(tensor_list), len(tensor_list[0]), len(tensor)))

    def broadcast(self, tensor: list[Any], broadcast_options: Any = None) -> None:
        self.calls.append(("broadcast", len(tensor), broadcast_options.root_rank))

    def reducescatter(self, tensor: list[Any], tensor_list: list[list[Any]], reducescatter_options: Any = None) -> None:
        self.calls.append(("reducescatter", len(tensor), len(tensor_list[0]), reducescatter_options.reduceOp.name))

    def send(self, tensor: list[Any], send_options: Any) -> None:
        self.calls.append(("send", len(tensor), send_options.dst_rank))

    def recv(self, tensor: list[Any], recv_options: Any) -> None:
        self.calls.append(("recv", len(tensor), recv_options.src_rank))


@rabbitry.remote(num_cpus=0)
class Member:
    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def join(self, size: int, rank: int, name: str) -> int:
        collective.init_collective_group(size, rank, "gloo", name)
        return collective.get_rank(name)

    def add_backend(self) -> bool:
        collective.register_collective_backend("noted", Noted)
        return True

    def noted(self, name: str) -> list[Any]:
        collective.allreduce(np.zeros(1), name, ReduceOp.MAX)
        collective.reduce(np.zeros(1), 1, name)
        collective.broadcast(np.zeros(1), 1, name)
        collective.allgather([np.zeros(1), np.ones(1)], np.zeros(1), name)
        collective.reducescatter(np.zeros(1), [np.zeros(1), np.ones(1)], name, ReduceOp.MIN)
        collective.send(np.zeros(1), 1, name)
        collective.recv(np.zeros(1), 1, name)
        collective.barrier(name)
        group: Any = collective.get_group_handle(name)
        return [type(group).__name__, group.rank, group.world_size, group.group_name, *group.calls]

    def numbers(self, name: str) -> list[Any]:
        return [collective.get_rank(name), collective.get_collective_group_size(name)]

    def run(self, operation: str, name: str, *arguments: Any, **named: Any) -> Any:
        tensor = np.full(3, self.value, np.float32)
        if operation == "allgather":
            into = [np.zeros(3, np.float32) for _ in range(2)]
            collective.allgather(into, tensor, name)
            return [each.tolist() for each in into]
        if operation == "reducescatter":
            given = [np.full(2, self.value + number, np.float32) for number in range(2)]
            collective.reducescatter(tensor[:2], given, name, **named)
            return tensor[:2].tolist()
        getattr(collective, operation)(tensor, *arguments, group_name=name, **named)
        return tensor.tolist()

    def torch_allreduce(self, name: str) -> list[int]:
        import torch

        tensor = torch.tensor([int(self.value), 1])
        collective.allreduce(tensor, name)
        return [int(each) for each in tensor]

    def wait(self, name: str) -> bool:
        collective.barrier(name)
        return True

    def leave(self, name: str) -> bool:
        collective.destroy_collective_group(name)
        return collective.is_group_initialized(name)


def get(refs: Any) -> Any:
    return rabbitry.get(refs, timeout=TIMEOUT)


def run(members: list[Any], operation: str, name: str, *arguments: Any, **named: Any) -> Any:
    return get([member.run.remote(operation, name, *arguments, **named) for member in members])


@needs_torch
def test_all_operations_of_a_group_that_its_members_make() -> None:
    members = [Member.remote(2.0), Member.remote(5.0)]
    assert get([member.join.remote(2, rank, "made") for rank, member in enumerate(members)]) == [0, 1]
    assert get(members[1].numbers.remote("made")) == [1, 2]
    for op, value in ((ReduceOp.SUM, 7.0), (ReduceOp.PRODUCT, 10.0), (ReduceOp.MIN, 2.0), (ReduceOp.MAX, 5.0)):
        assert run(members, "allreduce", "made", op=op) == [[value] * 3] * 2
    assert run(members, "reduce", "made", 1) == [[2.0] * 3, [7.0] * 3]
    assert run(members, "broadcast", "made", 1) == [[5.0] * 3] * 2
    assert run(members, "allgather", "made") == [[[2.0] * 3, [5.0] * 3]] * 2
    assert run(members, "reducescatter", "made") == [[7.0] * 2, [9.0] * 2]
    sent = [members[0].run.remote("send", "made", 1), members[1].run.remote("recv", "made", 0)]
    assert get(sent)[1] == [2.0] * 3
    assert get([member.torch_allreduce.remote("made") for member in members]) == [[7, 2]] * 2
    assert get([member.wait.remote("made") for member in members]) == [True] * 2
    for wrong in (2, -1):
        with pytest.raises(ValueError, match="rank"):
            get(members[0].run.remote("send", "made", wrong))
    with pytest.raises(RuntimeError, match="self"):
        get(members[0].run.remote("recv", "made", 0))
    with pytest.raises(RuntimeError, match="second time"):
        get(members[0].join.remote(2, 0, "made"))
    # Left, and made again under the same name.
    assert get([member.leave.remote("made") for member in members]) == [False] * 2
    assert get(members[0].numbers.remote("made")) == [-1, -1]
    with pytest.raises(RuntimeError, match="not initialized"):
        get(members[0].wait.remote("made"))
    assert get([member.join.remote(2, 1 - rank, "made") for rank, member in enumerate(members)]) == [1, 0]
    assert run(members, "allreduce", "made") == [[7.0] * 3] * 2


@needs_torch
def test_groups_of_one_name_live_beside_each_other() -> None:
    pairs = [[Member.remote(value), Member.remote(value + 1.0)] for value in (1.0, 5.0)]
    for pair in pairs:
        assert get([member.join.remote(2, rank, "default") for rank, member in enumerate(pair)]) == [0, 1]
    assert [run(pair, "allreduce", "default") for pair in pairs] == [[[3.0] * 3] * 2, [[11.0] * 3] * 2]


@needs_torch
def test_a_group_that_is_declared() -> None:
    members = [Member.remote(1.0), Member.remote(3.0)]
    collective.create_collective_group(members, 2, [1, 0], "gloo", "declared")
    with pytest.raises(RuntimeError, match="twice"):
        collective.create_collective_group(members, 2, [1, 0], "gloo", "declared")
    assert run(members, "broadcast", "declared", 0) == [[3.0] * 3] * 2
    assert get([member.numbers.remote("declared") for member in members]) == [[1, 2], [0, 2]]
    assert get([member.leave.remote("declared") for member in members]) == [False] * 2
    with pytest.raises(RuntimeError, match="permutation"):
        collective.create_collective_group(members, 2, [1, 1], "gloo", "other")
    with pytest.raises(RuntimeError, match="one rank"):
        collective.create_collective_group(members, 2, [1], "gloo", "other")


@pytest.fixture
def no_backends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget afterwards what the test registers."""
    monkeypatch.setattr(backend_registry, "_added", {})
    yield
    if hasattr(Backend, "NOTED"):
        del Backend.NOTED


@pytest.mark.usefixtures("no_backends")
def test_a_backend_of_the_programs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [Member.remote(), Member.remote()]
    with pytest.raises(RuntimeError, match="Backend NOTED is not registered"):
        collective.create_collective_group(members, 2, [0, 1], "noted", "own")
    assert not collective.is_backend_available("noted")
    collective.register_collective_backend("noted", Noted)
    assert collective.is_backend_available("noted")
    assert Backend("noted") == Backend.NOTED == "NOTED"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="already registered"):
        collective.register_collective_backend("NOTED", Noted)
    with pytest.raises(TypeError, match="BaseGroup"):
        collective.register_collective_backend("other", Member)  # type: ignore[arg-type]
    assert get([member.add_backend.remote() for member in members]) == [True] * 2
    collective.create_collective_group(members, 2, [0, 1], "noted", "own")
    assert get(members[0].noted.remote("own")) == [
        "Noted",
        0,
        2,
        "own",
        ("allreduce", 1, "MAX"),
        ("reduce", 1, 1, "SUM"),
        ("broadcast", 1, 1),
        ("allgather", 1, 2, 1),
        ("reducescatter", 1, 2, "MIN"),
        ("send", 1, 1),
        ("recv", 1, 1),
        ("barrier", "BarrierOptions"),
    ]
    monkeypatch.setattr(Noted, "available", False)
    with pytest.raises(RuntimeError, match="not available"):
        collective.create_collective_group(members, 2, [0, 1], "noted", "never")


@pytest.mark.usefixtures("no_backends")
def test_groups_that_are_made_and_ended_from_outside() -> None:
    members = [Member.remote(), Member.remote()]
    assert get([member.add_backend.remote() for member in members]) == [True] * 2
    with pytest.raises(ValueError, match="Unrecognized backend"):
        outside.create_collective_group(members, "noted")
    collective.register_collective_backend("noted", Noted)
    group = outside.create_collective_group(members[::-1], "noted", "outside")
    assert (group.name, group.backend) == ("outside", "NOTED")
    assert [group.get_rank(member) for member in members] == [1, 0]
    assert get([member.numbers.remote("outside") for member in members]) == [[1, 2], [0, 2]]
    assert outside.get_collective_groups(members[:1]) == outside.get_collective_groups(members, "noted") == [group]
    assert outside.get_collective_groups(members, "gloo") == outside.get_collective_groups([Member.remote()]) == []
    with pytest.raises(RuntimeError, match="already in group"):
        outside.create_collective_group(members[:1], "noted")
    with pytest.raises(ValueError, match="unique"):
        outside.create_collective_group([members[0]] * 2, "noted")
    outside.destroy_all_collective_groups()
    assert get(members[0].numbers.remote("outside")) == [-1, -1]
    with pytest.raises(ValueError, match="No group"):
        outside.destroy_collective_group("outside")
    unnamed = outside.create_collective_group(members, "noted")
    rabbitry.kill(members[1])
    outside.destroy_collective_group(unnamed)
    assert get(members[0].numbers.remote(unnamed.name)) == [-1, -1]
    with pytest.raises(RuntimeError, match="inside a Ray actor or task"):
        outside.allreduce(np.zeros(1))
    with pytest.raises(NotImplementedError, match="in the methods that the graph binds"):
        outside.allreduce.bind([])


def test_what_is_refused() -> None:
    with pytest.raises(RuntimeError, match="inside a Ray actor or task"):
        collective.allreduce(np.zeros(1))
    with pytest.raises(RuntimeError, match="inside a Ray actor or task"):
        collective.init_collective_group(2, 0, "gloo")
    with pytest.raises(RuntimeError, match="Unrecognized tensor type"):
        collective.allreduce([1])
    with pytest.raises(RuntimeError, match="without '_multigpu'"):
        collective.allreduce_multigpu([])
    with pytest.raises(ValueError, match="Only NCCL and GLOO"):
        Backend("mpi")
    assert Backend("torch_gloo") == Backend.GLOO
    if not collective.gloo_available():
        with pytest.raises(ValueError, match=r"Backend GLOO is not registered\. It needs torch"):
            get(Member.remote().join.remote(2, 0, "none"))
    with pytest.raises(RuntimeError, match=r"Backend MPI is not registered\. Please register it"):
        collective.create_collective_group([Member.remote()], 1, [0], "mpi")
