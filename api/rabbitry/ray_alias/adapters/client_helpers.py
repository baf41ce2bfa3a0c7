"""`ray.util.client.ray_client_helpers`: servers of Ray's protocol for remote drivers, of which there are none."""

from __future__ import annotations

from typing import Any, NoReturn

from rabbitry.util.client_connection import WRITE_INSTEAD


def ray_start_client_server(*_: Any, **__: Any) -> NoReturn:
    """Say what to write instead.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(WRITE_INSTEAD)


ray_start_client_server_for_address = ray_start_client_server
ray_start_client_server_pair = ray_start_client_server
ray_start_cluster_client_server_pair = ray_start_client_server
