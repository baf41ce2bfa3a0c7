"""`JobConfig`: what a driver says of its job, as an object for `init(job_config=...)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rabbitry.arguments import optional_namespace, wrong_type
from rabbitry.job_shares import check_share
from rabbitry.option_checks import priority as check_priority
from rabbitry.runtime_env import check_runtime_env


class JobConfig:
    """Settings of a job; `init` takes the namespace and the runtime environment from it, unless it is given its own.

    Args:
        jvm_options: accepted, unused.
        code_search_path: accepted, unused.
        runtime_env: default for all tasks and actors.
        metadata: text to text, for whoever reads it.
        ray_namespace: where named actors live; None for a random one.
        default_actor_lifetime: "non_detached"; rabbitry has no other default.
        share: rabbitry's own: weight of the job's work beside that of others, from 0.001 to 1000; None for
            `RABBITRY_JOB_SHARE`, else 1.
        priority: rabbitry's own: 0 to 9, of tasks that have none of their own; None for `RABBITRY_JOB_PRIORITY`,
            else 0.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an impossible value.
    """

    def __init__(
        self,
        jvm_options: list[str] | None = None,
        code_search_path: list[str] | None = None,
        runtime_env: dict[str, Any] | None = None,
        _client_job: bool = False,
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
        *,
        share: float | None = None,
        priority: int | None = None,
    ) -> None:
        self.jvm_options = jvm_options or []
        self.code_search_path = code_search_path or []
        self.metadata: dict[str, str] = {}
        if metadata is not None and not isinstance(metadata, dict):
            raise wrong_type("metadata", metadata, "a dict of text to text, or None")
        for key, value in (metadata or {}).items():
            self.set_metadata(key, value)
        self.set_runtime_env(runtime_env)
        self.set_ray_namespace(ray_namespace)
        self.set_default_actor_lifetime(default_actor_lifetime)
        self.share = None if share is None else check_share(share)
        self.priority = None if priority is None else check_priority("priority", priority)

    def set_metadata(self, key: str, value: str) -> None:
        """Set one entry of the metadata."""
        for each in (key, value):
            if not isinstance(each, str):
                raise wrong_type("metadata", {key: value}, "a dict of text to text")
        self.metadata[key] = value

    def set_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> None:
        """Set the runtime environment; None for none."""
        self.runtime_env = check_runtime_env(runtime_env) or {}

    def set_ray_namespace(self, ray_namespace: str | None) -> None:
        """Set the namespace; None for a random one."""
        self.ray_namespace = optional_namespace("ray_namespace", ray_namespace)

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """Set how long actors live that do not say so: "non_detached"."""
        if default_actor_lifetime != "non_detached":
            raise ValueError(
                "default_actor_lifetime must be 'non_detached': rabbitry has no other default. Give the actors that "
                "shall live on the option lifetime='detached'."
            )
        self._default_actor_lifetime = default_actor_lifetime
