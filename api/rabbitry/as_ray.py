"""Run programs written for Ray: `python -m rabbitry.as_ray prog.py args` (or `-m module args`, `-c code args`).

`import rabbitry as ray` covers one line; `from ray.util.queue import Queue` is another module. `install()` puts a
finder first on `sys.meta_path`, before any Ray that is installed, which answers for `ray` and every `ray.*`: with the
module of rabbitry that has the same name, else with an adapter, else with the Python of an installed Ray
(`rabbitry.ray_alias`). What none of them has raises a ModuleNotFoundError that says what would bring it.

Child processes: `install()` puts `rabbitry/ray_shim` first on PYTHONPATH, where a package `ray` of four lines calls
`install()` in the child, and sets `RABBITRY_AS_RAY=1`, which a session tells its workers. A child that ignores the
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
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from rabbitry.exceptions import use_rays_names
from rabbitry.ray_alias.finder import RayFinder

VARIABLE = "RABBITRY_AS_RAY"
"""The environment variable that tells workers and children to let `ray` mean rabbitry."""

SHIM = Path(__file__).with_name("ray_shim")
"""The directory that goes on PYTHONPATH."""

USAGE = "usage: python -m rabbitry.as_ray (PROGRAM | -m MODULE | -c CODE) [ARGUMENT ...]"


def install(*, children: bool = True) -> None:
    """Make `import ray` and `from ray.x import y` mean rabbitry in this process. May be called again.

    Modules of a real Ray that were imported before are dropped from `sys.modules`; names that a program bound to them
    stay what they were, so call this first.

    Args:
        children: also in child processes that inherit this one's environment, and in the workers of sessions that
            start after this call.
    """
    if not any(isinstance(finder, RayFinder) for finder in sys.meta_path):
        for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
            del sys.modules[name]
        sys.meta_path.insert(0, RayFinder())
        use_rays_names()
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
    import rabbitry_broker

    found = [str(Path(module.__path__[0]).parent) for module in (sys.modules["rabbitry"], rabbitry_broker)]
    # Of an environment of its own, a child may be another Python: its packages are no business of ours.
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    return [path for path in found if path not in installed]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a program as `python` itself would, with `ray` meaning rabbitry.

    Args:
        arguments: what follows `python -m rabbitry.as_ray`; None for `sys.argv[1:]`.

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
    """Put a directory where Python puts that of the program: in place of the one that `-m rabbitry.as_ray` brought."""
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
        print(f"python -m rabbitry.as_ray: can't open file {full!r}: {error.strerror}", file=sys.stderr)
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
        raise SystemExit(f"python -m rabbitry.as_ray: {error}") from None
    loader: Any = spec.loader if spec is not None else None
    if spec is None or not hasattr(loader, "get_code"):
        raise SystemExit(f"python -m rabbitry.as_ray: no module named {shown} that can be run")
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
    importlib.import_module("rabbitry.as_ray").main()
