"""The finder that answers for `ray` and every `ray.*`, after the order that `rabbitry.ray_alias` states."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from types import ModuleType

from rabbitry.ray_alias import logger, table, wheel
from rabbitry.ray_alias.face import Face

EXTRA = "pip install 'rabbitry[ray]'"


class RayFinder(MetaPathFinder):
    """Answers for `ray` and `ray.*`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for Ray's names, None for all others.

        Raises:
            ModuleNotFoundError: nothing of that name is there; the text says what would bring it.
        """
        if name == "ray":
            return ModuleSpec(name, _FaceLoader(), is_package=True)
        if not name.startswith("ray."):
            return None
        below = name[len("ray.") :]
        spec = self._spec(name, below)
        if spec is None and sys._getframe(2).f_globals.get("__name__") != "importlib.util":
            # Two finders up the stack is who asks: `importlib.util.find_spec("ray.data")` is the question whether it
            # is there, to which the answer is None; an import statement gets an error that says more than Python's.
            raise ModuleNotFoundError(_why(name, below), name=name)
        return spec

    def _spec(self, name: str, below: str) -> ModuleSpec | None:
        ours = our_module(below)
        if ours is not None:
            return ModuleSpec(name, _Alias(ours), is_package=True)
        if _never(below) is not None:
            return None
        file, folder = wheel.file(below)
        if file is not None:
            kind = _AmendedLoader if below in table.AMENDED else SourceFileLoader
            loader = (_WheelPackageLoader if folder is not None else kind)(name, str(file))
            places = [str(folder)] if folder is not None else None
            return spec_from_file_location(name, file, loader=loader, submodule_search_locations=places)
        if folder is not None:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(folder)]
            return spec
        return None


def our_module(below: str) -> str | None:
    """Return the full name of our module for a name below `ray`, or of the adapter for it; None if it is neither."""
    if below in table.ADAPTERS:
        return f"rabbitry.ray_alias.adapters.{table.ADAPTERS[below]}"
    if below.partition(".")[0] not in table.OURS or (below in table.WHEEL_FIRST and wheel.file(below)[0] is not None):
        return None
    ours = f"rabbitry.{below}"
    if ours in sys.modules:
        return ours
    try:
        return ours if find_spec(ours) is not None else None
    except ModuleNotFoundError:  # its parent is none of ours, or no package
        return None


def _why(name: str, below: str) -> str:
    if wheel.directory() is None:
        return (
            f"{name} is not part of rabbitry, which covers Ray Core and ray.util; Ray's own libraries run on it where "
            f"Ray's package is installed too: {EXTRA}"
        )
    if wheel.is_too_old():
        oldest = ".".join(map(str, table.OLDEST_RAY))
        return f"{name} is Ray's, and the installed Ray {wheel.version()} is older than {oldest}: {EXTRA}"
    if (why := _never(below)) is not None:
        return f"{name} {why}"
    return f"No module named {name!r}: neither rabbitry nor the installed Ray {wheel.version()} has it"


def _never(below: str) -> str | None:
    """Return why a module of the wheel cannot work here, itself or the package it is in; None if it can."""
    while below:
        if below in table.NEVER:
            return table.NEVER[below]
        below = below.rpartition(".")[0]
    return None


class _FaceLoader(Loader):
    """Makes the module `ray` itself."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a new face."""
        return Face()

    def exec_module(self, module: ModuleType) -> None:
        """Set up what importing Ray sets up in a process.

        The packages that the wheel carries are found last; an installed Ray lets them be found first.
        """
        logger.set_up()
        inside = wheel.packages_inside()
        if inside is not None and str(inside) not in sys.path:
            sys.path.append(str(inside))


class _Alias(Loader):
    """Loads a module under Ray's name by importing rabbitry's."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._own_spec: ModuleSpec | None = None
        self._rays = ""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return rabbitry's module itself."""
        module = importlib.import_module(self._ours)
        self._own_spec = module.__spec__
        self._rays = spec.name
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: that happened when it was imported as rabbitry's."""
        # Between the two calls the import system put the spec with Ray's name into the module.
        module.__spec__ = self._own_spec
        # Who imports `ray.util.placement_group` gets the module, but `ray.util` keeps its function of that name: what
        # is in sys.modules already, the import system does not make an attribute of the package.
        for name, value in list(vars(module).items()):
            below = sys.modules.get(f"{self._ours}.{name}")
            if below is not None and below is not value:
                sys.modules[f"{self._rays}.{name}"] = below


class _AmendedLoader(SourceFileLoader):
    """Loads a module of the wheel, then has an adapter replace something in it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's file, then the adapter."""
        super().exec_module(module)
        adapter = table.AMENDED[module.__name__.partition(".")[2]]
        importlib.import_module(f"rabbitry.ray_alias.adapters.{adapter}").amend(module)


class _WheelPackageLoader(SourceFileLoader):
    """Loads a package of the wheel, whose modules are attributes at once: Ray's `__init__` would have imported most."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the package's file; then let names that it has not be looked for among its modules."""
        super().exec_module(module)
        if "__getattr__" in module.__dict__:
            return
        package = module.__name__

        def find_module(name: str) -> object:
            if not name.startswith("__"):
                try:
                    return importlib.import_module(f"{package}.{name}")
                except ModuleNotFoundError as error:
                    if error.name != f"{package}.{name}":
                        raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)

        module.__dict__["__getattr__"] = find_module
