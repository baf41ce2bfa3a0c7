"""Names of backends and reductions, and the options that operations give to a backend."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from importlib.util import find_spec
from typing import Final

unset_timeout_ms: Final = timedelta(milliseconds=-1)
"""No timeout but that of the group."""


def torch_available() -> bool:
    """True if torch is installed."""
    return find_spec("torch") is not None


def cupy_available() -> bool:
    """Return False: arrays of cupy are not supported, only torch's tensors and numpy's arrays."""
    return False


def name_of(backend: str) -> str:
    """Return what a backend is called, also one that is not there."""
    upper = backend.upper()
    return "GLOO" if upper == "TORCH_GLOO" else upper


class Backend:
    """The backends: `Backend("gloo") == Backend.GLOO`. `register_collective_backend` adds to them.

    Raises:
        ValueError: there is no such backend.
    """

    NCCL: Final = "NCCL"
    GLOO: Final = "GLOO"
    UNRECOGNIZED: Final = "unrecognized"

    def __new__(cls, name: str) -> str:  # type: ignore[misc]  # noqa: D102  text comes of it, as of Ray's
        upper = name_of(name)
        found = getattr(cls, upper, cls.UNRECOGNIZED)
        if found == upper:
            return upper
        raise ValueError(f"Unrecognized backend: '{name}'. Only NCCL and GLOO are supported")


class ReduceOp(Enum):
    """How values are put together."""

    SUM = 0
    PRODUCT = 1
    MIN = 2
    MAX = 3


@dataclass
class AllReduceOptions:
    """How tensors are put together."""

    reduceOp: ReduceOp = ReduceOp.SUM  # noqa: N815  Ray's name
    timeout_ms: timedelta = unset_timeout_ms


@dataclass
class BarrierOptions:
    """Of a barrier."""

    timeout_ms: timedelta = unset_timeout_ms


@dataclass
class ReduceOptions:
    """How tensors are put together, and whose process gets them."""

    reduceOp: ReduceOp = ReduceOp.SUM  # noqa: N815  Ray's name
    root_rank: int = 0
    root_tensor: int = 0
    timeout_ms: timedelta = unset_timeout_ms


@dataclass
class AllGatherOptions:
    """Of an allgather."""

    timeout_ms: timedelta = unset_timeout_ms


@dataclass
class BroadcastOptions:
    """Whose process has the tensor."""

    root_rank: int = 0
    root_tensor: int = 0
    timeout_ms: timedelta = unset_timeout_ms


@dataclass
class ReduceScatterOptions:
    """How tensors are put together."""

    reduceOp: ReduceOp = ReduceOp.SUM  # noqa: N815  Ray's name
    timeout_ms: timedelta = unset_timeout_ms


@dataclass
class SendOptions:
    """Who receives a tensor."""

    dst_rank: int = 0
    dst_gpu_index: int = 0
    n_elements: int = 0
    timeout_ms: timedelta = unset_timeout_ms


@dataclass
class RecvOptions:
    """Who sends a tensor."""

    src_rank: int = 0
    src_gpu_index: int = 0
    n_elements: int = 0
    timeout_ms: timedelta = unset_timeout_ms
