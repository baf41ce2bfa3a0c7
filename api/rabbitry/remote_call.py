"""`remote` of methods and classes: called as quickly as a bound method, and it tells what the user wrote.

`help()`, IPython's `?` and `inspect.signature` show the signature and the docstring of the method or constructor.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final


class RemoteCall(functools.partial[Any]):
    """A call of something remote, bound to what it is called on. HOT PATH: made anew for each `handle.method.remote`.

    Subclasses say what it is that is called.
    """

    __slots__ = ()

    def _facts(self) -> tuple[str, inspect.Signature, str | None]:
        """Return name, signature and docstring of what is called."""
        raise NotImplementedError

    @property
    def __name__(self) -> str:
        return self._facts()[0].rpartition(".")[2]

    @property
    def __signature__(self) -> inspect.Signature:
        return self._facts()[1]

    def __repr__(self) -> str:
        name, signature, _ = self._facts()
        return f"{name}.remote{signature}"


CALL_DECORATOR: Final = "__ray_invocation_decorator__"
"""The attribute of a function or method whose value decorates its calls, as in Ray."""


def decorated_call(decorator: Callable[..., Any], send: Callable[..., Any]) -> Callable[..., Any]:
    """Return `send`, a `remote`, as the value of `CALL_DECORATOR` makes it.

    Args:
        decorator: gets a function of a call's positional arguments (a sequence) and its keyword arguments (a dict) that
            sends the call and returns its ref, and returns what is called in its place. It is called for each call.
        send: sends the call.
    """

    def invocation(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return send(*args, **kwargs)

    def remote(*args: Any, **kwargs: Any) -> Any:
        return decorator(invocation)(args, kwargs)

    return remote


class DocOfInstance:
    """`__doc__` of a class whose instances have docstrings of their own."""

    def __init__(self, of_class: str, of_instance: Callable[[Any], str | None]) -> None:
        self._of_class = inspect.cleandoc(of_class)
        self._of_instance = of_instance

    def __get__(self, instance: Any, owner: type | None = None) -> str | None:
        return self._of_class if instance is None else self._of_instance(instance)


def described(owner: type, name: str) -> tuple[inspect.Signature, str | None]:
    """Return signature (without `self`) and docstring of a method of a class.

    Raises:
        ValueError: it tells none.
        TypeError: the same.
        AttributeError: there is no such method.
    """
    function = getattr(owner, name)
    signature = inspect.signature(function)
    if not isinstance(inspect.getattr_static(owner, name), (staticmethod, classmethod)):
        parameters = list(signature.parameters.values())
        if parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            signature = signature.replace(parameters=parameters[1:])
    return signature, inspect.getdoc(function)
