"""Errors of the state API, under the name of Ray's module; see `rabbitry.state.errors`."""

from rabbitry.state.errors import DataSourceUnavailable, RayStateApiException, ServerUnavailable

__all__ = ["DataSourceUnavailable", "RayStateApiException", "ServerUnavailable"]
