"""A module that may be called: `rabbitry.client(...)`, which is a function in Ray."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rabbitry.client_builder import ClientBuilder


class CallableModule(ModuleType):
    """The class of the module `rabbitry.client`."""

    def __call__(self, address: str | None = None, **_: object) -> ClientBuilder:
        """Return what joins a cluster; see `ClientBuilder`."""
        from rabbitry.client_builder import ClientBuilder

        return ClientBuilder(address)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        # cloudpickle knows modules by their exact class, and takes this one along with each function that uses both
        # `rabbitry` and an attribute named `client`.
        return importlib.import_module, (self.__name__,)
