"""One process's place in a group, by torch's process groups.

Torch's own default group is left alone: a program may have one beside (`torch.distributed.init_process_group`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rabbitry.util.collective.rendezvous import Meeting
from rabbitry.util.collective.types import Backend, ReduceOp


class TorchGroup:
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

        self.world_size = world_size
        self.rank = rank
        self.group_name = group_name
        self.backend = backend
        self._distributed: Any = torch.distributed
        timeout = timedelta(milliseconds=timeout_ms)
        self._meeting = Meeting(group_name)
        if rank == 0:
            self._store = self._distributed.TCPStore(
                self._meeting.address, 0, world_size, is_master=True, wait_for_workers=False, timeout=timeout
            )
            self._meeting.announce(self._store.port)
        else:
            self._store = self._meeting.joined(self._connect, timeout)
        self._group = self._make(timeout)
        self._group.barrier().wait()

    def _connect(self, address: str, port: int, timeout: timedelta) -> Any:
        return self._distributed.TCPStore(
            address, port, self.world_size, is_master=False, wait_for_workers=False, timeout=timeout
        )

    def _make(self, timeout: timedelta) -> Any:
        distributed = self._distributed
        store = distributed.PrefixStore(self.group_name, self._store)
        if self.backend == Backend.NCCL:
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

    def allreduce(self, tensor: Any, op: ReduceOp) -> None:
        """Put all tensors together, into each of them."""
        options = self._distributed.AllreduceOptions()
        options.reduceOp = self._reduction(op)
        self._group.allreduce([self._tensor(tensor)], options).wait()

    def reduce(self, tensor: Any, root: int, op: ReduceOp) -> None:
        """Put all tensors together, into that of one process."""
        options = self._distributed.ReduceOptions()
        options.reduceOp, options.rootRank = self._reduction(op), root
        given = self._tensor(tensor)
        # The others' tensors stay as they are; gloo uses them as scratch space.
        self._group.reduce([given if self.rank == root else given.clone()], options).wait()

    def broadcast(self, tensor: Any, root: int) -> None:
        """Copy one process's tensor into all."""
        options = self._distributed.BroadcastOptions()
        options.rootRank, options.rootTensor = root, 0
        self._group.broadcast([self._tensor(tensor)], options).wait()

    def allgather(self, into: list[Any], tensor: Any) -> None:
        """Copy all tensors into a list of tensors, by rank."""
        self._group.allgather([[self._tensor(each) for each in into]], [self._tensor(tensor)]).wait()

    def reducescatter(self, tensor: Any, given: list[Any], op: ReduceOp) -> None:
        """Put the tensors of all lists together, each into the tensor of the process that has its number."""
        tensors = [self._tensor(each) for each in given]
        if self.backend == Backend.NCCL:
            options = self._distributed.ReduceScatterOptions()
            options.reduceOp = self._reduction(op)
            self._group.reduce_scatter([self._tensor(tensor)], [tensors], options).wait()
            return
        # Gloo has it not for all shapes: each number is a reduction to its process.
        for number, each in enumerate(tensors):
            own = each.clone()
            self.reduce(own, number, op)
            if number == self.rank:
                self._tensor(tensor).copy_(own)

    def barrier(self) -> None:
        """Wait for all."""
        self._group.barrier().wait()

    def send(self, tensor: Any, to: int) -> None:
        """Send a tensor to a process that receives it."""
        self._group.send([self._tensor(tensor).contiguous()], to, 0).wait()

    def recv(self, tensor: Any, source: int) -> None:
        """Receive what a process sends, into a tensor."""
        self._group.recv([self._tensor(tensor)], source, 0).wait()

    def destroy_group(self) -> None:
        """Leave the group."""
        self._group = self._store = None
        self._meeting.end()
