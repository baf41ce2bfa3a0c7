"""One process's place in a group, by torch's process groups.

Torch's own default group is left alone: a program may have one beside (`torch.distributed.init_process_group`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rabbitry.util.collective.collective_group.base_collective_group import BaseGroup
from rabbitry.util.collective.rendezvous import Meeting
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
    torch_available,
)


class TorchGroup(BaseGroup):
    """A group of processes, seen from one of them.

    Args:
        world_size: how many there are.
        rank: which one this is.
        group_name: of the group.
        timeout_ms: milliseconds that an operation waits for the others.
        backend: `Backend.GLOO` or `Backend.NCCL`.
    """

    def __init__(
        self, world_size: int, rank: int, group_name: str, timeout_ms: int = 30_000, backend: str = Backend.GLOO
    ) -> None:
        import torch.distributed

        super().__init__(world_size, rank, group_name)
        self._backend = backend
        self._distributed: Any = torch.distributed
        timeout = timedelta(milliseconds=timeout_ms)
        self._meeting = Meeting(group_name)
        if rank == 0:
            self._store = self._distributed.TCPStore(
                self._meeting.address, 0, world_size, is_master=True, wait_for_workers=False, timeout=timeout
            )
            self._meeting.announce(self._store.port, timeout)
        else:
            self._store = self._meeting.joined(self._connect, timeout)
        try:
            self._group = self._make(timeout)
            self._group.barrier().wait()
        finally:
            self._meeting.end()
        # Who goes on may come to another group of this name, and must not find this one's announcement.
        self._group.barrier().wait()

    def _connect(self, address: str, port: int, timeout: timedelta) -> Any:
        return self._distributed.TCPStore(
            address, port, self.world_size, is_master=False, wait_for_workers=False, timeout=timeout
        )

    def _make(self, timeout: timedelta) -> Any:
        distributed = self._distributed
        store = distributed.PrefixStore(self.group_name, self._store)
        if self._backend == Backend.NCCL:
            options = distributed.ProcessGroupNCCL.Options()
            options._timeout = timeout
            return distributed.ProcessGroupNCCL(store, self.rank, self.world_size, options)
        options = distributed.ProcessGroupGloo._Options()
        # By address: what a host's own name leads to may be the loopback.
        options._devices = [distributed.ProcessGroupGloo.create_device(hostname=self._meeting.address)]
        options._timeout = timeout
        return distributed.ProcessGroupGloo(store, self.rank, self.world_size, options)

    def _tensor(self, value: Any) -> Any:
        """Return a tensor that has a value's memory."""
        import torch

        return value if isinstance(value, torch.Tensor) else torch.from_numpy(value)

    def _reduction(self, op: ReduceOp) -> Any:
        return getattr(self._distributed.ReduceOp, op.name)

    def _reduce(self, tensor: Any, root: int, op: ReduceOp) -> None:
        options = self._distributed.ReduceOptions()
        options.reduceOp, options.rootRank = self._reduction(op), root
        # The others' tensors stay as they are; gloo uses them as scratch space.
        self._group.reduce([tensor if self.rank == root else tensor.clone()], options).wait()

    @classmethod
    def check_backend_availability(cls, backend: str = Backend.GLOO) -> bool:
        """Return True if torch has what the backend needs, and there is a GPU if it needs one."""
        if not torch_available():
            return False
        import torch

        if backend == Backend.GLOO:
            return bool(torch.distributed.is_available())
        return bool(torch.cuda.is_available() and torch.distributed.is_nccl_available())

    def allreduce(self, tensor: list[Any], allreduce_options: AllReduceOptions) -> None:
        """Put all tensors together, into each of them."""
        options = self._distributed.AllreduceOptions()
        options.reduceOp = self._reduction(allreduce_options.reduceOp)
        self._group.allreduce([self._tensor(tensor[0])], options).wait()

    def reduce(self, tensor: list[Any], reduce_options: ReduceOptions) -> None:
        """Put all tensors together, into that of one process."""
        self._reduce(self._tensor(tensor[0]), reduce_options.root_rank, reduce_options.reduceOp)

    def broadcast(self, tensor: list[Any], broadcast_options: BroadcastOptions) -> None:
        """Copy one process's tensor into all."""
        options = self._distributed.BroadcastOptions()
        options.rootRank, options.rootTensor = broadcast_options.root_rank, 0
        self._group.broadcast([self._tensor(tensor[0])], options).wait()

    def allgather(self, tensor_list: list[list[Any]], tensor: list[Any], allgather_options: AllGatherOptions) -> None:
        """Copy all tensors into a list of tensors, by rank."""
        self._group.allgather([[self._tensor(each) for each in tensor_list[0]]], [self._tensor(tensor[0])]).wait()

    def reducescatter(
        self, tensor: list[Any], tensor_list: list[list[Any]], reducescatter_options: ReduceScatterOptions
    ) -> None:
        """Put the tensors of all lists together, each into the tensor of the process that has its number."""
        given = [self._tensor(each) for each in tensor_list[0]]
        if self._backend == Backend.NCCL:
            options = self._distributed.ReduceScatterOptions()
            options.reduceOp = self._reduction(reducescatter_options.reduceOp)
            self._group.reduce_scatter([self._tensor(tensor[0])], [given], options).wait()
            return
        # Gloo has it not for all shapes: each number is a reduction to its process.
        for number, each in enumerate(given):
            own = each.clone()
            self._reduce(own, number, reducescatter_options.reduceOp)
            if number == self.rank:
                self._tensor(tensor[0]).copy_(own)

    def barrier(self, barrier_options: BarrierOptions) -> None:
        """Wait for all."""
        self._group.barrier().wait()

    def send(self, tensor: list[Any], send_options: SendOptions) -> None:
        """Send a tensor to a process that receives it."""
        self._group.send([self._tensor(tensor[0]).contiguous()], send_options.dst_rank, 0).wait()

    def recv(self, tensor: list[Any], recv_options: RecvOptions) -> None:
        """Receive what a process sends, into a tensor."""
        self._group.recv([self._tensor(tensor[0])], recv_options.src_rank, 0).wait()

    def destroy_group(self) -> None:
        """Leave the group."""
        self._group = self._store = None
