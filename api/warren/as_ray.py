"""Run programs written for Ray: `python -m warren.as_ray prog.py args` (or `-m module args`, `-c code args`).

`import warren as ray` covers one line; `from ray.util.queue import Queue` is another module. `install()` puts a finder
first on `sys.meta_path`, before any Ray that is installed, which answers for `ray` and every `ray.*` with the module of
warren that has the same name: the very same object. What warren has no module for raises a ModuleNotFoundError that
names it.

Child processes: `install()` puts `warren/ray_shim` first on PYTHONPATH, where a package `ray` of four lines calls
`install()` in the child, and sets `WARREN_AS_RAY=1`, which a session tells its workers. A child that ignores the
environment (`python -E`, `-I`) is out of reach.
"""

from __future__ import annotations

import importlib
import linecache
import os
import site
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

VARIABLE = "WARREN_AS_RAY"
"""The environment variable that tells workers and children to let `ray` mean warren."""

SHIM = Path(__file__).with_name("ray_shim")
"""The directory that goes on PYTHONPATH."""

RENAMED = {"ray._private": "warren.internal", "ray.internal": "warren.internal"}
"""Ray's names of modules that have another name here."""

USAGE = "usage: python -m warren.as_ray (PROGRAM | -m MODULE | -c CODE) [ARGUMENT ...]"


class _RayFinder(MetaPathFinder):
    """Answers for `ray` and `ray.*`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for Ray's names, None for all others.

        Raises:
            ModuleNotFoundError: warren has no such module.
        """
        if name != "ray" and not name.startswith("ray."):
            return None
        ours = RENAMED.get(name, "warren" + name[len("ray") :])
        if ours not in sys.modules and find_spec(ours) is None:
            # Two finders up the stack is who asks: `importlib.util.find_spec("ray.data")` is the question whether it
            # is there, to which the answer is None; an import statement gets an error that says more than Python's.
            if sys._getframe(2).f_globals.get("__name__") == "importlib.util":
                return None
            raise ModuleNotFoundError(
                f"{name} is not part of warren (there is no module {ours}), which covers Ray Core: tasks, actors, "
                "objects and ray.util.",
                name=name,
            )
        return ModuleSpec(name, _Alias(ours), is_package=True)


class _Alias(Loader):
    """Loads a module under Ray's name by importing warren's."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return warren's module itself."""
        module = importlib.import_module(self._ours)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: that happened when it was imported as warren's."""
        # Between the two calls the import system put the spec with Ray's name into the module.
        module.__spec__ = self._own_spec


def install(*, children: bool = True) -> None:
    """Make `import ray` and `from ray.x import y` mean warren in this process. May be called again.

    Modules of a real Ray that were imported before are dropped from `sys.modules`; names that a program bound to them
    stay what they were, so call this first.

    Args:
        children: also in child processes that inherit this one's environment, and in the workers of sessions that
            start after this call.
    """
    if not any(isinstance(finder, _RayFinder) for finder in sys.meta_path):
        for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
            del sys.modules[name]
        sys.meta_path.insert(0, _RayFinder())
    importlib.import_module("ray")
    if children:
        os.environ[VARIABLE] = "1"
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = dict.fromkeys([str(SHIM), *_roots(), *before])
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        if str(SHIM) not in sys.path:
            # Where PYTHONPATH would put it: what multiprocessing spawns, and workers, get the path of this process.
            sys.path.insert(1, str(SHIM))


def _roots() -> list[str]:
    """Return where a child must look for our packages if Python would not find them there by itself."""
    import warren_broker

    found = [str(Path(module.__path__[0]).parent) for module in (sys.modules["warren"], warren_broker)]
    # Of an environment of its own, a child may be another Python: its packages are no business of ours.
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    return [path for path in found if path not in installed]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a program as `python` itself would, with `ray` meaning warren.

    Args:
        arguments: what follows `python -m warren.as_ray`; None for `sys.argv[1:]`.

    Raises:
        SystemExit: no such program, or what the program raised.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(USAGE, file=sys.stderr if not given else sys.stdout)
        raise SystemExit(0 if given else 2)
    if given[0] in ("-m", "-c") and len(given) < 2:
        raise SystemExit(f"{USAGE}\n{given[0]} needs an argument")
    install()
    if given[0] == "-m":
        _set_path(os.getcwd())
        sys.argv = ["-m", *given[2:]]
        module, code = _module(given[1])
        sys.argv[0] = str(module.__file__)
    elif given[0] == "-c":
        _set_path("")
        sys.argv = ["-c", *given[2:]]
        module, code = ModuleType("__main__"), partial(compile, given[1], "<string>", "exec", dont_inherit=True)
        if sys.version_info >= (3, 13):  # Python itself shows the lines of `-c` in tracebacks from then on.
            linecache.cache["<string>"] = (len(given[1]), None, given[1].splitlines(True), "<string>")
    else:
        sys.argv = given
        module, code = _program(given[0])
    _run(module, code)


def _set_path(directory: str) -> None:
    """Put a directory where Python puts that of the program: in place of the one that `-m warren.as_ray` brought."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = directory


def _program(path: str) -> tuple[ModuleType, Callable[[], CodeType]]:
    """Return an empty `__main__` for a file, or a directory or zip file with a `__main__.py`, and what compiles it."""
    if os.path.isdir(path) or zipfile.is_zipfile(path):
        _set_path(os.path.abspath(path))
        return _module("__main__", shown=path)
    _set_path(os.path.dirname(os.path.realpath(path)))
    full = os.path.abspath(path)
    loader = SourceFileLoader("__main__", full)
    try:
        source = loader.get_data(full)
    except OSError as error:
        print(f"python -m warren.as_ray: can't open file {full!r}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    module = ModuleType("__main__")
    module.__file__ = full
    module.__loader__ = loader
    module.__dict__["__cached__"] = None
    # Not by the loader's `get_code`: as with Python itself, the program leaves no .pyc.
    return module, partial(loader.source_to_code, source, full)


def _module(name: str, shown: str = "") -> tuple[ModuleType, Callable[[], CodeType]]:
    """Return an empty `__main__` for a module or package that can be imported, and what compiles it."""
    shown = shown or name
    if name == "__main__":
        sys.modules.pop(name)  # ours; the search would stop at it
    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{name}.__main__")
            shown = f"{name}.__main__"
    except ModuleNotFoundError as error:
        raise SystemExit(f"python -m warren.as_ray: {error}") from None
    loader: Any = spec.loader if spec is not None else None
    if spec is None or not hasattr(loader, "get_code"):
        raise SystemExit(f"python -m warren.as_ray: no module named {shown} that can be run")
    module = ModuleType("__main__")
    module.__spec__ = spec
    module.__file__ = spec.origin
    module.__loader__ = loader
    module.__package__ = spec.parent
    module.__dict__["__cached__"] = spec.cached
    return module, partial(loader.get_code, spec.name)


def _run(module: ModuleType, get_code: Callable[[], CodeType]) -> None:
    """Run code as `__main__`; of an uncaught error show what Python would, without our own frames."""
    module.__dict__.update(__builtins__=sys.modules["builtins"], __annotations__={})
    sys.modules["__main__"] = module
    compiled = False
    try:
        code = get_code()
        compiled = True
        exec(code, module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        # Shown here, and raised on for the rest of what Python does then: the exit code, and SIGINT after Ctrl-C.
        ours = error.__traceback__
        error.__traceback__ = ours.tb_next if ours is not None and compiled else None
        sys.excepthook(type(error), error, error.__traceback__)
        sys.excepthook = _shown_already
        raise


def _shown_already(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show nothing."""


if __name__ == "__main__":
    # Run by `-m`, this is a second copy of the module; the one that was imported by its name shall do the work.
    importlib.import_module("warren.as_ray").main()
