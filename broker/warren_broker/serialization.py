"""Values to bytes and back: pickle protocol 5, out-of-band buffers for what is large, cloudpickle for code.

HOT PATH (`benchmarks/`: every workload with arguments or results). Plain data goes through C pickle alone. Everything
else goes through cloudpickle, so that functions and classes of `__main__` and notebooks travel by value: plain pickle
would write `__main__.f` by reference without a word, and fail on the worker.

A ref inside a value reports itself by `note_ref` while it is pickled; `Packed.refs` names all of them.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import cloudpickle

PROTOCOL: Final = 5
OUT_OF_BAND_BYTES: Final = 4 * 1024  # smaller buffers stay in the stream
LARGE_BYTES: Final = 64 * 1024  # bytes and bytearrays from this size on travel out of band

_SCALARS: Final = frozenset((type(None), bool, int, float, str, bytes))
_SHALLOW_ITEMS: Final = 32

_noted = threading.local()


class Packed:
    """A pickled value.

    Attributes:
        data: the pickle stream.
        buffers: what it refers to out of band, in order.
        refs: ids of the objects whose refs are inside, in order, each once.
    """

    __slots__ = ("buffers", "data", "refs")

    def __init__(self, data: bytes, buffers: Sequence[memoryview] = (), refs: tuple[bytes, ...] = ()) -> None:
        self.data = data
        self.buffers = buffers
        self.refs = refs

    @property
    def nbytes(self) -> int:
        """Bytes of stream and buffers together."""
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)


def note_ref(object_id: bytes) -> bool:
    """Called by a ref that is being pickled; False if not by `pack`: then nobody notes where it goes."""
    stack = getattr(_noted, "stack", None)
    if stack:
        stack[-1].setdefault(object_id)
        return True
    return False


class LargeBytes:
    """Stands in a stream for bytes or a bytearray that travel out of band."""

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._value), (pickle.PickleBuffer(self._value),)


# Classes with serializers of the user's own: class -> (serializer, deserializer)
_serializers: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {}


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle with the user's serializers and out-of-band bytes in containers' top levels."""

    def reducer_override(self, obj: Any) -> Any:
        custom = _serializers.get(type(obj)) if _serializers else None
        if custom is not None:
            serializer, deserializer = custom
            return _deserialize, (deserializer, serializer(obj))
        return super().reducer_override(obj)


def _deserialize(deserializer: Callable[[Any], Any], data: Any) -> Any:
    return deserializer(data)


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Use `serializer(obj)` for instances of exactly `cls`; `deserializer` travels along and makes them again.

    Args:
        cls: the class.
        serializer: returns something that can be pickled.
        deserializer: returns an instance from that.

    Raises:
        TypeError: `cls` is no class, or one of the others cannot be called.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer() takes a class, got {cls!r}")
    if not callable(serializer) or not callable(deserializer):
        raise TypeError(f"the serializer and deserializer of {cls.__name__} must be callables")
    _serializers[cls] = (serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Forget what `register_serializer` was told of `cls`; nothing happens if there is none."""
    _serializers.pop(cls, None)


_REFS: set[type] = set()


def register_ref_class(cls: type) -> None:
    """Tell that instances of `cls` may go through plain pickle: they report themselves with `note_ref`."""
    _REFS.add(cls)


_PLAIN, _WITH_REFS, _OTHER = range(3)


def _kind_of_items(items: Any) -> int:
    """Say whether all items are scalars, or also refs and plain arrays, or need cloudpickle."""
    result = _PLAIN
    for each in items:
        kind = type(each)
        if kind in _SCALARS:
            continue
        if kind in _REFS or (kind.__name__ == "ndarray" and not each.dtype.hasobject and kind.__module__ == "numpy"):
            result = _WITH_REFS
        else:
            return _OTHER
    return result


def _kind_of(value: Any) -> int:
    kind = type(value)
    if kind in _SCALARS:
        return _PLAIN
    if kind is tuple or kind is list:
        return _kind_of_items(value) if len(value) <= _SHALLOW_ITEMS else _OTHER
    if kind is dict:
        if len(value) > _SHALLOW_ITEMS or not all([type(key) is str for key in value]):
            return _OTHER
        return _kind_of_items(value.values())
    return _kind_of_items((value,))


def pack(value: Any) -> Packed:
    """Pickle a value.

    Raises:
        TypeError: it cannot be pickled; the message names the path to the culprit.
    """
    kind = type(value)
    if kind is tuple and len(value) == 2 and type(value[0]) is tuple and type(value[1]) is dict:
        # The shape of a call's arguments.
        plainness = max(_kind_of(value[0]), _kind_of(value[1]) if value[1] else _PLAIN)
    else:
        plainness = _kind_of(value)
    if plainness == _PLAIN:
        data = pickle.dumps(value, PROTOCOL)
        if len(data) <= LARGE_BYTES:
            return Packed(data)
    return _pack_any(value, plain=plainness == _WITH_REFS)


def _pack_any(value: Any, *, plain: bool) -> Packed:
    stack = getattr(_noted, "stack", None)
    if stack is None:
        stack = _noted.stack = []
    refs: dict[bytes, None] = {}
    stack.append(refs)
    buffers: list[memoryview] = []

    def take(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND_BYTES:
            return True
        buffers.append(view)
        return False

    try:
        if plain:
            data = pickle.dumps(value, PROTOCOL, buffer_callback=take)
        else:
            stream = io.BytesIO()
            _Pickler(stream, protocol=PROTOCOL, buffer_callback=take).dump(_with_large_bytes(value))
            data = stream.getvalue()
    except Exception as error:
        if isinstance(error, RecursionError):
            raise
        raise unpicklable(value, error) from error
    finally:
        stack.pop()
    return Packed(data, buffers, tuple(refs))


def _with_large_bytes(value: Any, depth: int = 2) -> Any:
    """Return `value` with large bytes in its outer containers replaced by their out-of-band stand-ins."""
    kind = type(value)
    if (kind is bytes or kind is bytearray) and len(value) >= LARGE_BYTES:
        return LargeBytes(value)
    if depth:
        if kind is tuple or kind is list:
            if any([type(each) in _MAY_HOLD_BYTES for each in value]):
                changed = [_with_large_bytes(each, depth - 1) for each in value]
                if any([new is not old for new, old in zip(changed, value, strict=True)]):
                    return kind(changed)
        elif kind is dict and any([type(each) in _MAY_HOLD_BYTES for each in value.values()]):
            new = {key: _with_large_bytes(each, depth - 1) for key, each in value.items()}
            if any([new[key] is not each for key, each in value.items()]):
                return new
    return value


_MAY_HOLD_BYTES: Final = frozenset((bytes, bytearray, tuple, list, dict))


def unpack(data: bytes | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """Return the value of a pickle stream and its buffers.

    Raises:
        ModuleNotFoundError: a module is missing here; the message says what to do.
    """
    try:
        if buffers:
            return pickle.loads(data, buffers=buffers)
        return pickle.loads(data)
    except ModuleNotFoundError as error:
        raise missing_module(error) from error


def missing_module(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error of a module that this process lacks, with what to do about it."""
    name = error.name or str(error)
    return ModuleNotFoundError(
        f"No module named {name!r} in this process, but a value or function sent to it needs it. Install it on the "
        f"nodes, or send it along: cloudpickle.register_pickle_by_value({name.partition('.')[0]}).",
        name=error.name,
        path=error.path,
    )


# -- errors ----------------------------------------------------------------------------------------------------------


def unpicklable(value: Any, error: BaseException, name: str = "value") -> TypeError:
    """Return the TypeError for a value that cannot be pickled, naming the paths to what is at fault."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is tuple and type(value[1]) is dict:
        paths = [
            *(found for at, each in enumerate(value[0]) for found in find_culprits(each, f"args[{at}]")),
            *(found for key, each in value[1].items() for found in find_culprits(each, key)),
        ]
    else:
        paths = find_culprits(value, name)
    where = "; ".join(f"{path}: {reason}" for path, _, reason in paths[:3]) or f"{name}: {error}"
    return TypeError(
        f"Could not serialize {where}. Leave it out of what is sent (make it where it is used), or give its class a "
        "__reduce__ method or warren.util.register_serializer."
    )


def _failure(value: Any) -> str | None:
    try:
        cloudpickle.dumps(value, PROTOCOL)
    except Exception as error:
        return str(error)
    return None


def find_culprits(value: Any, name: str, depth: int = 8) -> list[tuple[str, Any, str]]:
    """Return (path, object, reason) of the innermost parts of `value` that cannot be pickled.

    Args:
        value: what failed.
        name: what to call it in paths.
        depth: how many levels to look into.
    """
    reason = _failure(value)
    if reason is None:
        return []
    if depth:
        found: list[tuple[str, Any, str]] = []
        for path, part in _parts(value, name):
            found += find_culprits(part, path, depth - 1)
        if found:
            return found
    return [(name, value, reason)]


def _parts(value: Any, name: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{name}[{key!r}]", each) for key, each in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"{name}[{at}]", each) for at, each in enumerate(value)]
    parts: list[tuple[str, Any]] = []
    closure = getattr(value, "__closure__", None)
    code = getattr(value, "__code__", None)
    if code is not None:
        for cell_name, cell in zip(code.co_freevars, closure or (), strict=False):
            try:
                parts.append((f"{name}.<closure {cell_name}>", cell.cell_contents))
            except ValueError:
                continue  # an empty cell
        variables = getattr(value, "__globals__", {})
        parts += [(f"{name}.<global {each}>", variables[each]) for each in code.co_names if each in variables]
        parts += [(f"{name}.<default {at}>", each) for at, each in enumerate(value.__defaults__ or ())]
        return parts
    state = getattr(value, "__dict__", None)
    if isinstance(state, dict):
        parts += [(f"{name}.{key}", each) for key, each in state.items()]
    for slot in getattr(type(value), "__slots__", ()):
        if hasattr(value, slot):
            parts.append((f"{name}.{slot}", getattr(value, slot)))
    return parts
