"""Finding objects of a type inside of others, and putting something else in their place.

The walk is pickle's own: it knows how to take user's objects apart and to put them together again. What cannot hold
what is looked for (functions, classes, numbers, text, arrays, handles, refs) is not pickled, but kept as it is.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Generic, TypeVar

from rabbitry.actor import ActorClass, ActorHandle, ActorMethod
from rabbitry.dag.base import DAGNodeBase
from rabbitry.object_ref import ObjectRef
from rabbitry.remote_function import RemoteFunction

SourceType = TypeVar("SourceType")
TransformedType = TypeVar("TransformedType")

_ATOMS = frozenset((int, float, complex, bool, bytes, bytearray, type(None)))
_KEPT = (
    *(type, FunctionType, BuiltinFunctionType, ModuleType),
    *(ActorClass, ActorHandle, ActorMethod, ObjectRef, RemoteFunction),
)
_LEAVES = frozenset(("numpy", "torch", "pandas", "pyarrow"))


class _PyObjScanner(Generic[SourceType, TransformedType]):
    """Find objects in one, then make a copy with others in their places.

    Args:
        source_type: the type, or types, to look for; nodes of graphs if nothing is said.
    """

    def __init__(self, source_type: type | tuple[type, ...] = DAGNodeBase) -> None:
        self.source_type = source_type
        self._pickled = b""
        self._found: list[Any] = []
        self._kept: list[Any] = []
        self._replacements: Mapping[Any, Any] = {}

    def find_nodes(self, obj: Any) -> list[Any]:
        """Return the objects of the type inside of `obj`, each as often as it stands in there.

        What was found is not searched itself.

        Raises:
            TypeError, pickle.PicklingError: there is something inside that cannot be taken apart.
        """
        self.clear()
        buffer = io.BytesIO()
        _Pickler(buffer, self._reference).dump(obj)
        self._pickled = buffer.getvalue()
        return self._found

    def _reference(self, obj: Any) -> str | None:
        # Text: the numbers of anything else would be asked about themselves.
        if isinstance(obj, self.source_type):
            self._found.append(obj)
            return f"+{len(self._found) - 1}"
        kind = type(obj)
        if kind in _ATOMS or isinstance(obj, _KEPT) or kind.__module__.partition(".")[0] in _LEAVES:
            self._kept.append(obj)
            return f"-{len(self._kept) - 1}"
        return None

    def replace_nodes(self, table: Mapping[Any, Any]) -> Any:
        """Return a copy of what was searched, with what the table holds for what was found.

        Args:
            table: has a value for each that was found.
        """
        self._replacements = table
        return _Unpickler(io.BytesIO(self._pickled), self._load).load()

    def _load(self, reference: str) -> Any:
        index = int(reference[1:])
        return self._replacements[self._found[index]] if reference[0] == "+" else self._kept[index]

    def clear(self) -> None:
        """Let go of what was searched."""
        self._pickled, self._found, self._kept, self._replacements = b"", [], [], {}


class _Pickler(pickle.Pickler):
    def __init__(self, buffer: io.BytesIO, reference: Callable[[Any], Any]) -> None:
        super().__init__(buffer, protocol=5)
        self._reference = reference

    def persistent_id(self, obj: Any) -> Any:
        return self._reference(obj)


class _Unpickler(pickle.Unpickler):
    def __init__(self, buffer: io.BytesIO, load: Callable[[Any], Any]) -> None:
        super().__init__(buffer)
        self._load = load

    def persistent_load(self, pid: Any) -> Any:
        return self._load(pid)
