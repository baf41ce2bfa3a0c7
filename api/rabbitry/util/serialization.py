"""How instances of a class are sent, where pickle does not know or should do otherwise.

Example:
    >>> class Connection:
    ...     def __init__(self, address):
    ...         self.address, self.socket = address, open("/dev/null")
    >>> register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)
    >>> deregister_serializer(Connection)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rabbitry_broker.pickling import deregister_serializer, register_reducer, register_serializer

__all__ = ["StandaloneSerializationContext", "deregister_serializer", "register_serializer"]


class SerializedObject:
    """A value as it would be stored.

    Attributes:
        total_bytes: how many bytes it takes.
    """

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts
        self.total_bytes = sum(memoryview(part).nbytes for part in parts)

    def to_bytes(self) -> bytes:
        """Return all of it."""
        return b"".join(self._parts)


class StandaloneSerializationContext:
    """How values are serialised in this process, under the names that Ray's libraries use."""

    def _register_cloudpickle_serializer(
        self, cls: type, custom_serializer: Callable[[Any], Any], custom_deserializer: Callable[[Any], Any]
    ) -> None:
        register_serializer(cls, serializer=custom_serializer, deserializer=custom_deserializer)

    def _register_cloudpickle_reducer(self, cls: type, reducer: Callable[[Any], Any]) -> None:
        register_reducer(cls, reducer)

    def _unregister_cloudpickle_reducer(self, cls: type) -> None:
        deregister_serializer(cls)

    def serialize(self, value: Any) -> SerializedObject:
        """Return a value as it would be stored.

        Raises:
            TypeError: it cannot be serialised.
        """
        from rabbitry_broker.serialization import pack

        packed = pack(value)
        return SerializedObject([packed.data, *packed.buffers])
