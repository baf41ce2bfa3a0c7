"""All errors of the broker root, under one base class.

No message, argument or repr of an error holds a password: addresses pass through `without_password` first.
"""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import urlsplit

E = TypeVar("E", bound=BaseException)


def without_password(url: str) -> str:
    """Return `url` fit for messages and logs: without its password and its query (which may hold one).

    Example:
        >>> without_password("amqp://ada:secret@mq.example:5672/jobs?heartbeat=5")
        'amqp://ada@mq.example:5672/jobs'
        >>> without_password("unix:///run/redis.sock?db=2")
        'unix:///run/redis.sock'
        >>> without_password("ada:secret@mq.example:5672/jobs")
        '...@mq.example:5672/jobs'
    """
    if "://" not in url:
        # Somebody forgot the scheme: what looks like one may be the user, and what looks like a path the password.
        return f"...@{url.rpartition('@')[2].partition('?')[0]}" if "@" in url else url.partition("?")[0]
    try:
        parts = urlsplit(url)
    except ValueError:
        # E.g. a bracket in the password. Nothing can be told apart then, so nothing but the scheme is shown.
        return url.partition("://")[0] + "://..."
    userinfo, at, host = parts.netloc.rpartition("@")
    # A password that holds an unescaped "/", "?" or "#" ends the netloc too early; the rest of it stands in the
    # path, the query or the fragment, before an "@". Such an address shows only its scheme and host.
    rest = url.partition("://")[2]
    if rest.rfind("@") > len(parts.netloc):
        return f"{parts.scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
    user = userinfo.partition(":")[0]
    return f"{parts.scheme}://{user}{at if user else ''}{host}{parts.path}"


def without_frames(error: E) -> E:
    """Return `error` without the frames that it, and what caused it, came through.

    For an error that is kept in a variable or a container: a frame knows all that called it, so an error in a variable
    of one of them holds them all, and what callers have in theirs (refs, handles) lives until somebody collects
    cycles. An executor that has nothing to do never does.
    """
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    while chain:
        each = chain.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            chain += (each.__cause__, each.__context__)
    return error


def anew(error: E) -> E:
    """Return a copy of an error, to be raised where `error` itself is kept in variables (see `without_frames`)."""
    copy: E = error.__class__.__new__(error.__class__, *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy


class RabbitryBrokerError(Exception):
    """What every error of the queues, the store and the wire format is an instance of."""


class BrokerError(RabbitryBrokerError):
    """The queues cannot do what was asked: the publisher is closed, or the broker stayed away too long."""


class StoreError(RabbitryBrokerError):
    """Redis answered a command with an error; the message is the server's own text."""


def is_wrong_type(error: StoreError) -> bool:
    """True if a command failed because its key is of another type: somebody else wrote there."""
    return "WRONGTYPE" in str(error)


def is_refused(error: StoreError) -> bool:
    """True if whoever we are on that server has no right to that command."""
    return "NOPERM" in str(error)


class ConnectionLost(StoreError):
    """The connection to Redis broke or fell silent. Whether the last commands took effect is unknown.

    The connection is closed; `Connection.reopen` makes it usable again.
    """


class ReplyTimeout(StoreError):
    """No reply came in the time given to `Connection.read`. The connection stays usable, the reply is still owed."""


class ConnectError(RabbitryBrokerError, ConnectionError):
    """A server could not be reached, or would not have us.

    Attributes:
        address: where, without password.
        cause: what went wrong.
        remedy: what to do about it.
    """

    def __init__(self, address: str, cause: str, remedy: str) -> None:
        """Make the error.

        Args:
            address: the URL that was tried; its password is taken out here.
            cause: what went wrong, a clause without full stop.
            remedy: what the reader should do, a sentence.
        """
        self.address = without_password(address)
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"cannot connect to {self.address}: {cause}. {remedy}")

    def __reduce__(self) -> tuple[type[ConnectError], tuple[str, str, str]]:
        """Pickle by the three parts, not by the message."""
        return type(self), (self.address, self.cause, self.remedy)
