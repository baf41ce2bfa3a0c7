"""Find out why a value cannot be sent to another process."""

from __future__ import annotations

import reprlib
from typing import Any, TextIO

from rabbitry_broker.unpicklable import find_culprits

_LIMIT = 20  # culprits to name
_short = reprlib.Repr()
_short.maxother = _short.maxstring = 100


class FailureTuple:
    """A part that cannot be sent. Two of them are never equal.

    Attributes:
        obj: the part.
        path: the names on the way to it: that of the whole if it was given one, then attributes, variables and keys.
        parent: what holds it; None if it is the whole.
    """

    def __init__(self, obj: Any, path: tuple[str, ...], parent: Any) -> None:
        self.obj = obj
        self.path = path
        self.parent = parent

    @property
    def name(self) -> str:
        """The last name on the way, "unknown" if there is none."""
        return self.path[-1] if self.path else "unknown"

    def __repr__(self) -> str:
        return f"FailureTuple({self.name} [path={' -> '.join(self.path)}, obj={self.obj!r}, parent={self.parent!r}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Say whether a value can be sent to tasks and actors, and print what stops it if not.

    Args:
        base_obj: the value: an object, a function, a class.
        name: what to call it in the report and in paths.
        depth: how many levels of attributes, items and variables to look into.
        print_file: where the report goes, sys.stdout if None.

    Returns:
        Whether it can be sent, and the parts that cannot (empty if it can).

    Example:
        >>> import threading
        >>> ok, failures = inspect_serializability({"lock": threading.Lock()}, name="config")  # doctest: +ELLIPSIS
        config cannot be sent to other processes. What stops it:
          config['lock']: cannot pickle '_thread.lock' object
        ...
        >>> ok, [failure.path for failure in failures]
        (False, [('config', "'lock'")])
    """
    written = name or getattr(base_obj, "__qualname__", None) or f"<{type(base_obj).__name__}>"
    culprits = find_culprits(base_obj, written, levels=depth, limit=_LIMIT)
    if not culprits:
        print(f"{written} can be sent to other processes.", file=print_file)
        return True, set()
    lines = [f"{written} cannot be sent to other processes. What stops it:"]
    for culprit in culprits:
        lines.append(f"  {culprit.where}: {culprit.reason}")
        lines.append(f"    it is {_short.repr(culprit.value)}")
        if culprit.parent is not None and culprit.parent is not base_obj:
            lines.append(f"    held by {_short.repr(culprit.parent)}")
    lines.append(
        "Make these where they are used, inside the task or method; or leave them out in a __getstate__ of the object "
        "that holds them; or say how to send them with rabbitry.util.serialization.register_serializer. There may be "
        "more of them: check again after a change."
    )
    print("\n".join(lines), file=print_file)
    root = (name,) if name else ()
    return False, {FailureTuple(each.value, (*root, *each.names), each.parent) for each in culprits}
