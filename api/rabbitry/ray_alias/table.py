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
    "_private.ray_client_microbenchmark": "client_microbenchmark",
    "_private.serialization": "serialization",
    "_private.services": "services",
    "_private.state": "state",
    "_private.worker": "worker",
    "_raylet": "raylet",
    "cross_language": "other_languages",
    "dashboard.modules.job.sdk": "job_sdk",
    "util.client": "client",
    "util.client.common": "client_common",
    "util.client.ray_client_helpers": "client_helpers",
}
"""Names below `ray` that a module of `rabbitry.ray_alias.adapters` stands for."""

AMENDED: Final = {"serve._private.request_router.request_router": "serve_router"}
"""Modules of the wheel of which something is replaced, by the function `amend` of an adapter."""

WHEEL_FIRST: Final = frozenset({"util.debug", "util.timer"})
"""Modules of ours for which the wheel's stand where there is one: they have more names, and need no core."""

_SERVERS: Final = "speaks to Ray's own servers, which rabbitry does not run"
_CLIENT: Final = (
    "is Ray Client, which rabbitry does not need: init(address=...) connects from wherever the servers can be reached"
)

NEVER: Final = {
    "_private.log_monitor": _SERVERS,
    "_private.node": _SERVERS,
    "_private.state_api_test_utils": _SERVERS,
    "scripts.scripts": "is Ray's command line, for Ray's own servers; rabbitry's is `rabbitry`, and starts nodes with "
    "`rabbitry start`",
    "util.client.dataclient": _CLIENT,
    "util.client.logsclient": _CLIENT,
    "util.client.server": _CLIENT,
    "util.client.worker": _CLIENT,
}
"""Modules of the wheel that cannot work here, with what is said when one is imported."""

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
