"""`ray.util.connect` and `disconnect`: Ray's protocol for remote drivers, for which there is no need here."""

from __future__ import annotations

from typing import Any, Final, NoReturn

WRITE_INSTEAD: Final = (
    "rabbitry has no servers for remote drivers (Ray Client): every driver connects to RabbitMQ and Redis itself, from "
    "wherever it reaches them. Write init(address='amqp://...', store='redis://...'), or init(address='auto') with "
    "RABBITRY_BROKER_URL, RABBITRY_STORE_URL and RABBITRY_SECRET in the environment or in a file .env."
)


def connect(conn_str: str = "", *_: Any, **__: Any) -> NoReturn:
    """Say what to write instead.

    Args:
        conn_str: of a server of Ray's.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(f"connect({conn_str!r}): {WRITE_INSTEAD}")


def disconnect() -> None:
    """Do nothing, as Ray does where `connect` has not connected; a session of `init` is ended by `shutdown`."""
