"""Remote functions and actor classes as bytes: pickled once, kept under their content hash."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable
from typing import Any, Final

from rabbitry_broker.environment import number
from rabbitry_broker.serialization import missing_module, pack_in_band

HASH_BYTES: Final = 16
WARN_BYTES: Final = 10**7
ERROR_VARIABLE: Final = "FUNCTION_SIZE_ERROR_THRESHOLD"
"""The environment variable that sets the limit, in bytes; Ray's name and unit."""
DEFAULT_ERROR_BYTES: Final = 10**8
FUNCTIONS_KEPT: Final = 1000  # by an executor: a driver may make new ones for ever

_MIB: Final = 1024 * 1024


def export(function: Callable[..., Any] | type) -> tuple[bytes, bytes]:
    """Return (content hash of 16 bytes, pickle) of a function or class.

    Functions and classes of `__main__`, of notebooks and within functions travel by value, with the globals they use;
    those of importable modules by name. It is not known who will read the pickle and when: refs that the function
    captures see that nobody notes them (`note_ref`).

    Raises:
        TypeError: something it uses (a global, a closure) cannot be pickled; the message names it.
        ValueError: it is 95 MiB or larger with what it uses (`FUNCTION_SIZE_ERROR_THRESHOLD`, in bytes).
    """
    name = getattr(function, "__qualname__", None) or repr(function)
    packed = pack_in_band(function, name, note_refs=False)
    size = len(packed.data)
    limit = error_threshold()
    if size > min(WARN_BYTES, limit - 1):
        kind = "class" if isinstance(function, type) else "function"
        facts = f"The remote {kind} {name} is {size // _MIB} MiB with what it uses"
        remedy = "It probably captures a large object: put() that once and use the ref, or load it inside."
        if size >= limit:
            raise ValueError(f"{facts}, and the limit is {limit // _MIB} MiB ({ERROR_VARIABLE}={limit}). {remedy}")
        warnings.warn(f"{facts}: every worker loads all of it. {remedy}", stacklevel=3)
    return hashlib.blake2b(packed.data, digest_size=HASH_BYTES).digest(), packed.data


def error_threshold() -> int:
    """Return the size from which on functions are refused, in bytes.

    Raises:
        ValueError: the environment variable is no whole number.
    """
    return number(ERROR_VARIABLE, int, DEFAULT_ERROR_BYTES, unit="bytes")


class FunctionCache:
    """Functions by their hash, read once; of very many, those that are used. One thread at a time.

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
        function = self._functions.pop(digest, None)  # the one that was used last goes last
        if function is None:
            try:
                function = pickle.loads(self._load(digest))
            except ModuleNotFoundError as error:
                raise missing_module(error) from error
            while len(self._functions) >= FUNCTIONS_KEPT:
                del self._functions[next(iter(self._functions))]
        self._functions[digest] = function
        return function
