"""A cluster that is found by a directory: `unix:///run/dir`, whose file `cluster.json` says all that joining takes.

Made for clusters on one machine (the embedded engine listens on a socket in that very directory, so the address of
the socket names it too; `Cluster` puts one beside its servers): an address that programs and nodes can be given on a
command line without a secret in it. Whoever may read the file may join, so directory and file are the user's alone;
one that others could have written is refused.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError

FILE_NAME: Final = "cluster.json"
SCHEME: Final = "unix://"


@dataclass(frozen=True)
class ClusterFile:
    """What the file of a cluster says.

    Attributes:
        endpoint: the addresses and the secret.
        session: name of the shared-memory session of its processes on this host.
        node_lease: seconds without a sign of life after which its nodes count as dead.
        client_lease: the same for its clients.
        spill_url: where its large values go that memory has no room for, unless a process is told otherwise.
        memory_limit: bytes that its objects may take of shared memory; None for what there is.
        object_ttl: seconds after which its objects are deleted whoever holds them; 0 for never.
    """

    endpoint: Endpoint
    session: str
    node_lease: float = 10.0
    client_lease: float = 30.0
    spill_url: str = ""
    memory_limit: int | None = None
    object_ttl: float = 0.0


def is_address(address: str) -> bool:
    """Return True if `address` names a directory rather than a server."""
    return address.startswith(SCHEME)


def address_of(directory: str | os.PathLike[str]) -> str:
    """Return the address of the cluster in `directory`.

    Example:
        >>> address_of("/run/rabbitry-1")
        'unix:///run/rabbitry-1'
    """
    return SCHEME + quote(os.path.abspath(directory))


def write(directory: str | os.PathLike[str], cluster: ClusterFile) -> str:
    """Write the file of a cluster, readable by this user alone.

    Args:
        directory: exists, and belongs to this user.
        cluster: what to write.

    Returns:
        The cluster's address.
    """
    endpoint = cluster.endpoint
    content = {
        "store_url": endpoint.store_url,
        "broker_url": endpoint.broker_url,
        "secrets": [secret.hex() for secret in endpoint.secrets],
        "prefix": endpoint.prefix,
        "session": cluster.session,
        "node_lease": cluster.node_lease,
        "client_lease": cluster.client_lease,
        "spill_url": cluster.spill_url,
        "memory_limit": cluster.memory_limit,
        "object_ttl": cluster.object_ttl,
    }
    path = Path(directory) / FILE_NAME
    fresh = path.with_suffix(".new")
    # A new file with its mode from the start, and renamed: nobody reads half of it, or reads it before it is private.
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    fresh.rename(path)
    return address_of(directory)


def read(address: str) -> ClusterFile:
    """Return what joining the cluster at `address` takes.

    Args:
        address: `unix:///directory`, or the path of the socket or file in it.

    Raises:
        ConnectError: there is no such file, it is another user's, or it says something else.
    """
    directory = Path(unquote(urlsplit(address).path))
    path = (directory if directory.is_dir() else directory.parent) / FILE_NAME
    try:
        with open(path, encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
                raise ConnectError(
                    address, f"{path} is not yours alone to write", "Join a cluster that you started yourself."
                )
            content: dict[str, Any] = json.load(file)
        return ClusterFile(
            Endpoint(
                store_url=content["store_url"],
                broker_url=content["broker_url"],
                secrets=tuple(bytes.fromhex(secret) for secret in content["secrets"]),
                prefix=content["prefix"],
            ),
            content["session"],
            content["node_lease"],
            content["client_lease"],
            content["spill_url"],
            content["memory_limit"],
            content["object_ttl"],
        )
    except ConnectError:
        raise
    except FileNotFoundError:
        cause = "no cluster runs there: its session has ended, or never was"
    except OSError as error:
        cause = f"{path} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        cause = f"{path} is not the file of a cluster"
    raise ConnectError(
        address, cause, "Pass the address of a running session, as `init()` returned it, or `Cluster.address`."
    )
