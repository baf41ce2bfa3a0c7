"""`ray._private.serialization`, as far as the libraries of older Rays want it: the wheel's wants a compiled core."""

from __future__ import annotations

from typing import Any

from rabbitry import cloudpickle


def pickle_dumps(obj: Any, error_msg: str) -> bytes:
    """Return a pickled object.

    Args:
        obj: what is pickled.
        error_msg: what the error begins with if it cannot be.

    Raises:
        TypeError: it cannot be pickled.
    """
    try:
        return cloudpickle.dumps(obj)
    except (TypeError, OverflowError) as error:
        raise TypeError(f"{error_msg}: {error}") from error
