"""Which host this is, for shared memory: processes on one host see the same /dev/shm."""

from __future__ import annotations

import hashlib
import os
import socket

from rabbitry_broker.endpoint import Endpoint


def host_id() -> bytes:
    """Return what identifies this host's shared memory: the kernel's boot id, and whose /dev/shm is seen."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read().strip()
    except OSError:
        boot = socket.gethostname().encode()
    try:
        device = str(os.stat("/dev/shm").st_dev).encode()
    except OSError:
        device = b""
    return boot + b":" + device


def own_host(session: str, node_id: bytes) -> tuple[bytes, str]:
    """Return the host and the session of a node that is to share no memory with others, though it is on this host.

    Args:
        session: of the cluster on this host.
        node_id: of the node.
    """
    own = hashlib.blake2b(node_id, key=session.encode(), digest_size=8).hexdigest()
    return host_id() + b":" + own.encode(), own


def shared_session(endpoint: Endpoint, cluster_id: str = "") -> str:
    """Return the name of a cluster's shared-memory session, the same for all of its processes of this user.

    Two clusters on a host must not have the same: the nodes of each delete what their own Redis knows nothing of.

    Args:
        endpoint: the cluster.
        cluster_id: what its mark in Redis says, if others may have the same secret and prefix.
    """
    secret = endpoint.secrets[-1] if endpoint.secrets else b""
    text = f"{endpoint.prefix}|{os.getuid()}{cluster_id and '|'}{cluster_id}".encode()
    return hashlib.blake2b(text, key=hashlib.blake2b(secret).digest(), digest_size=8).hexdigest()
