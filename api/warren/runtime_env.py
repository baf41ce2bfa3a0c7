"""Runtime environments: what a task, actor or job wants to find around it. So far: environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from warren.suggestions import closest

_UNSUPPORTED: Final = frozenset(
    {
        "conda",
        "config",
        "container",
        "eager_install",
        "excludes",
        "image_uri",
        "java_jars",
        "nsight",
        "_nsight",
        "pip",
        "py_executable",
        "py_modules",
        "rocprof_sys",
        "_rocprof_sys",
        "uv",
        "worker_process_setup_hook",
        "working_dir",
    }
)
_SUPPORTED: Final = ("env_vars",)


class RuntimeEnv(dict[str, Any]):
    """A runtime environment as an object; a plain dict does as well.

    Args:
        env_vars: environment variables that the process shall have, text to text.
        fields: other fields that Ray knows; they are refused.

    Raises:
        TypeError: `env_vars` is not a mapping of text to text.
        ValueError: a field that warren does not support, or that does not exist.
    """

    def __init__(self, *, env_vars: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(check_runtime_env({"env_vars": env_vars, **fields}) or {})

    def env_vars(self) -> dict[str, str]:
        """Return the environment variables."""
        return dict(self.get("env_vars") or {})

    def to_dict(self) -> dict[str, Any]:
        """Return this environment as a plain dict."""
        return dict(self)

    def __reduce__(self) -> Any:
        return _restore, (dict(self),)


def _restore(fields: dict[str, Any]) -> RuntimeEnv:
    return RuntimeEnv(**fields)


def check_runtime_env(runtime_env: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return `runtime_env` checked and copied, without what is None or empty; None if nothing is left.

    Raises:
        TypeError: it is no dict, or `env_vars` is not a dict of text to text.
        ValueError: a field that warren does not support, or that does not exist.
    """
    if runtime_env is None:
        return None
    if not isinstance(runtime_env, dict):
        raise TypeError(f"runtime_env must be a dict or a RuntimeEnv, but is a {type(runtime_env).__name__}.")
    checked: dict[str, Any] = {}
    for field, value in runtime_env.items():
        if field == "env_vars":
            variables = _check_variables(value)
            if variables:
                checked[field] = variables
        elif field not in _UNSUPPORTED:
            hint = closest(str(field), [*_SUPPORTED, *_UNSUPPORTED])
            raise ValueError(f"runtime_env has no field {field!r}.{hint} Supported: {', '.join(_SUPPORTED)}.")
        elif value is not None:
            raise ValueError(
                f"runtime_env field {field!r} is not supported by warren, only {', '.join(_SUPPORTED)} is. Install "
                "what the job needs on the nodes; modules beside the driver's script are found without it."
            )
    return checked or None


def merge_runtime_envs(parent: Mapping[str, Any] | None, child: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the environment of a child task: its own fields over its parent's, `env_vars` variable by variable."""
    if not parent or not child:
        return dict(parent or child or {}) or None
    merged = {**parent, **child}
    if "env_vars" in merged:
        merged["env_vars"] = {**parent.get("env_vars", {}), **child.get("env_vars", {})}
    return merged


def _check_variables(variables: Any) -> dict[str, str]:
    if variables is None:
        return {}
    if not isinstance(variables, dict):
        raise TypeError(f"runtime_env['env_vars'] must be a dict of text to text, but is a {type(variables).__name__}.")
    for name, value in variables.items():
        for what, each in (("name", name), ("value", value)):
            if not isinstance(each, str):
                raise TypeError(
                    f"runtime_env['env_vars'] must be a dict of text to text, but in {name!r}: {value!r} the {what} is "
                    f"a {type(each).__name__}."
                )
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"runtime_env['env_vars']: {name!r} cannot be set in an environment.")
    return dict(variables)
