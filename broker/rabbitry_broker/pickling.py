"""How rabbitry pickles: cloudpickle with serializers of the user's, and refs that tell of themselves.

HOT PATH (watched by `benchmarks/`). `serialization` packs whole values with it.
"""

from __future__ import annotations

import contextlib
import copyreg
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final, cast

import cloudpickle

from rabbitry_broker.attribute_hooks import reduced
from rabbitry_broker.code_objects import reduce_code

PROTOCOL: Final = 5


class Noting(threading.local):
    """What refs report to: the ids noted by the pack that runs in this thread, None outside of one."""

    refs: dict[bytes, None] | None = None


noting = Noting()


def note_ref(object_id: bytes) -> bool:
    """Called by a ref that is being pickled; False if no `pack` is running in this thread.

    In that case the ref leaves by a way that nobody follows, such as `pickle.dumps(ref)` in the user's code.
    """
    refs = noting.refs
    if refs is None:
        return False
    refs.setdefault(object_id)
    return True


@contextlib.contextmanager
def refs_noted() -> Iterator[dict[bytes, None]]:
    """Collect the ids of the refs that this thread pickles by other means than `pack`, in order."""
    outer = noting.refs
    refs: dict[bytes, None] = {}
    noting.refs = refs
    try:
        yield refs
    finally:
        noting.refs = outer


# -- classes with a way of their own ---------------------------------------------------------------------------------

_CLOUDPICKLES: Final[dict[type, Callable[[Any], Any]]] = {
    # Its table is a chain whose other part is copyreg's. A miss in the chain costs 5 us, and every instance is one.
    cls: reducer
    for cls, reducer in cloudpickle.Pickler.dispatch_table.items()
    if cls not in copyreg.dispatch_table
} | {CodeType: reduce_code}
_reducers: dict[type, Callable[[Any], Any]] = dict(_CLOUDPICKLES)


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Use `serializer(obj)` for instances of exactly `cls`; `deserializer` travels along and makes them again.

    Args:
        cls: the class; not one of those that pickle handles itself (numbers, str, bytes, list, tuple, dict, set).
        serializer: returns something that can be pickled.
        deserializer: returns an instance from that.

    Raises:
        TypeError: `cls` is no class, or one of the others cannot be called.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer() takes a class, got an object of class {type(cls).__name__}")
    if not callable(serializer) or not callable(deserializer):
        raise TypeError(f"the serializer and deserializer of {cls.__name__} must be callables")
    _reducers[cls] = lambda value: (deserializer, (serializer(value),))


def deregister_serializer(cls: type) -> None:
    """Forget what `register_serializer` was told of `cls`; nothing happens if there is none.

    Raises:
        TypeError: `cls` is no class.
    """
    if not isinstance(cls, type):
        raise TypeError(f"deregister_serializer() takes a class, got an object of class {type(cls).__name__}")
    if cls in _CLOUDPICKLES:
        _reducers[cls] = _CLOUDPICKLES[cls]
    else:
        _reducers.pop(cls, None)


def register_reducer(cls: type, reducer: Callable[[Any], Any]) -> None:
    """Use `reducer(obj)` for instances of exactly `cls`: it returns what a `__reduce__` does.

    Raises:
        TypeError: `cls` is no class, or `reducer` cannot be called.
    """
    if not isinstance(cls, type) or not callable(reducer):
        raise TypeError(f"register_reducer() takes a class and a callable, got {cls!r} and {reducer!r}")
    _reducers[cls] = reducer


def users_reducer(cls: type) -> Callable[[Any], Any] | None:
    """Return what was registered for instances of a class, None if nothing was."""
    reducer = _reducers.get(cls)
    return None if reducer is _CLOUDPICKLES.get(cls) else reducer


def register_ref_class(cls: type) -> None:
    """Tell that instances of `cls` pickle by their `__reduce__` and nothing else: it is called without a search."""
    _reducers[cls] = cast(Callable[[Any], Any], cls.__reduce__)


def reduce(value: Any) -> Any:
    """Return the reduced form of an instance: what pickle makes of it before it looks into that."""
    kind = type(value)
    reducer = _reducers.get(kind) or copyreg.dispatch_table.get(kind)
    return reducer(value) if reducer is not None else value.__reduce_ex__(PROTOCOL)


# -- the pickler ----------------------------------------------------------------------------------------------------

# Functions and classes that pickle may write by reference, found so before, by id. cloudpickle's search takes 5 us
# each, and every array refers to two. Only of modules that nobody sends by value.
_by_reference: dict[int, Any] = {}
_NEVER_SENT: Final = frozenset(sys.stdlib_module_names) | {
    "cloudpickle",
    "numpy",
    "pandas",
    "pyarrow",
    "rabbitry",
    "rabbitry_broker",
}


def _read_only(array: Any) -> Any:
    """Return the reduced form of an array whose buffer may not be written to by who reads it."""
    form = array.__reduce_ex__(PROTOCOL)
    function, args = form[:2]
    if type(args[0]) is not pickle.PickleBuffer:
        return form  # of objects, or not in one piece: pickled item by item
    view = args[0].raw()
    return form if view.readonly else (function, (pickle.PickleBuffer(view.toreadonly()), *args[1:]), *form[2:])


class CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle with the user's serializers.

    Args:
        file: what has the `write` that the parts of the stream go to.
        take: decides for each buffer whether it stays in the stream. All do if this is None, and arrays stay as they
            are; otherwise they come back read-only, as in Ray, whatever their size: large ones lie in memory that
            others read, too.
    """

    dispatch_table = copyreg.dispatch_table  # the rest of cloudpickle's is in `_reducers`

    def __init__(self, file: Any, take: Callable[[pickle.PickleBuffer], bool] | None) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=take)
        self.file = file
        self.wrote_code = False
        self._is_shared = take is not None

    def restart(self) -> None:
        """Forget what was written: the value is pickled once more."""
        self.clear_memo()
        self.file.seek(0)
        self.file.truncate()

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for what is neither scalar nor plain container, before anything else is tried."""
        kind = type(obj)
        reducer = _reducers.get(kind)
        if reducer is not None:
            return reducer(obj)
        if kind is not FunctionType and not issubclass(kind, type):
            if kind.__module__ == "numpy" and self._is_shared and kind.__name__ == "ndarray":
                return _read_only(obj)
            return reduced(obj) if hasattr(kind, "__getattr__") else NotImplemented
        if id(obj) in _by_reference:
            return NotImplemented
        form = super().reducer_override(obj)
        if form is not NotImplemented:
            self.wrote_code = True
        elif isinstance(obj.__module__, str) and obj.__module__.partition(".")[0] in _NEVER_SENT:
            _by_reference[id(obj)] = obj
        return form
