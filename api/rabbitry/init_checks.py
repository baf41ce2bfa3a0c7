"""Checks of what `init` is given, before anything is started or connected to."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rabbitry.arguments import amount, optional_namespace, optional_text, shown, whole, wrong_type
from rabbitry.labels import check_labels
from rabbitry.option_checks import resources as check_resources
from rabbitry_broker.errors import without_password

if TYPE_CHECKING:
    from rabbitry.logging_config import LoggingConfig

ADDRESSES: Final = ("auto", "local")
SCHEMES: Final = ("amqp://", "amqps://", "unix://")
LAST_PORT: Final = 65535


def address(value: Any) -> str | None:
    """Return the address of a cluster; None for what the environment says.

    Raises:
        TypeError: no text.
        ValueError: none of the forms that there are.
    """
    checked = optional_text("address", value)
    if checked is None or checked in ADDRESSES or checked.startswith(SCHEMES):
        return checked
    if checked.startswith("ray://"):
        raise ValueError(
            f"address is {shown(without_password(checked))}: there is no Ray Client here, and none is needed. A driver "
            "joins a cluster from anywhere that reaches its servers: init(address='amqp://user:password@host/vhost', "
            "store='redis://...'), or init(address='auto') with RABBITRY_BROKER_URL, RABBITRY_STORE_URL and "
            "RABBITRY_SECRET set."
        )
    ray = " It may be the address of a Ray cluster, which rabbitry cannot join." if ":" in checked else ""
    raise ValueError(
        f"address must be 'local', 'auto', 'amqp://user:password@host/vhost' or the 'unix:///...' of a cluster on this "
        f"machine, but is {shown(without_password(checked))}.{ray}"
    )


def namespace(value: Any) -> str | None:
    """Return the namespace of a session; None for a random one.

    Raises:
        TypeError: no text.
        ValueError: empty, or no Unicode text.
    """
    return optional_namespace("namespace", value)


def directory(what: str, value: Any) -> str | None:
    """Return an absolute path, or None for what is not given.

    Raises:
        TypeError: no path.
        ValueError: relative, or no Unicode text.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    checked = optional_text(what, value)
    if checked is not None and (not os.path.isabs(checked) or "\0" in checked):
        raise ValueError(f"{what} must be an absolute path or None, but is {shown(checked)}.")
    return checked


def node_resources(
    num_cpus: Any, num_gpus: Any, memory: Any, resources: Any
) -> tuple[float | None, float | None, float | None, dict[str, float] | None]:
    """Return what the embedded node shall offer, checked.

    Raises:
        TypeError: no numbers, or `resources` is no dict of names to numbers.
        ValueError: negative, NaN or too large, or a name that no custom resource can have.
    """
    return (
        None if num_cpus is None else amount("num_cpus", num_cpus),
        None if num_gpus is None else amount("num_gpus", num_gpus),
        None if memory is None else amount("_memory", memory),
        None if resources is None else check_resources("resources", resources),
    )


def node_labels(labels: Any) -> dict[str, str] | None:
    """Return the labels of the embedded node, checked.

    Raises:
        TypeError: no dict of text to text.
        ValueError: not of the syntax of labels.
    """
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        raise wrong_type("labels", labels, "a dict of text to text, or None")
    return {str.__str__(key): str.__str__(value) for key, value in check_labels(labels).items()}


def store_bytes(value: Any) -> int | None:
    """Return the limit of shared memory, in bytes; None for what there is.

    Raises:
        TypeError: no number.
        ValueError: not positive, or too large.
    """
    expected = "a positive number of bytes"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else whole("object_store_memory", value, least=1, expected=expected)


def logging_config(value: Any) -> LoggingConfig | None:
    """Return how a job is to log; None if the program sees to that itself.

    Raises:
        TypeError: it is no `LoggingConfig`.
    """
    if value is None:
        return None
    from rabbitry.logging_config import LoggingConfig

    if not isinstance(value, LoggingConfig):
        raise wrong_type("logging_config", value, "a rabbitry.LoggingConfig")
    return value


def logging_level(value: Any) -> int:
    """Return a level of logging, given as number or name ("info").

    Raises:
        TypeError: neither.
        ValueError: no level has that name.
    """
    if isinstance(value, str):
        level = logging.getLevelName(value.upper())
        if isinstance(level, int):
            return level
        raise ValueError(f"logging_level {shown(value)} is no level; it must be 'debug', 'info', 'warning' or 'error'.")
    if not isinstance(value, int):
        raise wrong_type("logging_level", value, "a level of logging, such as logging.INFO or 'info'")
    return value


def dashboard(include: Any, host: Any, port: Any) -> tuple[str, int | None] | None:
    """Return where the dashboard shall listen, host and port (None for the first that is free); None for no dashboard.

    Raises:
        TypeError: `include` is no bool, the host no text, the port no int.
        ValueError: an empty host, or no port can have that number.
    """
    if include is not None and not isinstance(include, bool):
        raise wrong_type("include_dashboard", include, "True, False or None")
    checked = optional_text("dashboard_host", host)
    if not checked:
        raise ValueError(f"dashboard_host must be the name or address of this host to listen on, but is {shown(host)}.")
    number = None if port is None else whole("dashboard_port", port, least=0, expected="a port, 0 to 65535, or None")
    if number is not None and number > LAST_PORT:
        raise ValueError(f"dashboard_port must be a port, 0 to {LAST_PORT}, or None, but is {number}.")
    return (checked, number) if include else None
