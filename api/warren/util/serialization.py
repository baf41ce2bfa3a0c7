"""How instances of a class are sent, where pickle does not know or should do otherwise.

Example:
    >>> class Connection:
    ...     def __init__(self, address):
    ...         self.address, self.socket = address, open("/dev/null")
    >>> register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)
    >>> deregister_serializer(Connection)
"""

from warren_broker.serialization import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "register_serializer"]
