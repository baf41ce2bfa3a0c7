"""Operations that the processes of a group make together, on torch's tensors and numpy's arrays.

A group is made by its members (`init_collective_group` in each), or declared from outside (`create_collective_group`,
after which each member's first operation joins). Torch does the work: gloo on CPUs, nccl on GPUs, one for each process.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from rabbitry import actor
from rabbitry.arguments import shown
from rabbitry.runtime_context import get_runtime_context, task_context
from rabbitry.util.collective import rendezvous
from rabbitry.util.collective.backend_registry import added
from rabbitry.util.collective.collective_group.base_collective_group import BaseGroup
from rabbitry.util.collective.torch_group import TorchGroup
from rabbitry.util.collective.types import (
    AllGatherOptions,
    AllReduceOptions,
    Backend,
    BarrierOptions,
    BroadcastOptions,
    RecvOptions,
    ReduceOp,
    ReduceOptions,
    ReduceScatterOptions,
    SendOptions,
    name_of,
    torch_available,
)

_lock = threading.Lock()
_groups: dict[str, BaseGroup] = {}
# Declared by this process: the handles keep the declarations. They go with `destroy_collective_group` of rank 0, or
# with this process.
_declared: dict[str, Any] = {}


def gloo_available() -> bool:
    """True if torch, which has gloo, is installed."""
    return is_backend_available(Backend.GLOO)


def nccl_available() -> bool:
    """True if torch with nccl is installed, and there is a GPU."""
    return is_backend_available(Backend.NCCL)


def is_backend_available(backend: str) -> bool:
    """True if groups of this backend can be made here."""
    name = backend.upper()
    own = added(name)
    if own is not None:
        return own.check_backend_availability()
    return name in (Backend.GLOO, Backend.NCCL) and TorchGroup.check_backend_availability(name)


def is_group_initialized(group_name: str = "default") -> bool:
    """True if this process has joined the group."""
    return group_name in _groups


def init_collective_group(
    world_size: int,
    rank: int,
    backend: str = Backend.NCCL,
    group_name: str = "default",
    gloo_timeout: int = 30_000,
) -> None:
    """Join a group; returns when all its processes have.

    Args:
        world_size: how many processes it has.
        rank: which one this is, from 0.
        backend: "gloo" or "nccl".
        group_name: of the group.
        gloo_timeout: milliseconds to wait for the others, now and in each operation.

    Raises:
        RuntimeError: not inside a task or actor, or joined before, or the backend cannot be used.
        ValueError: an empty name, or there is no such backend.
        AssertionError: a rank that a group of this size has not.
    """
    _check_inside_actor()
    if not group_name:
        raise ValueError(f"group_name '{group_name}' needs to be a string.")
    with _lock:
        if group_name in _groups:
            raise RuntimeError("Trying to initialize a group a second time.")
        assert world_size > 0, world_size
        assert 0 <= rank < world_size, (rank, world_size)
        _join(backend, world_size, rank, group_name, gloo_timeout)


def _join(backend: str, world_size: int, rank: int, group_name: str, timeout_ms: int) -> None:
    name = name_of(backend)
    _require(name, ValueError)
    own = added(name)
    if own is not None:
        _groups[group_name] = own(world_size, rank, group_name)
    else:
        _groups[group_name] = TorchGroup(world_size, rank, group_name, timeout_ms, name)


def _require(name: str, error: type[Exception]) -> None:
    """Raise `error`, the kind that Ray raises there, if a backend is not known; RuntimeError if it cannot be used."""
    if is_backend_available(name):
        return
    own = added(name)
    if own is not None:
        raise RuntimeError(
            f"Backend {name} is registered but not available: {own.__name__}.check_backend_availability says so."
        )
    needs = {Backend.GLOO: "torch", Backend.NCCL: "torch with nccl, and a GPU"}.get(name)
    if needs is None:
        how = f"Please register it using register_collective_backend('{name}', YourBackendClass)."
    else:
        how = f"It needs {needs}. `pip install torch` brings torch."
    raise error(f"Backend {name} is not registered. {how}")


def create_collective_group(
    actors: list[Any],
    world_size: int,
    ranks: list[int],
    backend: str = Backend.NCCL,
    group_name: str = "default",
    gloo_timeout: int = 30_000,
) -> None:
    """Declare a group of actors: each joins with its first operation. It lives no longer than this process.

    Args:
        actors: handles.
        world_size: how many processes it has.
        ranks: of the actors.
        backend: "gloo" or "nccl".
        group_name: of the group.
        gloo_timeout: milliseconds to wait for the others.

    Raises:
        RuntimeError: there is such a group, the backend is not there, or the numbers do not fit each other.
    """
    if len(ranks) != len(actors):
        raise RuntimeError(
            f"Each actor should correspond to one rank. Got '{len(ranks)}' ranks but '{len(actors)}' actors"
        )
    if set(ranks) != set(range(len(ranks))):
        raise RuntimeError(f"Ranks must be a permutation from 0 to '{len(ranks)}'. Got '{ranks}'.")
    if world_size <= 0:
        raise RuntimeError(f"World size must be greater than zero. Got '{world_size}'.")
    if len(ranks) > world_size:
        raise RuntimeError("Ranks cannot be greater than world_size.")
    _require(name_of(backend), RuntimeError)
    places = {each._actor_id.hex(): rank for each, rank in zip(actors, ranks, strict=True)}
    try:
        _declared[group_name] = rendezvous.put_up(f"info_{group_name}", (places, world_size, backend, gloo_timeout))
    except ValueError as error:
        raise RuntimeError("Trying to initialize a group twice.") from error


def destroy_collective_group(group_name: str = "default") -> None:
    """Leave a group; rank 0 also takes its declaration back. Nothing happens if this process is not in it.

    Raises:
        RuntimeError: not inside a task or actor.
    """
    _check_inside_actor()
    with _lock:
        group = _groups.pop(group_name, None)
        if group is None:
            return
        group.destroy_group()
        if group.rank == 0:
            try:
                actor.kill(actor.get_actor(f"info_{group_name}"))
            except ValueError:
                return  # its members made it themselves


def get_rank(group_name: str = "default") -> int:
    """Return this process's rank; -1 if it is not in the group.

    Raises:
        RuntimeError: not inside a task or actor.
    """
    _check_inside_actor()
    group = _groups.get(group_name)
    return -1 if group is None else int(group.rank)


def get_collective_group_size(group_name: str = "default") -> int:
    """Return how many processes the group has; -1 if this one is not in it.

    Raises:
        RuntimeError: not inside a task or actor.
    """
    _check_inside_actor()
    group = _groups.get(group_name)
    return -1 if group is None else int(group.world_size)


def get_group_handle(group_name: str = "default") -> BaseGroup:
    """Return this process's place in a group; joins one that was declared.

    Raises:
        RuntimeError: not inside a task or actor, or there is no such group for this process.
    """
    _check_inside_actor()
    with _lock:
        if group_name not in _groups:
            here = get_runtime_context().get_actor_id()
            try:
                places, world_size, backend, timeout_ms = rendezvous.read(f"info_{group_name}")
                rank = places[here]
            except (ValueError, KeyError) as error:
                raise RuntimeError(f"The collective group '{group_name}' is not initialized in the process.") from error
            _join(backend, world_size, rank, group_name, timeout_ms)
        return _groups[group_name]


def allreduce(tensor: Any, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """Put the tensors of all processes together, into each of them."""
    _check_tensor(tensor)
    get_group_handle(group_name).allreduce([tensor], AllReduceOptions(reduceOp=op))


def barrier(group_name: str = "default") -> None:
    """Wait until all processes are here."""
    get_group_handle(group_name).barrier(BarrierOptions())


def reduce(tensor: Any, dst_rank: int = 0, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """Put the tensors of all processes together, into that of `dst_rank`."""
    _check_tensor(tensor)
    group = get_group_handle(group_name)
    _check_rank(group, dst_rank)
    group.reduce([tensor], ReduceOptions(reduceOp=op, root_rank=dst_rank))


def broadcast(tensor: Any, src_rank: int = 0, group_name: str = "default") -> None:
    """Copy the tensor of `src_rank` into all."""
    _check_tensor(tensor)
    group = get_group_handle(group_name)
    _check_rank(group, src_rank)
    group.broadcast([tensor], BroadcastOptions(root_rank=src_rank))


def allgather(tensor_list: list[Any], tensor: Any, group_name: str = "default") -> None:
    """Copy the tensors of all processes into a list of tensors, by rank."""
    _check_tensor(tensor)
    _check_tensors(tensor_list)
    group = get_group_handle(group_name)
    if len(tensor_list) != group.world_size:
        raise RuntimeError("The length of the tensor list operands to allgather must be equal to world_size.")
    group.allgather([tensor_list], [tensor], AllGatherOptions())


def reducescatter(
    tensor: Any, tensor_list: list[Any], group_name: str = "default", op: ReduceOp = ReduceOp.SUM
) -> None:
    """Put the lists of all processes together, and keep what has this process's number in `tensor`."""
    _check_tensor(tensor)
    _check_tensors(tensor_list)
    group = get_group_handle(group_name)
    if len(tensor_list) != group.world_size:
        raise RuntimeError("The length of the tensor list operands to reducescatter must be equal to world_size.")
    group.reducescatter([tensor], [tensor_list], ReduceScatterOptions(reduceOp=op))


def send(tensor: Any, dst_rank: int, group_name: str = "default") -> None:
    """Send a tensor to a process, which calls `recv`."""
    _check_tensor(tensor)
    group = get_group_handle(group_name)
    _check_rank(group, dst_rank)
    if dst_rank == group.rank:
        raise RuntimeError(f"The destination rank '{dst_rank}' is self.")
    group.send([tensor], SendOptions(dst_rank=dst_rank))


def recv(tensor: Any, src_rank: int, group_name: str = "default") -> None:
    """Receive a tensor from a process, which calls `send`."""
    _check_tensor(tensor)
    group = get_group_handle(group_name)
    _check_rank(group, src_rank)
    if src_rank == group.rank:
        raise RuntimeError(f"The destination rank '{src_rank}' is self.")
    group.recv([tensor], RecvOptions(src_rank=src_rank))


def synchronize(gpu_id: int) -> None:
    """Wait until a GPU has done what it was given."""
    import torch

    torch.cuda.synchronize(gpu_id)


def _several_gpus(*_: Any, **__: Any) -> None:
    """Refuse: a process has one GPU.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        "The operations over several GPUs of one process are not supported: give each GPU to a process of its own "
        "(num_gpus=1), and use the operation without '_multigpu'."
    )


allreduce_multigpu = reduce_multigpu = broadcast_multigpu = allgather_multigpu = _several_gpus
reducescatter_multigpu = send_multigpu = recv_multigpu = _several_gpus


def _check_inside_actor() -> None:
    if task_context() is None:
        raise RuntimeError("The collective APIs shall be only used inside a Ray actor or task.")


def _check_tensor(tensor: Any) -> None:
    if isinstance(tensor, np.ndarray):
        return
    if torch_available():
        import torch

        if isinstance(tensor, torch.Tensor):
            return
    raise RuntimeError(f"Unrecognized tensor type '{type(tensor)}'. Supported types are: np.ndarray, torch.Tensor.")


def _check_tensors(tensors: Any) -> None:
    if not isinstance(tensors, list):
        raise RuntimeError(f"The input must be a list of tensors. Got '{type(tensors)}'.")
    if not tensors:
        raise RuntimeError("Got an empty list of tensors.")
    for each in tensors:
        _check_tensor(each)


def _check_rank(group: Any, rank: int) -> None:
    if not isinstance(rank, int):
        raise ValueError(f"a rank is a whole number, got {shown(rank)}.")
    if rank < 0:
        raise ValueError(f"rank '{rank}' is negative.")
    if rank >= group.world_size:
        raise ValueError(f"rank '{rank}' must be less than world size '{group.world_size}'")
