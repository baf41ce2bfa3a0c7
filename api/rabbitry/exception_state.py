"""Take exceptions apart and put them together again without calling their constructors.

Python pickles an exception as its class and its `args`, and rebuilds it by calling the class with them. That fails for
every class whose `__init__` takes other arguments than it hands to `super().__init__`, as many do. Here the pieces are
the class, `args`, the instance's attributes and the fields that live in C (`OSError.errno`, `ImportError.name`, slots),
and rebuilding goes through `__new__` of the native base alone.

Classes that say themselves how they are pickled (`__reduce__`, `__getstate__`, `copyreg`) are left to do so.
"""

from __future__ import annotations

import copyreg
import functools
import io
import types
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

_E = TypeVar("_E", bound=BaseException)

_OWN_PICKLING: Final = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)
_NO_FIELDS: Final = frozenset({"__dict__", "__weakref__"})
# AttributeError.obj and NameError.obj hold the object that lacked the attribute: any object at all, so it stays behind.
_UNPICKLED_FIELDS: Final = frozenset({"obj"})
_HEAP_TYPE_FLAG: Final = 1 << 9


@functools.lru_cache(maxsize=512)
def _field_names(cls: type[Any]) -> tuple[tuple[str, bool], ...]:
    """Names of what an instance keeps outside its `__dict__` and beside `args`, and whether each is a field in C."""
    names: dict[str, bool] = {}
    for base in cls.__mro__:
        if base in (BaseException, Exception, object):
            continue
        for name, attribute in vars(base).items():
            if isinstance(attribute, (types.MemberDescriptorType, types.GetSetDescriptorType)) and (
                name not in _NO_FIELDS
            ):
                names.setdefault(name, not base.__flags__ & _HEAP_TYPE_FLAG)
    return tuple(names.items())


def class_of(error: BaseException) -> Any:
    """Return the class of `error`; typed loosely, as mypy takes classes of exceptions for unhashable."""
    return type(error)


def fields_of(error: BaseException) -> dict[str, Any]:
    """Return what `error` keeps in C fields and slots, by name; unset ones are left out."""
    fields: dict[str, Any] = {}
    for name, native in _field_names(class_of(error)):
        try:
            value = getattr(error, name)
        except AttributeError:
            continue
        # An unset C field reads as None, but is not the same as None: OSError shows "[Errno None]" for that.
        if value is not None or not native:
            fields[name] = value
    return fields


def native_args(error: BaseException) -> tuple[Any, ...]:
    """Return `error.args` even if its class defines an attribute of that name."""
    return cast("tuple[Any, ...]", BaseException.args.__get__(error))  # type: ignore[attr-defined]


def _native_new(cls: type[BaseException]) -> Callable[..., Any]:
    for base in cls.__mro__:
        new = base.__dict__.get("__new__")
        if isinstance(new, types.BuiltinFunctionType):
            return new
    raise TypeError(f"{cls.__qualname__} has no native base")


def rebuild(cls: type[_E], args: tuple[Any, ...], attributes: dict[str, Any], fields: dict[str, Any]) -> _E:
    """Make an instance of `cls` from its pieces; neither its `__init__` nor its `__new__` runs.

    Args:
        cls: an exception class.
        args: what `args` shall be.
        attributes: the instance's `__dict__`.
        fields: C fields and slots by name; those that cannot be set are passed over (they follow from `args`).

    Raises:
        TypeError: `cls` is made natively and cannot be made from these arguments.
    """
    error: _E = _native_new(cls)(cls, *args)
    BaseException.args.__set__(error, args)  # type: ignore[attr-defined]
    error.__dict__.update(attributes)
    for name, value in fields.items():
        try:
            object.__setattr__(error, name, value)
        except (AttributeError, TypeError):
            continue
    return error


def reduce_exception(error: BaseException) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
    """Return `error` as `__reduce__` does: a call of `rebuild`."""
    fields = {name: value for name, value in fields_of(error).items() if name not in _UNPICKLED_FIELDS}
    return rebuild, (type(error), native_args(error), dict(error.__dict__), fields)


@functools.lru_cache(maxsize=512)
def _pickles_itself(cls: type[Any]) -> bool:
    if not cls.__flags__ & _HEAP_TYPE_FLAG or cls in copyreg.dispatch_table:
        return True
    for base in cls.__mro__:
        if base.__flags__ & _HEAP_TYPE_FLAG and any(name in base.__dict__ for name in _OWN_PICKLING):
            return True
    return False


@functools.lru_cache(maxsize=1)
def _pickler_class() -> type[Any]:
    # cloudpickle pulls in inspect: 20 ms that a process without a failure never pays.
    import cloudpickle

    from rabbitry_broker.code_objects import reduce_code

    class ExceptionPickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
        """cloudpickle, with exceptions taken apart by `reduce_exception` wherever they are nested."""

        dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({types.CodeType: reduce_code})

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, BaseException) and not _pickles_itself(class_of(obj)):
                return reduce_exception(obj)
            return super().reducer_override(obj)

    return ExceptionPickler


def dump_exception(error: BaseException) -> bytes:
    """Pickle `error` so that `pickle.loads` rebuilds it without its constructor; classes of `__main__` go by value.

    Raises:
        Exception: whatever pickling the exception or one of its attributes raises.
    """
    with io.BytesIO() as out:
        _pickler_class()(out, protocol=5).dump(error)
        return out.getvalue()
