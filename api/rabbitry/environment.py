"""What the environment says to processes that use rabbitry: the one place where its variables are read here.

Those of servers and nodes are settings, see `rabbitry_broker.settings`; what stands here has its place in no
configuration file, or is asked for where loading that module would be too slow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

ADDRESS = "RABBITRY_ADDRESS"
BROKER_URL = "RABBITRY_BROKER_URL"
STORE_URL = "RABBITRY_STORE_URL"
PREFIX = "RABBITRY_PREFIX"
SPILL_URL = "RABBITRY_SPILL_URL"
OBJECT_TTL = "RABBITRY_OBJECT_TTL"
SHARED_MEMORY_LIMIT = "RABBITRY_SHARED_MEMORY_LIMIT"
EXECUTOR_MEMORY_LIMIT = "RABBITRY_EXECUTOR_MEMORY_LIMIT"
AS_RAY = "RABBITRY_AS_RAY"
IGNORE_UNHANDLED_ERRORS = ("RABBITRY_IGNORE_UNHANDLED_ERRORS", "RAY_IGNORE_UNHANDLED_ERRORS")
PICKLE_VERBOSE_DEBUG = ("RABBITRY_PICKLE_VERBOSE_DEBUG", "RAY_PICKLE_VERBOSE_DEBUG")
TASK_MAX_RETRIES = ("RABBITRY_TASK_MAX_RETRIES", "RAY_TASK_MAX_RETRIES")
LOG_TO_DRIVER = ("RABBITRY_LOG_TO_DRIVER", "RAY_LOG_TO_DRIVER")
DEDUP_LOGS = ("RABBITRY_DEDUP_LOGS", "RAY_DEDUP_LOGS")
DEDUP_WINDOW = ("RABBITRY_DEDUP_LOGS_AGG_WINDOW_S", "RAY_DEDUP_LOGS_AGG_WINDOW_S")
DEDUP_ALLOW = ("RABBITRY_DEDUP_LOGS_ALLOW_REGEX", "RAY_DEDUP_LOGS_ALLOW_REGEX")
DEDUP_SKIP = ("RABBITRY_DEDUP_LOGS_SKIP_REGEX", "RAY_DEDUP_LOGS_SKIP_REGEX")
COLOR_PREFIX = ("RABBITRY_COLOR_PREFIX", "RAY_COLOR_PREFIX")
NO_LOG_PREFIX = ("RABBITRY_DISABLE_WORKER_LOG_PREFIX", "RAY_DISABLE_WORKER_LOG_PREFIX")
PRELOAD_LIBRARIES = "RABBITRY_PRELOAD_LIBRARIES"
USE_UVLOOP = ("RABBITRY_USE_UVLOOP", "RAY_USE_UVLOOP")
POST_MORTEM = ("RABBITRY_DEBUG_POST_MORTEM", "RAY_DEBUG_POST_MORTEM")
DEBUGGER_EXTERNAL = ("RABBITRY_DEBUGGER_EXTERNAL", "RAY_DEBUGGER_EXTERNAL")
TRACING = "RABBITRY_TRACING"
AUTO_CONNECT = "RAY_ENABLE_AUTO_CONNECT"
DASHBOARD_TOKEN = "RABBITRY_DASHBOARD_TOKEN"
CONFIG_HOME = "XDG_CONFIG_HOME"
JOB_CONFIG = "RABBITRY_JOB_CONFIG"
JOB_SHARE = "RABBITRY_JOB_SHARE"
JOB_PRIORITY = "RABBITRY_JOB_PRIORITY"
OVERRIDE_JOB_RUNTIME_ENV = ("RABBITRY_OVERRIDE_JOB_RUNTIME_ENV", "RAY_OVERRIDE_JOB_RUNTIME_ENV")
API_SERVER_ADDRESS = ("RABBITRY_API_SERVER_ADDRESS", "RAY_API_SERVER_ADDRESS")
CLIENT_NAMESPACE = "RAY_NAMESPACE"
CLIENT_RUNTIME_ENV = "RAY_RUNTIME_ENV"
JOB_HEADERS = ("RABBITRY_JOB_HEADERS", "RAY_JOB_HEADERS")


def maybe(variable: str) -> str | None:
    """Return the text of a variable; None if it is not set."""
    return os.environ.get(variable)


def text(*variables: str) -> str:
    """Return the text of the first of these variables that is set and not empty; "" if none is."""
    return next(filter(None, map(os.environ.get, variables)), "")


def is_on(*variables: str) -> bool:
    """True if one of these variables is 1."""
    return any(os.environ.get(variable) == "1" for variable in variables)


def is_yes(variable: str) -> bool:
    """True if a variable says yes: 1, on, true or yes."""
    return os.environ.get(variable, "").lower() in ("1", "on", "true", "yes")


def is_off(*variables: str) -> bool:
    """True if one of these variables says no: 0 or false."""
    return any(os.environ.get(variable) in ("0", "false", "False") for variable in variables)


def number(variable: str, kind: Callable[[str], Any]) -> Any:
    """Return a number of 0 or more; None if the variable is not set.

    Args:
        variable: its name.
        kind: `int` or `float`.

    Raises:
        ValueError: it is no such number.
    """
    given = text(variable)
    if not given:
        return None
    try:
        value = kind(given)
    except ValueError:
        value = -1
    if not value >= 0:  # NaN is neither
        raise ValueError(f"{variable}={given!r} is not a number of 0 or more")
    return value


def default_max_retries(otherwise: int) -> int:
    """Return how often tasks are retried that do not say so themselves.

    Raises:
        ValueError: the variable is no int.
    """
    given = text(*TASK_MAX_RETRIES)
    try:
        return int(given) if given else otherwise
    except ValueError:
        raise ValueError(f"{' (or '.join(TASK_MAX_RETRIES)}) is {given!r}, which is no int.") from None
