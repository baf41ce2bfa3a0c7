"""The check of each field of a runtime environment, at the line that wrote it.

Each takes a value that is not None and returns it as it is kept, or None if it says nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rabbitry.arguments import shown, wrong_type
from rabbitry.runtime_env import uris
from rabbitry.runtime_env.config import RuntimeEnvConfig

AUTO: Final = "auto"
"""`working_dir="auto"`: the directory of the driver's script."""

_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_PIP: Final = {"packages": list, "pip_check": bool, "pip_version": str, "pip_install_options": list}
_UV: Final = {"packages": list, "uv_check": bool, "uv_version": str, "uv_pip_install_options": list}


def env_vars(value: Any) -> dict[str, str] | None:
    """Check `env_vars`: text to text, of what an environment can hold."""
    if not isinstance(value, dict):
        raise TypeError(f"runtime_env['env_vars'] must be a dict of text to text, but is a {type(value).__name__}.")
    checked: dict[str, str] = {}
    for name, text in value.items():
        for what, each in (("name", name), ("value", text)):
            if not isinstance(each, str):
                raise TypeError(
                    f"runtime_env['env_vars'] must be a dict of text to text, but in {shown(name)}: {shown(text)} the "
                    f"{what} is a {type(each).__name__}."
                )
        if not name or "=" in name or not _can_be_set(name) or not _can_be_set(text):
            raise ValueError(
                f"runtime_env['env_vars']: {shown(name)} cannot be set in an environment to {shown(text)}: a name is "
                "not empty and has no '=', and neither has NUL characters or lone surrogates (what `os.environ` holds "
                "for bytes that are no text can be set)."
            )
        checked[str.__str__(name)] = str.__str__(text)
    return checked or None


def _can_be_set(text: str) -> bool:
    """Return True if an environment can hold `text`."""
    try:
        return b"\0" not in os.fsencode(str.__str__(text))
    except UnicodeEncodeError:
        return False


def working_dir(value: Any) -> str:
    """Check `working_dir`: a directory or archive of this machine, a URI, or "auto"."""
    if not isinstance(value, (str, Path)):
        raise wrong_type("runtime_env['working_dir']", value, "text: a path, a URI, or 'auto'")
    text = _text("working_dir", str(value))
    if text == AUTO:
        return text
    if not uris.is_path(text):
        uris.check_uri("working_dir", text)
        return text
    uris.check_path("working_dir", text)
    if not os.path.isdir(text) and not text.endswith(uris.ARCHIVES["working_dir"]):
        raise ValueError(
            f"runtime_env['working_dir'] must be a directory or an archive "
            f"({', '.join(uris.ARCHIVES['working_dir'])}), but {text} is neither."
        )
    return text


def py_modules(value: Any) -> list[str] | None:
    """Check `py_modules`: directories, files, wheels or archives of this machine, URIs, imported modules."""
    if not isinstance(value, list):
        raise wrong_type("runtime_env['py_modules']", value, "a list of paths, URIs and imported modules")
    checked = []
    for each in value:
        if isinstance(each, ModuleType):
            text = _path_of_module(each)
        elif isinstance(each, (str, Path)):
            text = _text("py_modules", str(each))
        else:
            raise wrong_type("an entry of runtime_env['py_modules']", each, "a path, a URI or an imported module")
        if not uris.is_path(text):
            uris.check_uri("py_modules", text)
        else:
            uris.check_path("py_modules", text)
            if not os.path.isdir(text) and not text.endswith((".py", *uris.ARCHIVES["py_modules"])):
                raise ValueError(
                    f"an entry of runtime_env['py_modules'] must be a directory, a .py file, a wheel or an archive, "
                    f"but {text} is none of these."
                )
        checked.append(text)
    return checked or None


def _path_of_module(module: ModuleType) -> str:
    paths = list(getattr(module, "__path__", ()))
    if len(paths) > 1:
        raise ValueError(
            f"runtime_env['py_modules'] takes modules that are one directory or one file; {module.__name__} lies in "
            f"{len(paths)} directories: name these."
        )
    path = paths[0] if paths else getattr(module, "__file__", None)
    if not path:
        raise ValueError(f"runtime_env['py_modules']: module {module.__name__} has no file.")
    return str(path)


def excludes(value: Any) -> list[str] | None:
    """Check `excludes`: patterns as in a .gitignore."""
    return _list_of_text("excludes", value) or None


def pip(value: Any) -> dict[str, Any] | None:
    """Check `pip`: requirements, the path of a file of them, or a dict with options."""
    return _installed("pip", value, _PIP)


def uv(value: Any) -> dict[str, Any] | None:
    """Check `uv`: requirements, the path of a file of them, or a dict with options."""
    checked = _installed("uv", value, _UV)
    if checked is not None and isinstance(value, dict):
        checked.setdefault("uv_pip_install_options", [])
    return checked


def _installed(field: str, value: Any, known: dict[str, type]) -> dict[str, Any] | None:
    if isinstance(value, (str, Path)):
        checked: dict[str, Any] = {"packages": _requirements_of_file(field, value)}
    elif isinstance(value, list):
        checked = {"packages": _list_of_text(field, value)}
    elif isinstance(value, dict):
        unknown = sorted(map(str, value.keys() - known.keys()))
        if unknown:
            raise ValueError(
                f"runtime_env[{field!r}] can only have these fields: {', '.join(known)}, but has {', '.join(unknown)}."
            )
        if "packages" not in value:
            raise ValueError(f"runtime_env[{field!r}] must include field 'packages', but is {shown(value)}.")
        checked = {}
        for key, each in value.items():
            if key == "packages" and isinstance(each, (str, Path)) and field == "pip":
                checked[key] = _requirements_of_file(field, each)
            elif key == "packages" and not isinstance(each, list):
                raise ValueError(f"runtime_env[{field!r}]['packages'] must be a list of text, but is {shown(each)}.")
            elif known[key] is list:
                checked[key] = _list_of_text(f"{field}']['{key}", each)
            elif not isinstance(each, known[key]):
                raise wrong_type(f"runtime_env[{field!r}][{key!r}]", each, f"a {known[key].__name__}")
            else:
                checked[key] = each
    else:
        raise wrong_type(f"runtime_env[{field!r}]", value, "a list of requirements, the path of a file, or a dict")
    checked["packages"] = list(dict.fromkeys(checked["packages"]))
    checked.setdefault(f"{field}_check", False)
    return checked if checked["packages"] else None


def _requirements_of_file(field: str, path: str | Path) -> list[str]:
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file} is not a valid file: runtime_env[{field!r}] as text is the path of requirements.")
    lines = file.read_text().strip().split("\n")
    folder = file.parent.resolve()
    return [_from_folder(line, folder) for line in lines if line.strip()]


def _from_folder(line: str, folder: Path) -> str:
    """Return a line of a file with what it says of other files here as it has to be said elsewhere."""
    option, _, rest = line.strip().partition(" ")
    if option in ("-r", "-c", "--requirement", "--constraint"):
        raise ValueError(
            f"requirements that name other files cannot go to nodes as they are: {line.strip()!r}. Put what is in "
            f"{folder / rest.strip()} into one list."
        )
    return line


def conda(value: Any) -> str | dict[str, Any]:
    """Check `conda`: the name or directory of an environment on the nodes, the path of a YAML file, or its content."""
    if isinstance(value, dict):
        return dict(value)
    if not isinstance(value, (str, Path)):
        raise wrong_type("runtime_env['conda']", value, "the name of an environment, the path of a file, or a dict")
    path = Path(value)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"Can't find conda YAML file {path}.")
        try:
            import yaml
        except ImportError:
            raise ValueError(
                f"reading {path} needs the package PyYAML: install it, or give the content of the file as a dict."
            ) from None
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ValueError(f"Failed to read conda file {path}: {error}.") from error
        if not isinstance(content, dict):
            raise ValueError(f"conda file {path} must hold a mapping, but holds {shown(content)}.")
        return content
    if path.is_absolute() and not path.is_dir():
        raise ValueError(f"Can't find conda env directory {path}.")
    return _text("conda", str(value))


def py_executable(value: Any) -> str:
    """Check `py_executable`: the command that starts worker processes instead of the node's Python."""
    if not isinstance(value, str):
        raise wrong_type("runtime_env['py_executable']", value, "text: a command such as 'python -u'")
    import shlex

    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"runtime_env['py_executable'] is {shown(value)}, which is no command: {error}.") from None
    if not words:
        raise ValueError("runtime_env['py_executable'] is empty: it must be a command such as 'python -u'.")
    return _text("py_executable", value)


def worker_process_setup_hook(value: Any) -> Any:
    """Check `worker_process_setup_hook`: a function without arguments, or "module.function"."""
    if callable(value):
        return value
    if not isinstance(value, str):
        raise wrong_type("runtime_env['worker_process_setup_hook']", value, "a function, or text: 'module.function'")
    if "." not in value or not _MODULE.fullmatch(value):
        raise ValueError(f"runtime_env['worker_process_setup_hook'] must be 'module.function', but is {shown(value)}.")
    return value


def config(value: Any) -> dict[str, Any]:
    """Check `config`."""
    return RuntimeEnvConfig.parse_and_validate_runtime_env_config(value)


def container(value: Any) -> dict[str, Any] | None:
    """Check `container`: `{"image": ..., "run_options": [...]}`, the former way to say `image_uri`."""
    if not isinstance(value, dict):
        raise wrong_type("runtime_env['container']", value, "a dict with 'image' and perhaps 'run_options'")
    unknown = sorted(map(str, value.keys() - {"image", "run_options", "worker_path"}))
    if unknown:
        raise ValueError(f"runtime_env['container'] has no {', '.join(unknown)}: image, run_options, worker_path.")
    image_uri(value.get("image"))
    if "run_options" in value:
        _list_of_text("container']['run_options", value["run_options"])
    return dict(value)


def image_uri(value: Any) -> str:
    """Check `image_uri`: the name of a container image."""
    if not isinstance(value, str):
        raise wrong_type("runtime_env['image_uri']", value, "text: the name of a container image")
    if not value or value.startswith("-") or any(each.isspace() for each in value):
        raise ValueError(f"runtime_env['image_uri'] is {shown(value)}, which is no name of a container image.")
    return _text("image_uri", value)


def preload(value: Any) -> list[str] | None:
    """Check `preload`: names of modules that the environment's processes shall have imported already."""
    names = _list_of_text("preload", value)
    for name in names:
        if not _MODULE.fullmatch(name):
            raise ValueError(f"runtime_env['preload'] must have names of modules, but has {shown(name)}.")
    return list(dict.fromkeys(names)) or None


def _list_of_text(field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise wrong_type(f"runtime_env['{field}']", value, "a list of text")
    return [_text(field, each) for each in value]


def _text(field: str, value: str) -> str:
    if not _can_be_set(value):
        raise ValueError(f"runtime_env['{field}'] has {shown(value)}, in which there is a NUL or a lone surrogate.")
    return str.__str__(value)


FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "env_vars": env_vars,
    "working_dir": working_dir,
    "excludes": excludes,
    "py_modules": py_modules,
    "pip": pip,
    "uv": uv,
    "conda": conda,
    "py_executable": py_executable,
    "worker_process_setup_hook": worker_process_setup_hook,
    "config": config,
    "container": container,
    "image_uri": image_uri,
    "preload": preload,
}
"""The fields there are, and the check of each."""

UNSUPPORTED: Final = frozenset(("java_jars", "nsight", "_nsight", "rocprof_sys", "_rocprof_sys"))
"""Fields of Ray that rabbitry has nothing for."""

INTERPRETERS: Final = ("pip", "uv", "conda", "py_executable", "image_uri", "container")
"""Fields that say which Python there is: one of them at most."""


def together(env: dict[str, Any]) -> None:
    """Check which fields stand beside each other.

    Raises:
        ValueError: two that cannot.
    """
    given = [field for field in INTERPRETERS if env.get(field) is not None]
    if len(given) > 1:
        if set(given) <= {"pip", "uv", "conda"}:
            raise ValueError(
                "The 'pip' field, 'uv' field, and 'conda' field of runtime_env cannot be specified at the same time. "
                f"Specified: {', '.join(given)}. To use pip with conda, put the packages of pip into the dependencies "
                "of 'conda'."
            )
        raise ValueError(f"runtime_env can have one of {', '.join(given)} only: each says which Python runs.")
    for field in ("image_uri", "container"):
        others = _others(env, {field, "config", "env_vars"})
        if env.get(field) is not None and others:
            raise ValueError(
                f"The {field!r} field currently cannot be used together with other fields of runtime_env. "
                f"Specified fields: {', '.join(others)}."
            )


def _others(env: Iterable[str], allowed: set[str]) -> list[str]:
    return sorted(field for field in env if field not in allowed)
