"""`RuntimeEnvConfig`: how an environment is set up, not what is in it."""

from __future__ import annotations

import logging
from typing import Any, Final

from rabbitry.arguments import wrong_type

log = logging.getLogger("rabbitry")

SETUP_TIMEOUT_SECONDS: Final = 600


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is set up; `runtime_env={"config": {...}}` takes a plain dict as well.

    Args:
        setup_timeout_seconds: how long it may take to set the environment up on a node; -1 for as long as it takes.
        eager_install: set up what a job names when it begins, not when its first task comes.
        log_files: accepted; the log of a setup is kept by the node in any case.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: `setup_timeout_seconds` is neither positive nor -1.

    >>> RuntimeEnvConfig(setup_timeout_seconds=60)
    {'setup_timeout_seconds': 60, 'eager_install': True, 'log_files': []}
    """

    known_fields: Final = frozenset(("setup_timeout_seconds", "eager_install", "log_files"))

    def __init__(
        self,
        setup_timeout_seconds: int = SETUP_TIMEOUT_SECONDS,
        eager_install: bool = True,
        log_files: list[str] | None = None,
    ) -> None:
        if not isinstance(setup_timeout_seconds, int) or isinstance(setup_timeout_seconds, bool):
            raise wrong_type("setup_timeout_seconds", setup_timeout_seconds, "an int of seconds, or -1 for no limit")
        if setup_timeout_seconds <= 0 and setup_timeout_seconds != -1:
            raise ValueError(
                f"setup_timeout_seconds must be greater than zero, or -1 for no limit, but is {setup_timeout_seconds}."
            )
        if not isinstance(eager_install, bool):
            raise wrong_type("eager_install", eager_install, "a bool")
        if log_files is not None and not (
            isinstance(log_files, list) and all(isinstance(each, str) for each in log_files)
        ):
            raise wrong_type("log_files", log_files, "a list of text, or None")
        super().__init__(
            setup_timeout_seconds=setup_timeout_seconds,
            eager_install=eager_install,
            log_files=list(log_files or []),
        )

    @staticmethod
    def parse_and_validate_runtime_env_config(config: Any) -> RuntimeEnvConfig:
        """Return `config`, a dict or a `RuntimeEnvConfig`, as the latter; entries that do not exist are warned of.

        Raises:
            TypeError: it is neither, or an entry is of the wrong type.
            ValueError: an impossible value.
        """
        if isinstance(config, RuntimeEnvConfig):
            return config
        if not isinstance(config, dict):
            raise wrong_type("runtime_env['config']", config, "a dict or a RuntimeEnvConfig")
        unknown = sorted(map(str, config.keys() - RuntimeEnvConfig.known_fields))
        if unknown:
            log.warning("runtime_env['config'] has entries that do not exist, which are left out: %s", unknown)
        return RuntimeEnvConfig(**{key: config[key] for key in config if key in RuntimeEnvConfig.known_fields})

    @classmethod
    def default_config(cls) -> RuntimeEnvConfig:
        """Return what holds if nothing is said."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return this as a plain dict."""
        return {**self, "log_files": list(self["log_files"])}

    def __reduce__(self) -> Any:
        return _restore, (dict(self),)


def _restore(fields: dict[str, Any]) -> RuntimeEnvConfig:
    return RuntimeEnvConfig(**fields)
