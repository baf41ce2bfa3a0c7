"""`ray.client(address).connect()`, Ray's former way to join a cluster."""

from __future__ import annotations

import json
import warnings
from typing import Any

from rabbitry import environment, init_checks, session
from rabbitry.util.annotations import RayDeprecationWarning


class ClientBuilder:
    """Gathers arguments of `init`: `client("auto").namespace("mine").connect()`.

    What is not given comes from RAY_NAMESPACE and RAY_RUNTIME_ENV (a JSON object), as with Ray. `init` reads neither.

    Args:
        address: as of `init`; None or "local" for a session of its own.

    Raises:
        ValueError: another address, such as "ray://..."; the message says what to write instead.
    """

    def __init__(self, address: str | None = None) -> None:
        self._options: dict[str, Any] = {"address": init_checks.address(address)}

    def env(self, env: dict[str, Any]) -> ClientBuilder:
        """Set the environment of all tasks and actors."""
        self._options["runtime_env"] = env
        return self

    def namespace(self, namespace: str) -> ClientBuilder:
        """Set the namespace of named actors."""
        self._options["namespace"] = namespace
        return self

    def connect(self) -> Any:
        """Start a session; return what `init` returns.

        Raises:
            ValueError: RAY_RUNTIME_ENV is no JSON object.
        """
        options = {**_from_variables(), **self._options}
        warnings.warn("client(...).connect() is deprecated: use init(...).", RayDeprecationWarning, stacklevel=2)
        return session.init(**options)


def _from_variables() -> dict[str, Any]:
    found: dict[str, Any] = {}
    if namespace := environment.text(environment.CLIENT_NAMESPACE):
        found["namespace"] = namespace
    if text := environment.text(environment.CLIENT_RUNTIME_ENV):
        try:
            env = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{environment.CLIENT_RUNTIME_ENV} must be a JSON object, but is {text[:200]!r}: {error}"
            ) from None
        if not isinstance(env, dict):
            raise ValueError(f"{environment.CLIENT_RUNTIME_ENV} must be a JSON object, but is {text[:200]!r}")
        found["runtime_env"] = env
    return found
