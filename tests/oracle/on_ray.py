"""How Ray does what the cases ask. Runs in an environment that has Ray and nothing else."""

# mypy: ignore-errors

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import ray
import ray.exceptions
import ray.util.scheduling_strategies

from tests.oracle.cases import make

TIMEOUT = 60
"""Seconds that one result may take."""


class OnRay:
    """Ray's side. Its cluster is started by the first case that needs one; call `close` at the end."""

    def _connected(self) -> None:
        if not ray.is_initialized():
            ray.init(
                num_cpus=4, num_gpus=2, resources={"a": 4}, _memory=2**30, include_dashboard=False, log_to_driver=False
            )

    def close(self) -> None:
        """Stop the cluster."""
        ray.shutdown()

    def task(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        ray.remote(**options)(function)

    def task_options(self, function: Callable[..., Any], first: dict[str, Any], then: dict[str, Any]) -> None:
        (ray.remote(**first)(function) if first else ray.remote(function)).options(**then)

    def actor(self, cls: type, options: dict[str, Any]) -> None:
        ray.remote(**options)(cls)

    def actor_options(self, cls: type, first: dict[str, Any], then: dict[str, Any]) -> None:
        (ray.remote(**first)(cls) if first else ray.remote(cls)).options(**then)

    def method(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        def copy() -> None: ...

        del function
        ray.method(**options)(copy)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._connected()
        ray.remote(function).remote(*args, **kwargs)

    def construct(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._connected()
        ray.remote(cls).remote(*args, **kwargs)

    def failure(self, error: Callable[[], BaseException]) -> list[str]:
        self._connected()
        return self._classes(self._failing(error))

    def input_failure(self, error: Callable[[], BaseException]) -> list[str]:
        self._connected()

        @ray.remote(max_retries=0)
        def dependant(value: Any) -> Any:
            return value

        return self._classes(dependant.remote(self._failing(error)))

    def _failing(self, error: Callable[[], BaseException]) -> Any:
        @ray.remote(max_retries=0)
        def failing() -> None:
            raise error()

        return failing.remote()

    def _classes(self, ref: Any) -> list[str]:
        try:
            ray.get(ref, timeout=TIMEOUT)
        except BaseException as error:
            return public_classes(type(error))
        raise AssertionError("it did not fail")

    def task_resources(self, options: dict[str, Any]) -> dict[str, float]:
        self._connected()

        def assigned() -> Any:
            return ray.get_runtime_context().get_assigned_resources()

        remote = ray.remote(**options)(assigned) if options else ray.remote(assigned)
        return dict(ray.get(remote.remote(), timeout=TIMEOUT))

    def actor_resources(self, options: dict[str, Any]) -> dict[str, float]:
        self._connected()

        class Assigned:
            def assigned(self) -> Any:
                return ray.get_runtime_context().get_assigned_resources()

        remote = ray.remote(**options)(Assigned) if options else ray.remote(Assigned)
        actor = remote.remote()
        try:
            return dict(ray.get(actor.assigned.remote(), timeout=TIMEOUT))
        finally:
            ray.kill(actor)

    def exception_tree(self) -> dict[str, list[str]]:
        return {
            name: public_classes(cls)
            for name, cls in vars(ray.exceptions).items()
            if inspect.isclass(cls) and issubclass(cls, ray.exceptions.RayError)
        }

    def ids(self) -> dict[str, dict[str, Any]]:
        base = ray.NodeID.__mro__[-2]
        classes = [
            cls
            for cls in vars(ray).values()
            if inspect.isclass(cls) and issubclass(cls, base) and cls not in (base, ray.ObjectRef)
        ]
        return {
            cls.__name__: {"size": cls.size(), "methods": sorted(each for each in dir(cls) if each[0] != "_")}
            for cls in classes
        }

    def make_id(self, cls: str, data: Any) -> None:
        getattr(ray, cls)(data)

    def strategy(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        make(ray.util.scheduling_strategies, name, args, kwargs)


def public_classes(cls: type) -> list[str]:
    """Return the names of the classes that an instance can be caught by, without generated ones."""
    return sorted(each.__name__ for each in cls.__mro__ if each is not object and "(" not in each.__name__)
