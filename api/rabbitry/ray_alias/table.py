"""The one table of sources: which `ray.*` modules are ours, which are adapters, and what the wheel may not give."""

from __future__ import annotations

from typing import Final

OURS: Final = (
    "actor",
    "autoscaler",
    "client_builder",
    "cloudpickle",
    "cluster_utils",
    "dag",
    "exceptions",
    "experimental",
    "job_config",
    "job_submission",
    "remote_function",
    "runtime_context",
    "runtime_env",
    "util",
)
"""Names below `ray` that are modules of rabbitry of the same name, with what is below them there.

Other modules of rabbitry may have a name that Ray uses for something else (`ray.core`, `ray.dashboard`).
"""

ADAPTERS: Final = {
    "_private.internal_api": "internal_api",
    "_private.serialization": "serialization",
    "_private.services": "services",
    "_private.state": "state",
    "_private.worker": "worker",
    "_raylet": "raylet",
    "cross_language": "other_languages",
    "util.client": "client",
    "util.client.common": "client_common",
}
"""Names below `ray` that a module of `rabbitry.ray_alias.adapters` stands for."""

WHEEL_FIRST: Final = frozenset({"util.debug", "util.timer"})
"""Modules of ours for which the wheel's stand where there is one: they have more names, and need no core."""

NEVER: Final = frozenset({"_private.node", "_private.log_monitor"})
"""Modules of the wheel that speak to Ray's own servers: that they are not there is said when they are imported."""

FACE: Final = {
    "Language": "raylet",
    "_config": "raylet",
    "java_actor_class": "other_languages",
    "java_function": "other_languages",
    "cpp_function": "other_languages",
}
"""Names of `ray` itself that are no modules and that rabbitry has not, with the adapter that has them."""

WHEEL_FACE: Final = {"LoggingConfig": "_private.ray_logging.logging_config", "ray_constants": "_private.ray_constants"}
"""Names of `ray` itself that a module of the wheel has, or is."""

SHORT: Final = {"worker": "_private.worker", "state": "_private.state", "ray_constants": "_private.ray_constants"}
"""Modules that `ray` shows under a shorter name."""

OLDEST_RAY: Final = (2, 48)
"""The oldest Ray whose Python runs on this table."""
