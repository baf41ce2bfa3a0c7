"""The backends of this process: those of torch, and what the program adds."""

from __future__ import annotations

from rabbitry.util.collective.collective_group.base_collective_group import BaseGroup
from rabbitry.util.collective.types import Backend

_added: dict[str, type[BaseGroup]] = {}


def register_collective_backend(name: str, group_cls: type[BaseGroup]) -> None:
    """Add a backend of one's own: in each process that uses it, and in the one that declares a group of it.

    Args:
        name: of the backend, in any case of its letters; `types.Backend` has it from now on.
        group_cls: a subclass of `BaseGroup`, of which groups are made by `(world_size, rank, group_name)`.

    Raises:
        TypeError: it is no subclass of `BaseGroup`.
        ValueError: the name is taken.
    """
    if not (isinstance(group_cls, type) and issubclass(group_cls, BaseGroup)):
        raise TypeError(f"{group_cls} is not a subclass of BaseGroup")
    upper = name.upper()
    if upper in (Backend.GLOO, Backend.NCCL) or upper in _added:
        raise ValueError(f"Backend {upper} already registered")
    _added[upper] = group_cls
    if not hasattr(Backend, upper):
        setattr(Backend, upper, upper)


def added(name: str) -> type[BaseGroup] | None:
    """Return the class that the program registered by a name, None if it did not."""
    return _added.get(name.upper())
