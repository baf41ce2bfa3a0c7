"""Groups of actors that compute together, made and ended from outside: Ray's `ray.experimental.collective`.

The members call the operations of `rabbitry.util.collective` with the group's name. Those here do the same when
they are called; bound into a graph (`allreduce.bind`) they are refused.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

from rabbitry import calls
from rabbitry.actor import ActorHandle
from rabbitry.exceptions import ActorDiedError
from rabbitry.util import collective
from rabbitry.util.collective.types import Backend

__all__ = [
    "CommunicatorHandle",
    "allgather",
    "allreduce",
    "create_collective_group",
    "destroy_all_collective_groups",
    "destroy_collective_group",
    "get_collective_groups",
    "reducescatter",
]

_lock = threading.Lock()
_groups: dict[str, CommunicatorHandle] = {}
"""Made by this process, by name."""


class CommunicatorHandle:
    """A group that this process made.

    Args:
        actors: its members, by rank.
        name: of the group.
        backend: "gloo", "nccl", or one that was registered.
    """

    def __init__(self, actors: list[ActorHandle], name: str, backend: str) -> None:
        self._actors = list(actors)
        self._name = name
        self._backend = Backend(backend)

    def get_rank(self, actor: ActorHandle) -> int:
        """Return an actor's rank, -1 if it is no member."""
        return next((rank for rank, each in enumerate(self._actors) if each._actor_id == actor._actor_id), -1)

    @property
    def actors(self) -> list[ActorHandle]:
        """The members, by rank."""
        return list(self._actors)

    @property
    def name(self) -> str:
        """The name of the group."""
        return self._name

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return str(self._backend)


def create_collective_group(actors: list[ActorHandle], backend: str, name: str | None = None) -> CommunicatorHandle:
    """Have actors join a group, in the order of their ranks; returns when all have.

    Args:
        actors: the members.
        backend: "gloo", "nccl", or one that the members have registered.
        name: of the group, by which members call operations; one is made up by default.

    Raises:
        ValueError: an unknown backend, or an actor comes twice.
        RuntimeError: an actor is in a group of this backend already.
    """
    kind, called = str(Backend(backend)), name or str(uuid.uuid4())
    if len({each._actor_id for each in actors}) != len(actors):
        raise ValueError(f"All actors must be unique, got: {actors}")
    with _lock:
        for each in actors:
            if _with_member([each], kind):
                raise RuntimeError(f"Actor {each} already in group for backend {kind}: an actor can be in one of each.")
    size = len(actors)

    def join(_: Any, rank: int) -> None:
        collective.init_collective_group(size, rank, kind, called)

    calls.get([each.__ray_call__.remote(join, rank) for rank, each in enumerate(actors)])
    group = CommunicatorHandle(actors, called, kind)
    with _lock:
        _groups[called] = group
    return group


def get_collective_groups(actors: list[ActorHandle], backend: str | None = None) -> list[CommunicatorHandle]:
    """Return the groups of this process that have all of these members.

    Args:
        actors: the members.
        backend: only groups of this one.

    Raises:
        ValueError: an unknown backend.
    """
    kind = None if backend is None else str(Backend(backend))
    with _lock:
        return _with_member(actors, kind)


def _with_member(actors: list[ActorHandle], backend: str | None) -> list[CommunicatorHandle]:
    return [
        group
        for group in _groups.values()
        if backend in (None, group.backend) and all(group.get_rank(each) >= 0 for each in actors)
    ]


def destroy_collective_group(group_or_name: CommunicatorHandle | str) -> None:
    """Have the members leave; those that are dead have.

    Args:
        group_or_name: a group of this process.

    Raises:
        ValueError: there is no such group.
    """
    name = group_or_name.name if isinstance(group_or_name, CommunicatorHandle) else group_or_name
    if not isinstance(name, str):
        raise ValueError("Expected CommunicatorHandle or str (group name).")
    with _lock:
        group = _groups.pop(name, None)
    if group is None:
        raise ValueError(f"No group with name {name} found.")

    def leave(_: Any) -> None:
        collective.destroy_collective_group(name)

    for ref in [each.__ray_call__.remote(leave) for each in group.actors]:
        try:
            calls.get(ref)
        except ActorDiedError:
            continue


def destroy_all_collective_groups() -> None:
    """Have the members of all groups of this process leave."""
    for group in get_collective_groups([]):
        destroy_collective_group(group)


class _Operation:
    """An operation that Ray can also bind into a graph."""

    def __init__(self, operation: Callable[..., None]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._operation(*args, **kwargs)

    def bind(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse.

        Raises:
            NotImplementedError: always.
        """
        name = self._operation.__name__
        raise NotImplementedError(
            f"Graphs have no collectives: call rabbitry.util.collective.{name} in the methods that the graph binds."
        )


allgather = _Operation(collective.allgather)
allreduce = _Operation(collective.allreduce)
reducescatter = _Operation(collective.reducescatter)
