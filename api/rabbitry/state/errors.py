"""Errors of the state API."""

from __future__ import annotations

from rabbitry.exceptions import RabbitryError


class RayStateApiException(RabbitryError):
    """The state of the cluster could not be read, or not all of it. The message says why."""


class RefusedQuery(RayStateApiException, ValueError):
    """What was asked for is not possible: a filter, or a limit. The message says why."""


class ServerUnavailable(RayStateApiException):
    """The servers, or the HTTP service, cannot be reached."""


class DataSourceUnavailable(RabbitryError):
    """A source of the state cannot be read."""
