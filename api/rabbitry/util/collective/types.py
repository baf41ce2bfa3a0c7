"""Names of backends and reductions."""

from __future__ import annotations

from enum import Enum
from importlib.util import find_spec
from typing import Final


def torch_available() -> bool:
    """True if torch is installed."""
    return find_spec("torch") is not None


def cupy_available() -> bool:
    """Return False: arrays of cupy are not supported, only torch's tensors and numpy's arrays."""
    return False


class Backend:
    """The backends: `Backend("gloo") == Backend.GLOO`.

    Raises:
        ValueError: there is no such backend.
    """

    NCCL: Final = "NCCL"
    GLOO: Final = "GLOO"
    UNRECOGNIZED: Final = "unrecognized"

    def __new__(cls, name: str) -> str:  # type: ignore[misc]  # noqa: D102  text comes of it, as of Ray's
        upper = name.upper()
        if upper in ("GLOO", "TORCH_GLOO"):
            return cls.GLOO
        if upper == "NCCL":
            return cls.NCCL
        raise ValueError(f"Unrecognized backend: '{name}'. Only NCCL and GLOO are supported")


class ReduceOp(Enum):
    """How values are put together."""

    SUM = 0
    PRODUCT = 1
    MIN = 2
    MAX = 3
