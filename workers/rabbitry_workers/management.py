"""What RabbitMQ's management plugin tells beyond RabbitMQ's own protocol: rates, consumers and what is unsettled.

It is asked if it is switched on, on its usual port, and lets the user of the broker's URL in. Nothing depends on it.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from rabbitry_broker import broker_address

PORT: Final = 15672
TLS_PORT: Final = 15671
ANSWER_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 30.0
"""A plugin that did not answer is asked again after so long."""
COLUMNS: Final = ",".join(
    (
        *("name", "messages_ready", "messages_unacknowledged", "consumers"),
        *("message_stats.publish", "message_stats.publish_details"),
        *("message_stats.deliver_get", "message_stats.deliver_get_details"),
    )
)


class QueueTold(NamedTuple):
    """What is told of a queue.

    Attributes:
        ready: messages that wait; None if it is not told.
        unsettled: messages that consumers hold.
        consumers: how many take from it.
        published: messages that came in since the queue was made.
        delivered: messages that went out.
        publish_rate: messages a second that come in.
        deliver_rate: that go out.
    """

    ready: int | None = None
    unsettled: int | None = None
    consumers: int | None = None
    published: int = 0
    delivered: int = 0
    publish_rate: float = 0.0
    deliver_rate: float = 0.0


class Told(NamedTuple):
    """What is told of a server: of its queues by their names there, and its overview."""

    queues: dict[str, QueueTold]
    overview: dict[str, Any]


class _Server(NamedTuple):
    """Where a server's plugin is, and for whom it is asked."""

    where: str
    root: str
    user: str
    vhost: str


class Management:
    """Asks the plugin of a server of the cluster. For one thread at a time.

    Args:
        address: of the cluster's servers (`rabbitry_broker.broker_address`); the one that answered last is asked first.
        port: of the plugin; None for its usual one.
        clock: seconds.

    Attributes:
        refusal: why there is no answer; "" after one.
    """

    def __init__(self, address: str, *, port: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = [_server_of(url, port) for url in broker_address.parse(address).urls]
        self._clock = clock
        self._ask_again_at = float("-inf")
        self.refusal = ""

    def ask(self) -> Told | None:
        """Return what is told now; None if there is no answer, or was none lately."""
        if self._clock() < self._ask_again_at:
            return None
        refusals: list[str] = []
        for server in list(self._servers):
            try:
                listed = _get(server, f"queues/{server.vhost}?columns={COLUMNS}")
                overview = _get(server, "overview")
                told = Told({str(each["name"]): _queue(each) for each in listed}, dict(overview))
            except (OSError, ValueError, TypeError, KeyError, AttributeError, urllib.error.URLError) as error:
                refusals.append(f"{server.where} ({_why(error)})")
                self._servers.append(self._servers.pop(0))
            else:
                self.refusal = ""
                return told
        self._ask_again_at = self._clock() + AGAIN_SECONDS
        self.refusal = f"RabbitMQ's management plugin does not answer at {', '.join(refusals)}"
        return None


def _server_of(address: str, port: int | None) -> _Server:
    url = urlsplit(address)
    tls = url.scheme == "amqps"
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    where = f"{host}:{port or (TLS_PORT if tls else PORT)}"
    user = f"{unquote(url.username or 'guest')}:{unquote(url.password or 'guest')}"
    # A path of only a slash is the virtual host with an empty name; none at all is the default one.
    vhost = quote(unquote(url.path[1:]) if url.path else "/", safe="")
    return _Server(where, f"{'https' if tls else 'http'}://{where}/api", user, vhost)


def _get(server: _Server, path: str) -> Any:
    request = urllib.request.Request(f"{server.root}/{path}")
    request.add_header("authorization", "Basic " + base64.b64encode(server.user.encode()).decode())
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


def _queue(told: Mapping[str, Any]) -> QueueTold:
    stats = told.get("message_stats", {})
    return QueueTold(
        told.get("messages_ready"),
        told.get("messages_unacknowledged"),
        told.get("consumers"),
        int(stats.get("publish", 0)),
        int(stats.get("deliver_get", 0)),
        _rate(stats, "publish"),
        _rate(stats, "deliver_get"),
    )


def _rate(stats: Mapping[str, Any], name: str) -> float:
    return float(stats.get(f"{name}_details", {}).get("rate", 0.0))


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason)
