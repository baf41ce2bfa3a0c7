"""Fields of runtime environments that other packages add.

A package names its plugin as an entry point of the group `rabbitry.runtime_env`:

    [project.entry-points."rabbitry.runtime_env"]
    dotenv = "my_package:DotenvPlugin"

Ray's way, the variable `RAY_RUNTIME_ENV_PLUGINS` with a JSON list of `{"class": "my_package.DotenvPlugin"}`, works too.
Drivers and nodes need the package: the former check the field, the latter set it up. Where it is missing, the field has
no effect, as in Ray.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from rabbitry import environment

GROUP: Final = "rabbitry.runtime_env"
VARIABLE: Final = "RAY_RUNTIME_ENV_PLUGINS"


class RuntimeEnvContext:
    """What a plugin may change of the processes of an environment.

    Attributes:
        env_vars: variables that they have besides those of `env_vars`.
        py_path: directories that stand at the head of their `sys.path`.
        py_executable: command that starts them; None for the environment's.
        directory: of this plugin's own, in which it may keep what it needs; it goes when nobody uses it.
    """

    def __init__(self, directory: str) -> None:
        self.env_vars: dict[str, str] = {}
        self.py_path: list[str] = []
        self.py_executable: str | None = None
        self.directory = directory


class RuntimeEnvPlugin:
    """Base class of plugins.

    Attributes:
        name: of the field.
        priority: 0 to 100; those of a smaller number are set up first.
    """

    name: str = ""
    priority: int = 10

    @staticmethod
    def validate(runtime_env_dict: dict[str, Any]) -> None:
        """Check the field, in the driver.

        Args:
            runtime_env_dict: the environment that the user wrote.

        Raises:
            ValueError: it cannot be like that.
        """

    def create(self, value: Any, context: RuntimeEnvContext) -> None:
        """Set up what the field wants, in a process of the node's own; once for each value and node.

        Args:
            value: of the field.
            context: `context.directory` is empty, and may be filled.
        """

    def modify_context(self, value: Any, context: RuntimeEnvContext) -> None:
        """Change how processes of the environment start, each time that a node makes it ready.

        Args:
            value: of the field.
            context: what may be changed; `context.directory` is as `create` left it.
        """


class PluginError(ValueError):
    """A plugin that is named cannot be used."""


@lru_cache(maxsize=4)
def _load(configured: str) -> dict[str, RuntimeEnvPlugin]:
    from importlib.metadata import entry_points

    found: list[Any] = []
    for entry in entry_points(group=GROUP):
        try:
            found.append(entry.load())
        except Exception as error:
            what = f"the plugin {entry.name} of runtime_env ({entry.value})"
            raise PluginError(f"{what} cannot be loaded: {error!r}") from error
    if configured:
        found += [_import(each) for each in _configured(configured)]
    plugins = {}
    for each in found:
        plugin = each() if isinstance(each, type) else each
        name = getattr(plugin, "name", "")
        if not name or not all(hasattr(plugin, need) for need in ("create", "modify_context")):
            raise PluginError(f"{each!r} is no plugin of runtime_env: it must be a RuntimeEnvPlugin with a name.")
        plugins[name] = plugin
    return dict(sorted(plugins.items(), key=lambda item: getattr(item[1], "priority", 10)))


def _configured(text: str) -> list[str]:
    try:
        return [each["class"] for each in json.loads(text)]
    except (ValueError, TypeError, LookupError) as error:
        raise PluginError(f'{VARIABLE} must be like [{{"class": "package.Plugin"}}], but is {text!r}') from error


def _import(path: str) -> Any:
    from importlib import import_module

    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PluginError(f"{VARIABLE} names {path}, which cannot be imported: {error}") from error


def plugins() -> dict[str, RuntimeEnvPlugin]:
    """Return the plugins that there are, by the name of their field, in the order of their priority.

    Raises:
        PluginError: one that is named cannot be used.
    """
    return _load(environment.text(VARIABLE))
