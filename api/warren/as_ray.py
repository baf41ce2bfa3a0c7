"""Run programs written for Ray: `python -m warren.as_ray prog.py args` (or `-m module`, `-c code`).

`import warren as ray` covers one line; `from ray.util.queue import Queue` is another module. `install()` puts an
importer first on `sys.meta_path` that answers for `ray` and every `ray.*` with the warren module of the same name,
the very same object. What warren has no module for raises an ImportError that names it.

Child processes: `install()` sets `WARREN_AS_RAY=1`, which warren's workers obey, and puts a directory with a stub
package `ray` first on PYTHONPATH, so that a plain Python child that says `import ray` reaches warren too.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Sequence
from types import ModuleType
from typing import Any

VARIABLE = "WARREN_AS_RAY"
_STUB = '''"""Reaches warren in place of Ray; made by warren.as_ray."""
import sys
del sys.modules["ray"]
from warren.as_ray import install
install(children=False)
import ray
sys.modules["ray"] = ray
'''
# Ray's names of modules that warren calls otherwise.
RENAMED = {"ray._private": "warren.internal", "ray.internal": "warren.internal"}


class RayFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for `ray` and `ray.*` with warren's modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for Ray's names, None for all others."""
        if name != "ray" and not name.startswith("ray."):
            return None
        ours = RENAMED.get(name, "warren" + name[3:])
        try:
            found = ours in sys.modules or importlib.util.find_spec(ours) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise ModuleNotFoundError(
                f"{name} is not part of warren (there is no {ours}). warren covers Ray Core: tasks, actors, objects "
                "and ray.util; see the README for the list.",
                name=name,
            )
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return warren's module itself."""
        module = importlib.import_module(RENAMED.get(spec.name, "warren" + spec.name[3:]))
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it ran when it was imported as warren's."""
        # The import system wrote Ray's name into the module's spec; pickling by reference needs warren's.
        module.__spec__ = self._own


_installed: RayFinder | None = None
_stub_directory: str | None = None


def install(*, children: bool = True) -> None:
    """Make `import ray` and `ray.*` mean warren in this process. May be called again.

    Args:
        children: also in child processes and in warren's workers.
    """
    global _installed, _stub_directory
    if _installed is None:
        for name in [each for each in sys.modules if each == "ray" or each.startswith("ray.")]:
            del sys.modules[name]
        _installed = RayFinder()
        sys.meta_path.insert(0, _installed)
        importlib.import_module("ray")
    if children and _stub_directory is None:
        os.environ[VARIABLE] = "1"
        _stub_directory = tempfile.mkdtemp(prefix="warren-as-ray-")
        package = os.path.join(_stub_directory, "ray")
        os.mkdir(package)
        with open(os.path.join(package, "__init__.py"), "w") as file:
            file.write(_STUB)
        # The child must find warren as this process did, wherever that was.
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        broker = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules["warren_broker"].__file__ or "")))
        before = os.environ.get("PYTHONPATH")
        parts = [_stub_directory, here, broker, *([before] if before else [])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(parts))
        atexit.register(_remove_stub, _stub_directory, os.getpid())


def _remove_stub(directory: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)


def wanted() -> bool:
    """True if a parent process ran under `as_ray`."""
    return os.environ.get(VARIABLE) == "1"


def main(arguments: list[str] | None = None) -> Any:
    """Run a program as `python` itself would, with `ray` meaning warren."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m warren.as_ray (PROGRAM | -m MODULE | -c CODE) [ARGUMENT ...]", file=sys.stderr)
        raise SystemExit(2 if not arguments else 0)
    install()
    if arguments[0] == "-m":
        if len(arguments) < 2:
            raise SystemExit("python -m warren.as_ray: -m needs the name of a module")
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        return runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    if arguments[0] == "-c":
        if len(arguments) < 2:
            raise SystemExit("python -m warren.as_ray: -c needs code")
        sys.argv = ["-c", *arguments[2:]]
        sys.path[0] = ""
        main_module = ModuleType("__main__")
        sys.modules["__main__"] = main_module
        exec(compile(arguments[1], "<string>", "exec"), main_module.__dict__)
        return None
    program = arguments[0]
    if not os.path.exists(program):
        raise SystemExit(f"python -m warren.as_ray: can't open file {program!r}")
    sys.argv = list(arguments)
    sys.path[0] = os.path.dirname(os.path.abspath(program))
    main_module = ModuleType("__main__")
    main_module.__file__ = program
    main_module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = main_module
    with open(program, "rb") as file:
        code = compile(file.read(), program, "exec")
    exec(code, main_module.__dict__)
    return None


if __name__ == "__main__":
    # `-m` runs this file a second time under the name __main__; the finder must be the imported module's.
    from warren.as_ray import main as run

    run()
