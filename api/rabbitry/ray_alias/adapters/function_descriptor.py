"""`PythonFunctionDescriptor`: where a function or a method is written, as Ray's libraries and tests name it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from rabbitry.ids import FunctionID


class PythonFunctionDescriptor(msgspec.Struct, frozen=True):
    """Names a function, or a method of a class.

    Attributes:
        module_name: where it is written.
        function_name: of the function or method.
        class_name: "" for a function.
        function_hash: tells versions of it apart.
    """

    module_name: str
    function_name: str
    class_name: str = ""
    function_hash: str = ""

    @classmethod
    def from_function(cls, function: Callable[..., Any], function_uuid: uuid.UUID) -> PythonFunctionDescriptor:
        """Return the descriptor of a function; the UUID tells versions of it apart."""
        return cls(_module_of(function), function.__qualname__.split(".")[-1], "", function_uuid.hex)

    @classmethod
    def from_class(cls, target_class: type) -> PythonFunctionDescriptor:
        """Return the descriptor of a class's constructor."""
        return cls(_module_of(target_class), "__init__", target_class.__name__, uuid.uuid4().hex)

    @property
    def repr(self) -> str:
        """The full name."""
        return ".".join(filter(None, (self.module_name, self.class_name, self.function_name)))

    @property
    def function_id(self) -> FunctionID:
        """An id, the same for equal descriptors."""
        content = "\0".join((self.module_name, self.class_name, self.function_name, self.function_hash))
        return FunctionID(hashlib.blake2b(content.encode(), digest_size=FunctionID.size()).digest())

    def is_actor_method(self) -> bool:
        """True for methods."""
        return bool(self.class_name)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it by name."""
        return {
            "type": type(self).__name__,
            "module_name": self.module_name,
            "class_name": self.class_name,
            "function_name": self.function_name,
            "function_hash": self.function_hash,
            "function_id": self.function_id,
            "repr": self.repr,
        }


def _module_of(what: Any) -> str:
    """Return a module's name; that of its file for a main program."""
    import sys
    from pathlib import Path

    if what.__module__ == "__main__" and (file := getattr(sys.modules["__main__"], "__file__", None)):
        return Path(file).stem
    return str(what.__module__)
