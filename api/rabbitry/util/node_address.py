"""The address of this host."""

from __future__ import annotations

import socket

from rabbitry import environment
from rabbitry.arguments import shown

_of_node = ""  # what the node of this process, an executor, says; "" in all others


def get_node_ip_address() -> str:
    """Return the address by which other hosts reach this one, "127.0.0.1" if it has no network.

    In tasks and actors it is that of their node, as `nodes()` and the resource `node:<address>` have it.
    """
    return _of_node or find_address()


def find_address() -> str:
    """Return which of its addresses the system would use; it is asked, nothing is sent."""
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((anywhere, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"


def checked_address(address: str) -> str:
    """Return an address of a host in the form that `nodes()` shows.

    Raises:
        ValueError: it is none.
    """
    import ipaddress  # nobody else needs it

    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise ValueError(f"the address of a node must be one such as '192.0.2.7', but is {shown(address)}") from None


def set_node_address(address: str) -> None:
    """This process works for a node at this address."""
    global _of_node
    _of_node = address


def get_node_instance_id() -> str:
    """Return what the environment says of the machine's id at its cloud (RAY_CLOUD_INSTANCE_ID); "" if nothing."""
    return environment.text("RAY_CLOUD_INSTANCE_ID")
