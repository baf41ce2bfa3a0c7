"""Why a value cannot be pickled: the paths to the parts at fault, found by pickling smaller and smaller parts.

Loaded when a value has failed, never before.
"""

from __future__ import annotations

import functools
import pickle
import time
import types
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from rabbitry_broker.pickling import CodePickler, reduce, refs_noted

MAX_LEVELS: Final = 100
MAX_SECONDS: Final = 5.0
"""The search ends here with what it knows: in a large value, pickling the parts one by one takes long."""
NAMED_IN_ERRORS: Final = 3


class Culprit(NamedTuple):
    """A part that cannot be pickled though all its own parts can, as far as the search went.

    Attributes:
        names: the names of the parts on the way, outermost first, without that of the whole.
        where: the way as it would be written in Python, beginning with the name of the whole.
        value: the part.
        parent: what holds it; None for the whole.
        reason: what pickle says about it.
    """

    names: tuple[str, ...]
    where: str
    value: Any
    parent: Any
    reason: str


class _Part(NamedTuple):
    name: str
    written: str  # what is appended to the path of the whole
    value: Any


def explain(value: Any, error: Exception, name: str = "value") -> Exception:
    """Return the error to raise for a value that failed to pickle with `error`.

    TypeErrors, which is what Python raises for what cannot be pickled, become a TypeError that names the culprit and
    the remedy. Others come from code of the user's (a `__getstate__`, say): they stay what they are, with a note.

    Args:
        value: what failed. If it is a call's `(args, kwargs)`, its parts are named as the caller knows them.
        error: how.
        name: what to call the value otherwise.
    """
    if isinstance(error, MemoryError):
        return error
    where = "; ".join(f"{culprit.where}: {culprit.reason}" for culprit in _culprits_of(value, name))
    if not isinstance(error, TypeError):
        if where and hasattr(error, "add_note"):  # Python 3.11
            error.add_note(f"raised while pickling {where}")
        return error
    return TypeError(
        f"Could not serialize {where or f'{name}: {error}'}. Make it where it is used instead of sending it, leave it "
        "out in a __getstate__ of the object that holds it, or say how to send it with "
        "rabbitry.util.serialization.register_serializer."
    )


def _culprits_of(value: Any, name: str) -> list[Culprit]:
    if type(value) is tuple and len(value) == 2 and type(value[0]) is tuple and type(value[1]) is dict:
        search = _Search(MAX_LEVELS, NAMED_IN_ERRORS)
        for at, each in enumerate(value[0]):
            search.look_at(_Part("", f"args[{at}]", each))
        for key, each in value[1].items():
            search.look_at(_Part("", str(key), each))
        return search.found
    return find_culprits(value, name, limit=NAMED_IN_ERRORS)


def find_culprits(value: Any, name: str, *, levels: int = MAX_LEVELS, limit: int = 10) -> list[Culprit]:
    """Return the innermost parts of `value` that cannot be pickled; empty if it can be.

    Looks into containers, into what objects say they consist of when they are pickled, and into the closures,
    globals and defaults of functions.

    Args:
        value: what to look into.
        name: what to call it in `Culprit.where`.
        levels: how many levels to look into; 0 says only whether it can be pickled.
        limit: how many culprits to find at most.
    """
    search = _Search(levels, limit)
    search.look_at(_Part("", name, value))
    return search.found


class _Search:
    """One search: what it found, what it has seen, and when it ends."""

    def __init__(self, levels: int, limit: int) -> None:
        self.found: list[Culprit] = []
        self._levels = levels
        self._limit = limit
        self._seen: dict[int, Any] = {}  # by id; the values keep the ids from being used again
        self._deadline = time.monotonic() + MAX_SECONDS

    def look_at(self, whole: _Part) -> None:
        """Add the culprits in `whole`, if it fails at all."""
        reason = _failure(whole.value)
        if reason is None:
            return
        known = len(self.found)
        self._look_into(whole, reason, (), None, self._levels)
        if len(self.found) == known and known < self._limit:  # each part works alone, or they run in a circle
            self.found.append(Culprit((), whole.written, whole.value, None, reason))

    def _look_into(self, whole: _Part, reason: str, names: tuple[str, ...], parent: Any, levels: int) -> None:
        """Add the culprits in `whole`, which fails. What was looked into before, or is being, is left to that."""
        if id(whole.value) in self._seen:
            return
        self._seen[id(whole.value)] = whole.value
        inside = False
        if levels:
            for part in _parts(whole.value):
                if len(self.found) >= self._limit or time.monotonic() > self._deadline:
                    break
                part_reason = _failure(part.value)
                if part_reason is not None:
                    inside = True
                    written = _Part(part.name, whole.written + part.written, part.value)
                    self._look_into(written, part_reason, (*names, part.name), whole.value, levels - 1)
        if not inside and len(self.found) < self._limit:
            self.found.append(Culprit(names, whole.written, whole.value, parent, reason))


class _Nowhere:
    """A file that keeps nothing."""

    @staticmethod
    def write(part: Any) -> int:
        return len(part)


def _failure(value: Any) -> str | None:
    """Return why `value` cannot be pickled, None if it can."""
    try:
        with refs_noted():  # nothing of this leaves the process
            CodePickler(_Nowhere(), _leave_out).dump(value)
    except Exception as error:  # noqa: BLE001 - what users' classes raise is the answer
        return str(error) or type(error).__name__
    return None


def _leave_out(buffer: pickle.PickleBuffer) -> bool:
    return False


# -- parts -----------------------------------------------------------------------------------------------------------


def _parts(value: Any) -> Iterator[_Part]:
    """Yield what pickling `value` leads to."""
    kind = type(value)
    if kind is dict:
        for key, each in value.items():
            yield _Part(repr(key), f".<key {key!r}>", key)
            yield _Part(repr(key), f"[{key!r}]", each)
    elif kind is list or kind is tuple:
        for at, each in enumerate(value):
            yield _Part(f"[{at}]", f"[{at}]", each)
    elif kind is set or kind is frozenset:
        for each in value:
            yield _Part(repr(each), f".<element {each!r}>", each)
    elif kind is types.FunctionType:
        yield from _parts_of_function(value)
    elif isinstance(value, type):
        yield from _parts_of_class(value)
    else:
        yield from _parts_of_instance(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[_Part]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield _Part(name, f".<closure {name}>", cell.cell_contents)
        except ValueError:
            continue  # a cell that was never filled
    variables = function.__globals__
    for name in dict.fromkeys(_names_in(function.__code__)):
        if name in variables:
            yield _Part(name, f".<global {name}>", variables[name])
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    for name, each in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        yield _Part(name, f".<default {name}>", each)
    for name, each in (function.__kwdefaults__ or {}).items():
        yield _Part(name, f".<default {name}>", each)
    for name, each in {**function.__dict__, **function.__annotations__}.items():
        yield _Part(name, f".{name}", each)


def _names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the names that `code` and the functions inside of it use."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _names_in(each)


def _parts_of_class(cls: type) -> Iterator[_Part]:
    for base in cls.__bases__:
        yield _Part(base.__name__, f".<base {base.__name__}>", base)
    for name, each in vars(cls).items():
        if isinstance(each, (staticmethod, classmethod)):
            yield _Part(name, f".{name}", each.__func__)
        elif isinstance(each, property):
            for role in (each.fget, each.fset, each.fdel):
                if role is not None:
                    yield _Part(name, f".{name}", role)
        elif not isinstance(each, (types.GetSetDescriptorType, types.MemberDescriptorType)):
            yield _Part(name, f".{name}", each)


def _parts_of_instance(value: Any) -> Iterator[_Part]:
    """Yield the parts of what the object turns into when it is pickled: not all its attributes need to be in that."""
    if isinstance(value, types.MethodType):
        yield _Part("__self__", ".__self__", value.__self__)
        yield _Part(value.__name__, ".__func__", value.__func__)
        return
    if isinstance(value, functools.partial):
        yield _Part("func", ".func", value.func)
    try:
        reduced = reduce(value)
    except Exception:  # noqa: BLE001 - the object itself is the culprit, and its failure has been noted
        return
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    for at, each in enumerate(arguments if isinstance(arguments, tuple) else ()):
        if each is not type(value):
            yield _Part(f"__reduce__[{at}]", f".<part {at}>", each)
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        state = {**(state[0] or {}), **state[1]}  # of __dict__ and __slots__
    if isinstance(state, dict):
        for name, each in state.items():
            yield _Part(str(name), f".{name}", each)
    elif state is not None:
        yield _Part("__getstate__", ".<state>", state)
    for at, each in enumerate(items if items is not None else ()):
        yield _Part(f"[{at}]", f"[{at}]", each)
    for key, each in pairs if pairs is not None else ():
        yield _Part(repr(key), f"[{key!r}]", each)
    yield _Part(type(value).__name__, ".<class>", type(value))
