"""How rabbitry does what the cases ask, without a cluster: through the checks that the public face is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rabbitry import exceptions, ids
from rabbitry.exceptions import capture_task_error, load_task_error, store_input_failure
from rabbitry.options import ActorOptions, MethodOptions, TaskOptions
from rabbitry.signature import Signature
from rabbitry.util import scheduling_strategies
from tests.oracle.cases import make

RAYS_NAMES = {
    cls: name
    for name, cls in vars(exceptions).items()
    if inspect.isclass(cls) and issubclass(cls, exceptions.RabbitryError) and name != cls.__name__
}
"""Ray's name of each exception that has another one here."""


class OnRabbitry:
    """Rabbitry's side."""

    def task(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        TaskOptions.from_kwargs(**options).for_function(function)

    def task_options(self, function: Callable[..., Any], first: dict[str, Any], then: dict[str, Any]) -> None:
        decorated = TaskOptions.from_kwargs(**first).for_function(function)
        decorated.merged(**then).for_function(function)

    def actor(self, cls: type, options: dict[str, Any]) -> None:
        del cls
        ActorOptions.from_kwargs(**options)

    def actor_options(self, cls: type, first: dict[str, Any], then: dict[str, Any]) -> None:
        del cls
        ActorOptions.from_kwargs(**first).merged(**then)

    def method(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        MethodOptions.from_kwargs(**options).for_function(function)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        Signature(function).check(args, kwargs)

    def construct(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        Signature.of_constructor(cls).check(args, kwargs)

    def failure(self, error: Callable[[], BaseException]) -> list[str]:
        return rays_classes(type(load_task_error(_failed(error))))

    def input_failure(self, error: Callable[[], BaseException]) -> list[str]:
        return rays_classes(type(load_task_error(store_input_failure(_failed(error), "dependant"))))

    def task_resources(self, options: dict[str, Any]) -> dict[str, float]:
        return TaskOptions.from_kwargs(**options).resource_request()

    def actor_resources(self, options: dict[str, Any]) -> dict[str, float]:
        return ActorOptions.from_kwargs(**options).running_request()

    def exception_tree(self) -> dict[str, list[str]]:
        return {
            name: rays_classes(cls)
            for name, cls in vars(exceptions).items()
            if inspect.isclass(cls) and issubclass(cls, exceptions.RabbitryError) and name[0] != "_"
        }

    def ids(self) -> dict[str, dict[str, Any]]:
        return {
            name: {"size": cls.size(), "methods": sorted(each for each in dir(cls) if each[0] != "_")}
            for name, cls in vars(ids).items()
            if inspect.isclass(cls) and issubclass(cls, ids.BaseID) and name != "BaseID" and name[0] != "_"
        }

    def make_id(self, cls: str, data: Any) -> None:
        getattr(ids, cls)(data)

    def strategy(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        make(scheduling_strategies, name, args, kwargs)


def _failed(error: Callable[[], BaseException]) -> bytes:
    try:
        raise error()
    except BaseException as caught:
        return capture_task_error(caught, "failing", 1, "ab" * 28)


def rays_classes(cls: type) -> list[str]:
    """Return Ray's names of the public classes that an instance can be caught by."""
    classes = [each for each in cls.__mro__ if each is not object and each.__name__[0] != "_"]
    return sorted(RAYS_NAMES.get(each, each.__name__) for each in classes if "(" not in each.__name__)
