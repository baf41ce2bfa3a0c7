"""Several actors of one class, called together (deprecated in Ray)."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, NoReturn

from rabbitry import actor as actors_api
from rabbitry import calls
from rabbitry.actor import ActorHandle
from rabbitry.decorator import remote
from rabbitry.util.annotations import Deprecated


@dataclass
class ActorWrapper:
    """An actor of a group.

    Attributes:
        actor: its handle.
        metadata: what its method `get_actor_metadata` returned; None if there is no such method.
    """

    actor: ActorHandle
    metadata: Any


@dataclass
class ActorConfig:
    """What the actors of a group are created with; see `ActorGroup`."""

    num_cpus: float
    num_gpus: float
    resources: dict[str, float] | None
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]


class ActorGroupMethod:
    """A method of all actors of a group: `group.method.remote(...)`."""

    def __init__(self, actor_group: ActorGroup, method_name: str) -> None:
        self._group = weakref.ref(actor_group)
        self._method_name = method_name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: the actors are elsewhere.

        Raises:
            TypeError: always.
        """
        name = self._method_name
        raise TypeError(
            f"ActorGroup methods cannot be called directly. Instead of running 'object.{name}()', "
            f"try 'object.{name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the method of each actor; return the refs."""
        group = self._group()
        members = group.actors if group is not None else []
        return [getattr(each.actor, self._method_name).remote(*args, **kwargs) for each in members]


@Deprecated(message="Use rabbitry.util.multiprocessing, ActorPool, or a list of actors.", warning=True)
class ActorGroup:
    """Actors of one class: `group.method.remote(x)` calls all of them.

    Args:
        actor_cls: the plain class.
        num_actors: how many.
        num_cpus_per_actor: CPUs of each.
        num_gpus_per_actor: GPUs of each.
        resources_per_actor: other resources of each.
        init_args: arguments of the constructor.
        init_kwargs: keyword arguments of it.

    Raises:
        ValueError: no actors, or fewer than 0 CPUs or GPUs.
    """

    def __init__(
        self,
        actor_cls: type,
        num_actors: int = 1,
        num_cpus_per_actor: float = 1,
        num_gpus_per_actor: float = 0,
        resources_per_actor: dict[str, float] | None = None,
        init_args: tuple[Any, ...] | None = None,
        init_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.actors: list[ActorWrapper] = []
        if num_actors <= 0:
            raise ValueError(
                f"The provided `num_actors` must be greater than 0. Received num_actors={num_actors} instead."
            )
        if num_cpus_per_actor < 0 or num_gpus_per_actor < 0:
            raise ValueError(
                "The number of CPUs and GPUs per actor must not be negative. Received "
                f"num_cpus_per_actor={num_cpus_per_actor} and num_gpus_per_actor={num_gpus_per_actor}."
            )
        self.num_actors = num_actors
        self.actor_config = ActorConfig(
            num_cpus_per_actor, num_gpus_per_actor, resources_per_actor, init_args or (), init_kwargs or {}
        )
        self._remote_cls: Any = remote(
            num_cpus=num_cpus_per_actor, num_gpus=num_gpus_per_actor, resources=resources_per_actor
        )(actor_cls)
        self.start()

    def __getattr__(self, name: str) -> ActorGroupMethod:
        if name.startswith("__") or "actors" not in self.__dict__:
            raise AttributeError(name)
        if not self.actors:
            raise RuntimeError("This ActorGroup has been shutdown. Please start it again.")
        return ActorGroupMethod(self, name)

    def __len__(self) -> int:
        return len(self.actors)

    def __getitem__(self, index: Any) -> Any:
        return self.actors[index]

    def start(self) -> None:
        """Create the actors, after `shutdown`.

        Raises:
            RuntimeError: they are there.
        """
        if self.actors:
            raise RuntimeError(
                "The actors have already been started. Please call `shutdown` first if you want to restart them."
            )
        self.add_actors(self.num_actors)

    def shutdown(self, patience_s: float = 5) -> None:
        """End the actors.

        Args:
            patience_s: seconds to let them finish what they were sent; 0 or less to kill them at once.
        """
        members, self.actors = self.actors, []
        running = members
        if patience_s > 0 and members:
            ends = {each.actor.__ray_terminate__.remote(): each for each in members}
            _, late = calls.wait(list(ends), num_returns=len(ends), timeout=patience_s)
            running = [ends[ref] for ref in late]
        for each in running:
            actors_api.kill(each.actor)

    def remove_actors(self, actor_indexes: list[int]) -> None:
        """Let go of the actors with these numbers."""
        self.actors = [each for index, each in enumerate(self.actors) if index not in actor_indexes]

    def add_actors(self, num_actors: int) -> None:
        """Create more actors."""
        config = self.actor_config
        made = [self._remote_cls.remote(*config.init_args, **config.init_kwargs) for _ in range(num_actors)]
        metadata: list[Any] = [None] * num_actors
        if made and hasattr(made[0], "get_actor_metadata"):
            metadata = calls.get([each.get_actor_metadata.remote() for each in made])
        self.actors += [ActorWrapper(each, about) for each, about in zip(made, metadata, strict=True)]

    @property
    def actor_metadata(self) -> list[Any]:
        """What each actor's `get_actor_metadata` returned."""
        return [each.metadata for each in self.actors]
