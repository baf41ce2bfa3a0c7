"""Remote functions and actor classes as bytes: pickled once, kept under their content hash."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from typing import Any, Final

import cloudpickle

from warren_broker.serialization import PROTOCOL, missing_module, unpicklable

WARN_BYTES: Final = 10 * 1024 * 1024
ERROR_VARIABLE: Final = "FUNCTION_SIZE_ERROR_THRESHOLD"
DEFAULT_ERROR_MIB: Final = 95


def export(function: Callable[..., Any] | type) -> tuple[bytes, bytes]:
    """Return (content hash of 16 bytes, pickle) of a function or class.

    Raises:
        TypeError: something it uses (a global, a closure) cannot be pickled; the message names it.
        ValueError: it is larger than 95 MiB with what it uses (`FUNCTION_SIZE_ERROR_THRESHOLD`, in MiB).
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        pickled = cloudpickle.dumps(function, PROTOCOL)
    except Exception as error:
        raise unpicklable(function, error, name) from error
    limit = int(os.environ.get(ERROR_VARIABLE, DEFAULT_ERROR_MIB)) * 1024 * 1024
    size = len(pickled) / (1024 * 1024)
    if len(pickled) > limit:
        raise ValueError(
            f"The function {name} is {size:.0f} MiB with what it uses, more than the limit of {limit >> 20} MiB. "
            "It probably captures a large object: put() that and pass the ref."
        )
    if len(pickled) > WARN_BYTES:
        warnings.warn(
            f"The function {name} is {size:.0f} MiB with what it uses. It probably captures a large object: put() "
            "that and pass the ref.",
            stacklevel=3,
        )
    return hashlib.blake2b(pickled, digest_size=16).digest(), pickled


class FunctionCache:
    """Functions by their hash, read once. One thread at a time.

    Args:
        load: returns the pickle for a hash.
    """

    def __init__(self, load: Callable[[bytes], bytes]) -> None:
        self._load = load
        self._functions: dict[bytes, Any] = {}

    def get(self, digest: bytes) -> Any:
        """Return the function.

        Raises:
            ModuleNotFoundError: a module it needs is not here; the message says what to do.
        """
        function = self._functions.get(digest)
        if function is None:
            try:
                function = cloudpickle.loads(self._load(digest))
            except ModuleNotFoundError as error:
                raise missing_module(error) from error
            self._functions[digest] = function
        return function
