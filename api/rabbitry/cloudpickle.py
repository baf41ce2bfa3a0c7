"""The pickler of functions and classes, under the name where programs written for Ray look for it.

It is cloudpickle's, with what `rabbitry.util.register_serializer` was told, and functions keep the file that they came
from, for tracebacks. A ref that is pickled with it keeps its object as long as the session lasts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import PickleBuffer, PicklingError
from types import CodeType
from typing import IO, Any

import cloudpickle
from cloudpickle import load, loads, register_pickle_by_value, unregister_pickle_by_value

from rabbitry import environment, program
from rabbitry_broker.code_objects import reduce_code
from rabbitry_broker.pickling import users_reducer

__all__ = [
    "CloudPickler",
    "Pickler",
    "dump",
    "dump_debug",
    "dumps",
    "dumps_debug",
    "load",
    "loads",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]


class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler with the user's serializers, and code that keeps its file.

    Args:
        file: what has the `write` that the stream goes to.
        protocol: pickle's, the newest by default.
        buffer_callback: takes buffers out of the stream, as pickle's does.
    """

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({CodeType: reduce_code})

    def reducer_override(self, obj: Any) -> Any:
        """Return the reduced form of an object if the user said how to make it, else what cloudpickle returns."""
        reducer = users_reducer(type(obj))
        return reducer(obj) if reducer is not None else super().reducer_override(obj)


Pickler = CloudPickler


def dump(
    obj: Any,
    file: IO[bytes],
    protocol: int | None = None,
    buffer_callback: Callable[[PickleBuffer], Any] | None = None,
) -> None:
    """Write an object to a file; the arguments are those of `pickle.dump`."""
    CloudPickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(obj)


def dumps(obj: Any, protocol: int | None = None, buffer_callback: Callable[[PickleBuffer], Any] | None = None) -> bytes:
    """Return an object as bytes; the arguments are those of `pickle.dumps`."""
    with io.BytesIO() as file:
        dump(obj, file, protocol, buffer_callback)
        return file.getvalue()


def dumps_debug(obj: Any, *args: Any, **kwargs: Any) -> bytes:
    """Return `dumps(obj)`; an error says how to find what cannot be pickled.

    With `RABBITRY_PICKLE_VERBOSE_DEBUG=1` (or Ray's `RAY_...`) that is looked for and printed instead.

    Raises:
        TypeError, PicklingError: as `dumps` raises it.
    """
    with _errors_explained(obj):
        return dumps(obj, *args, **kwargs)


def dump_debug(obj: Any, *args: Any, **kwargs: Any) -> None:
    """As `dump(obj, file)`; an error says how to find what cannot be pickled, as that of `dumps_debug` does.

    Raises:
        TypeError, PicklingError: as `dump` raises it.
    """
    with _errors_explained(obj):
        dump(obj, *args, **kwargs)


@contextmanager
def _errors_explained(obj: Any) -> Iterator[None]:
    try:
        yield
    except (TypeError, PicklingError) as error:
        if _inspected(obj):
            raise
        raise _explained(error, obj) from error


def _inspected(obj: Any) -> bool:
    """Print what in an object cannot be pickled, if the environment says so; return True if it does."""
    if not environment.is_on(*environment.PICKLE_VERBOSE_DEBUG):
        return False
    from rabbitry.util import inspect_serializability

    inspect_serializability(obj)
    return True


def _explained(error: Exception, obj: Any) -> Exception:
    name = program.name()
    variable = next(each for each in environment.PICKLE_VERBOSE_DEBUG if each.startswith(f"{name.upper()}_"))
    return type(error)(
        f"{error}\n{name}.util.inspect_serializability shows what in {obj!r} cannot be pickled, and so does "
        f"{variable}=1 in the environment."
    )
