"""What a backend has to have: one process's place in a group, and the operations.

An operation gets its tensor in a list of one, and a list of tensors likewise: Ray, whose backends these are, can have
several GPUs in a process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from rabbitry.util.collective.types import (
    AllGatherOptions,
    AllReduceOptions,
    BarrierOptions,
    BroadcastOptions,
    RecvOptions,
    ReduceOptions,
    ReduceScatterOptions,
    SendOptions,
)


class BaseGroup(ABC):
    """A group of processes, seen from one of them.

    Args:
        world_size: how many there are.
        rank: which one this is.
        group_name: of the group.
    """

    def __init__(self, world_size: int, rank: int, group_name: str) -> None:
        self._world_size = world_size
        self._rank = rank
        self._group_name = group_name

    @property
    def rank(self) -> int:
        """Which one this process is, from 0."""
        return self._rank

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self._world_size

    @property
    def group_name(self) -> str:
        """The name of the group."""
        return self._group_name

    def destroy_group(self) -> None:  # noqa: B027  who has nothing to give back need not say so
        """Leave the group."""

    @classmethod
    def backend(cls) -> str:
        """Return the name of the backend.

        Raises:
            NotImplementedError: the class does not say.
        """
        raise NotImplementedError(f"{cls.__name__} does not name its backend")

    @classmethod
    @abstractmethod
    def check_backend_availability(cls) -> bool:
        """Return True if groups of this backend can be made in this process."""

    @abstractmethod
    def allreduce(self, tensor: list[Any], allreduce_options: AllReduceOptions) -> None:
        """Put all tensors together, into each of them."""

    @abstractmethod
    def barrier(self, barrier_options: BarrierOptions) -> None:
        """Wait for all."""

    @abstractmethod
    def reduce(self, tensor: list[Any], reduce_options: ReduceOptions) -> None:
        """Put all tensors together, into that of one process."""

    @abstractmethod
    def allgather(self, tensor_list: list[list[Any]], tensor: list[Any], allgather_options: AllGatherOptions) -> None:
        """Copy all tensors into a list of tensors, by rank."""

    @abstractmethod
    def broadcast(self, tensor: list[Any], broadcast_options: BroadcastOptions) -> None:
        """Copy one process's tensor into all."""

    @abstractmethod
    def reducescatter(
        self, tensor: list[Any], tensor_list: list[list[Any]], reducescatter_options: ReduceScatterOptions
    ) -> None:
        """Put the tensors of all lists together, each into the tensor of the process that has its number."""

    @abstractmethod
    def send(self, tensor: list[Any], send_options: SendOptions) -> None:
        """Send a tensor to a process that receives it."""

    @abstractmethod
    def recv(self, tensor: list[Any], recv_options: RecvOptions) -> None:
        """Receive what a process sends, into a tensor."""
