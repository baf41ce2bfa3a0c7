"""Which cluster is meant by an address, for those who only look at it."""

from __future__ import annotations

from rabbitry import environment
from rabbitry_broker import cluster_file, local_clusters
from rabbitry_broker.endpoint import Endpoint


def endpoint_of(address: str | None) -> Endpoint:
    """Return the cluster of an address.

    Args:
        address: None or "auto" for what the environment or `.env` names, else for the newest session of this user on
            this machine; `amqp://...` with the other settings in the environment; `unix:///directory` of a session.

    Raises:
        ConnectError: there is no cluster there, or none at all.
        SettingsError: a setting is missing or impossible.
    """
    address = address or environment.text(environment.ADDRESS) or local_clusters.AUTO
    if address in (local_clusters.AUTO, local_clusters.LOCAL):
        address = local_clusters.resolve_auto()
    if cluster_file.is_address(address):
        return cluster_file.read(address).endpoint
    # Not at the top: pydantic is slow to load, and embedded sessions have no use for it.
    from rabbitry_broker.settings import Settings

    return Settings.load(address).endpoint()
