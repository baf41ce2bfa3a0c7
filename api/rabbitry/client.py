"""The name by which the public face and workers know the client; see `rabbitry.core`."""

from rabbitry.core.client import Client

__all__ = ["Client"]
