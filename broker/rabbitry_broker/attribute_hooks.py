"""Instances of classes with a `__getattr__`.

Pickle asks a fresh instance, which has no attributes yet, for `__setstate__`. A `__getattr__` that looks into an
attribute of its own (`return self._state[name]`, as in the State of every FastAPI application) is then asked for that
one, and asks itself for ever. So such instances travel with a function that sets their state without asking them.
"""

from __future__ import annotations

from typing import Any, Final

_PROTOCOL: Final = 5


def reduced(obj: Any) -> Any:
    """Return the reduced form of an instance of a class with `__getattr__`; NotImplemented if pickle needs no help."""
    kind: Any = type(obj)
    if (
        kind.__reduce_ex__ is not object.__reduce_ex__
        or kind.__reduce__ is not object.__reduce__
        or hasattr(kind, "__setstate__")
    ):
        return NotImplemented
    form = obj.__reduce_ex__(_PROTOCOL)
    if not isinstance(form, tuple) or len(form) < 3 or not _is_plain(form[2]):
        return NotImplemented
    return (*form, *(None,) * (5 - len(form)), set_state)


def _is_plain(state: Any) -> bool:
    if isinstance(state, tuple) and len(state) == 2:
        return all(part is None or isinstance(part, dict) for part in state)
    return isinstance(state, dict)


def set_state(obj: Any, state: Any) -> None:
    """Give a fresh instance its attributes, as pickle does: those of its `__dict__`, and those in slots."""
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        obj.__dict__.update(attributes)
    for name, value in (slots or {}).items():
        setattr(obj, name, value)
