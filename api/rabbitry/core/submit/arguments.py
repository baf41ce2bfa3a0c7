"""Arguments on their way to a task: packed, pinned, and stored by themselves if they are large. HOT PATH."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rabbitry.core.lives.puts import Puts
from rabbitry.core.lives.references import References
from rabbitry.object_ref import ObjectRef
from rabbitry_broker.ids import INDEX_ARGUMENTS
from rabbitry_broker.serialization import pack

UNCOUNTED_BYTES = 1024  # arguments and results of up to this much are sent also when the store is full of values
ARGUMENTS_INLINE_BYTES = 100 * 1024  # larger arguments travel as an object of their own

NO_RECORDS: dict[bytes, bytes] = {}

PackedArguments = tuple[bytes, list[bytes], dict[bytes, bytes]]
"""Payload (arguments, or where they are), ids of the refs that values replace, records of those known and small."""


class Arguments:
    """Packs arguments for one client. Any thread may use it.

    Args:
        puts: stores large arguments, and what refs among them name.
        references: pins what arguments refer to.
        values: the records of resolved objects.
        read: hears which failures are passed on: whoever needs the value fails in turn, and tells of that.
        register: makes the client known as alive, before anything can depend on it.
    """

    def __init__(
        self,
        puts: Puts,
        references: References,
        values: dict[bytes, bytes],
        *,
        read: Callable[[Iterable[bytes]], None],
        register: Callable[[], None],
    ) -> None:
        self._puts = puts
        self._references = references
        self._values = values
        self._read = read
        self._register = register

    def pack(self, task_id: bytes, args: tuple[Any, ...], kwargs: dict[str, Any], *, pin_as: bytes) -> PackedArguments:
        """Return arguments as they stand in a task.

        What they refer to is pinned under `pin_as`, the task's id but for streams and actors.

        Raises:
            TypeError: an argument cannot be pickled; the message names the path to it.
            ObjectStoreFullError: no room for them.
        """
        packed = pack((args, kwargs))
        stays = not packed.buffers and len(packed.data) <= ARGUMENTS_INLINE_BYTES
        if stays and len(packed.data) > UNCOUNTED_BYTES:
            self._puts.require_room(len(packed.data))
        dependencies: list[bytes] = []
        inline = NO_RECORDS
        refs = packed.refs
        if refs:
            self._puts.send(refs)
            dependencies = [value._id for value in args if type(value) is ObjectRef]
            dependencies += [value._id for value in kwargs.values() if type(value) is ObjectRef]
            if dependencies:
                values = self._values
                known = {at: values[at] for at in dependencies if at in values}
                size = sum([len(record) for record in known.values()])
                if size <= ARGUMENTS_INLINE_BYTES:
                    inline = known
                dependencies = list(dict.fromkeys(dependencies))
            self._references.pin(pin_as, refs)
            self._read(refs)
        if stays:
            return b"P" + packed.data, dependencies, inline
        # The refs are pinned with the task: this object need not hold them.
        packed.refs = ()
        arguments = task_id + INDEX_ARGUMENTS
        self._register()
        try:
            record = self._puts.store_now(arguments, packed)
        except BaseException:
            self._references.unpin(pin_as)
            raise
        self._references.pin(pin_as, (arguments,))
        self._values[arguments] = record
        return b"O" + arguments, dependencies, inline
