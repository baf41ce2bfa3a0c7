"""`RuntimeEnv`; how environments are checked, and what children inherit."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from rabbitry.arguments import shown, text
from rabbitry.runtime_env import checks, uris
from rabbitry.runtime_env.plugins import plugins
from rabbitry.suggestions import closest

_INTERNAL: Final = ("_ray_release", "_ray_commit", "_inject_current_ray")
"""What Ray notes in environments; accepted, unused."""


class RuntimeEnv(dict[str, Any]):
    """A runtime environment as an object; a plain dict does as well.

    Args:
        py_modules: directories, `.py` files, wheels and archives, URIs of archives, imported modules: importable there.
        py_executable: command that starts worker processes instead of the node's Python.
        working_dir: directory or archive of this machine, or URI of an archive: where tasks run, and import from.
            "auto": the directory of the driver's script.
        pip: requirements, path of a file of them, or a dict with `packages`, `pip_check`, `pip_version` and
            `pip_install_options`.
        conda: name of an environment on the nodes, path of a YAML file, or its content.
        container: `{"image": ...}`, the former way to say `image_uri`.
        env_vars: environment variables that the process shall have, text to text.
        worker_process_setup_hook: function without arguments, or "module.function", that runs first in each process.
        nsight: refused; rabbitry starts no profiler.
        rocprof_sys: refused, too.
        config: a `RuntimeEnvConfig`, or a dict.
        image_uri: container image in which worker processes run.
        uv: as `pip`, with `uv_check`, `uv_version` and `uv_pip_install_options`.
        kwargs: `excludes` (patterns of files that are left out), `preload` (modules that processes have imported when
            they start), fields of plugins. What else is there is kept and inherited, without effect.

    Raises:
        TypeError: a field is of the wrong type; the value of one that is not known is none that JSON can hold.
        ValueError: an impossible value, or fields that cannot stand beside each other.

    >>> RuntimeEnv(env_vars={"A": "1"}, pip=["requests"]).to_dict()
    {'pip': {'packages': ['requests'], 'pip_check': False}, 'env_vars': {'A': '1'}}
    """

    def __init__(
        self,
        *,
        py_modules: list[Any] | None = None,
        py_executable: str | None = None,
        working_dir: str | None = None,
        pip: Any = None,
        conda: Any = None,
        container: dict[str, Any] | None = None,
        env_vars: Mapping[str, str] | None = None,
        worker_process_setup_hook: Any = None,
        nsight: Any = None,
        rocprof_sys: Any = None,
        config: Any = None,
        _validate: bool = True,
        image_uri: str | None = None,
        uv: Any = None,
        **kwargs: Any,
    ) -> None:
        named = {
            "py_modules": py_modules,
            "py_executable": py_executable,
            "working_dir": working_dir,
            "pip": pip,
            "uv": uv,
            "conda": conda,
            "nsight": nsight,
            "rocprof_sys": rocprof_sys,
            "container": container,
            "env_vars": env_vars,
            "config": config,
            "worker_process_setup_hook": worker_process_setup_hook,
            "image_uri": image_uri,
        }
        fields = {**kwargs, **{name: value for name, value in named.items() if value is not None}}
        super().__init__((check_runtime_env(fields) or {}) if _validate else fields)

    # -- as a dict ---------------------------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        checked = _check_field(key, value)
        if checked is not None:
            super().__setitem__(key, checked)

    def set(self, name: str, value: Any) -> None:
        """Set a field; it is checked."""
        self[name] = value

    def get(self, name: str, default: Any = None, data_class: Any = None) -> Any:
        """Return a field; `default` if it is not there; as a `data_class` made of its entries, if there is one."""
        if name not in self:
            return default
        value = self[name]
        return value if data_class is None else data_class(**value)

    def to_dict(self) -> dict[str, Any]:
        """Return this environment as a plain dict."""
        return {key: dict(value) if key == "config" else deepcopy(value) for key, value in self.items()}

    @classmethod
    def deserialize(cls, serialized_runtime_env: str) -> RuntimeEnv:
        """Return the environment that `serialize` wrote; it is not checked again."""
        return cls(_validate=False, **json.loads(serialized_runtime_env))

    def serialize(self) -> str:
        """Return this environment as JSON."""
        return json.dumps(type(self)(**self), sort_keys=True)

    def __reduce__(self) -> Any:
        return _restore, (dict(self),)

    # -- what is in it -----------------------------------------------------------------------------------------------

    def has_working_dir(self) -> bool:
        """True if it names a working directory."""
        return self.get("working_dir") is not None

    def working_dir_uri(self) -> str | None:
        """Return the working directory, or None."""
        return self.working_dir() or None

    def working_dir(self) -> str:
        """Return the working directory, or ""."""
        return str(self.get("working_dir", ""))

    def py_modules(self) -> list[str]:
        """Return the modules."""
        return list(self.get("py_modules", []))

    def py_modules_uris(self) -> list[str]:
        """Return the modules."""
        return self.py_modules()

    def conda_uri(self) -> str | None:
        """Return a name for what `conda` says, or None."""
        return self._uri("conda")

    def pip_uri(self) -> str | None:
        """Return a name for what `pip` says, or None."""
        return self._uri("pip")

    def uv_uri(self) -> str | None:
        """Return a name for what `uv` says, or None."""
        return self._uri("uv")

    def _uri(self, field: str) -> str | None:
        if field not in self:
            return None
        text = json.dumps(self[field], sort_keys=True)
        return f"{field}://{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}"

    def plugin_uris(self) -> list[str]:
        """Return nothing, as in Ray."""
        return []

    def py_executable(self) -> str | None:
        """Return the command that starts worker processes, or None."""
        found: str | None = self.get("py_executable")
        return found

    def java_jars(self) -> list[str]:
        """Return nothing: rabbitry has no workers in Java."""
        return list(self.get("java_jars", []))

    def nsight(self) -> Any:
        """Return None: rabbitry starts no profiler."""
        return self.get("_nsight")

    def rocprof_sys(self) -> Any:
        """Return None: rabbitry starts no profiler."""
        return self.get("_rocprof_sys")

    def env_vars(self) -> dict[str, str]:
        """Return the environment variables."""
        return dict(self.get("env_vars") or {})

    def has_conda(self) -> bool:
        """True if it names a conda environment."""
        return bool(self.get("conda"))

    def conda_env_name(self) -> str | None:
        """Return the name of a conda environment that is on the nodes, or None."""
        return self["conda"] if self.has_conda() and isinstance(self["conda"], str) else None

    def conda_config(self) -> str | None:
        """Return the content of a conda environment as JSON, or None."""
        return json.dumps(self["conda"], sort_keys=True) if isinstance(self.get("conda"), dict) else None

    def has_pip(self) -> bool:
        """True if it has packages of pip."""
        return bool(self.get("pip"))

    def has_uv(self) -> bool:
        """True if it has packages of uv."""
        return bool(self.get("uv"))

    def virtualenv_name(self) -> str | None:
        """Return None: `pip` is kept as a dict."""
        return self["pip"] if isinstance(self.get("pip"), str) else None

    def pip_config(self) -> dict[str, Any]:
        """Return what `pip` says."""
        return dict(self.get("pip") or {})

    def uv_config(self) -> dict[str, Any]:
        """Return what `uv` says."""
        return dict(self.get("uv") or {})

    def get_extension(self, key: str) -> Any:
        """Return what Ray notes under this name.

        Raises:
            ValueError: it notes nothing of that name.
        """
        if key not in _INTERNAL:
            raise ValueError(f"Extension key must be one of {', '.join(_INTERNAL)}, got: {key}")
        return self.get(key)

    def has_py_container(self) -> bool:
        """True if `container` names an image."""
        return bool(self.get("container"))

    def py_container_image(self) -> str | None:
        """Return the image that `container` names, or None."""
        return self["container"].get("image", "") if self.has_py_container() else None

    def py_container_worker_path(self) -> str | None:
        """Return where `container` says that the program of workers is, or None."""
        return self["container"].get("worker_path", "") if self.has_py_container() else None

    def py_container_run_options(self) -> list[str] | None:
        """Return the options of `container`, or None."""
        return list(self["container"].get("run_options", [])) if self.has_py_container() else None

    def image_uri(self) -> str | None:
        """Return the image in which worker processes run, or None."""
        found: str | None = self.get("image_uri")
        return found

    def plugins(self) -> list[tuple[str, Any]]:
        """Return the fields that plugins add, with their values."""
        return [(key, value) for key, value in self.items() if key not in checks.FIELDS and key not in _INTERNAL]


def _restore(fields: dict[str, Any]) -> RuntimeEnv:
    return RuntimeEnv(_validate=False, **fields)


def check_runtime_env(runtime_env: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return `runtime_env` checked and copied, without what is None or empty; None if nothing is left.

    Raises:
        TypeError: it is no dict, or a field is of the wrong type; the value of one that is not known is none that JSON
            can hold.
        ValueError: an impossible value, or fields that cannot stand beside each other.
    """
    if runtime_env is None:
        return None
    if not isinstance(runtime_env, dict):
        raise TypeError(f"runtime_env must be a dict or a RuntimeEnv, but is a {type(runtime_env).__name__}.")
    checked: dict[str, Any] = {}
    for field, value in runtime_env.items():
        kept = _check_field(field, value)
        if kept is not None:
            checked[str.__str__(field)] = kept
    checks.together(checked)
    return checked or None


def _check_field(field: Any, value: Any) -> Any:
    if value is None or field in _INTERNAL:
        return None
    check = checks.FIELDS.get(field) if isinstance(field, str) else None
    if check is not None:
        return check(value)
    if field in checks.UNSUPPORTED:
        raise ValueError(
            f"runtime_env field {field!r} is not supported by rabbitry. These are: {', '.join(checks.FIELDS)}."
        )
    field = text("runtime_env: the name of a field", field)
    known = plugins()
    plugin = known.get(field)
    if plugin is not None:
        plugin.validate({field: value})
    elif hint := closest(field, [*checks.FIELDS, *known]):
        # Not refused: a node may have a plugin for it that this machine has not.
        warnings.warn(f"runtime_env has no field {shown(field)}, so it has no effect here.{hint}", stacklevel=4)
    try:
        json.dumps(value, ensure_ascii=False).encode()  # nor text that nobody can write
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{error}: runtime_env[{field!r}] must be what JSON can hold, but is {shown(value)}.") from None
    return value


def check_for_task(runtime_env: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the environment of a task or an actor, checked as `check_runtime_env` does.

    Raises:
        TypeError: as there.
        ValueError: as there; or it names a path of this machine, which can be uploaded for a whole job only.
    """
    checked = check_runtime_env(runtime_env)
    if checked is None:
        return None
    for path in [checked.get("working_dir"), *checked.get("py_modules", [])]:
        if path is not None and (path == checks.AUTO or uris.is_path(path)):
            raise ValueError(
                f"{path} is not a valid URI. Directories, files and modules of this machine can be uploaded for a "
                "whole job only, as init(runtime_env=...) does; here, name a URI that nodes can read."
            )
    checked.pop("excludes", None)
    return checked or None


def merge_runtime_envs(parent: Mapping[str, Any] | None, child: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the environment of a child task: its own fields over its parent's, `env_vars` variable by variable.

    Of the fields that say which Python runs, the child's stands instead of whichever its parent has.
    """
    if not parent or not child:
        return dict(parent or child or {}) or None
    merged = {**parent, **child}
    if "env_vars" in merged:
        merged["env_vars"] = {**parent.get("env_vars", {}), **child.get("env_vars", {})}
    if any(field in child for field in checks.INTERPRETERS):
        for field in checks.INTERPRETERS:
            if field not in child:
                merged.pop(field, None)
    if "image_uri" in child or "container" in child:
        allowed = {"image_uri", "container", "config", "env_vars"}
        merged = {field: value for field, value in merged.items() if field in allowed}
    return merged


def conflicts(parent: Mapping[str, Any], child: Mapping[str, Any]) -> list[str]:
    """Return what both environments set: fields, and variables of `env_vars`.

    >>> conflicts({"pip": {}, "env_vars": {"A": "1"}}, {"env_vars": {"A": "2", "B": "1"}})
    ["env_vars['A']"]
    """
    both = [field for field in child if field in parent and field != "env_vars"]
    variables = child.get("env_vars", {}).keys() & parent.get("env_vars", {}).keys()
    return [*both, *(f"env_vars[{name!r}]" for name in sorted(variables))]
