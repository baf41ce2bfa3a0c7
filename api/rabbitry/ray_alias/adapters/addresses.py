"""Hosts and ports as text, IPv6 included."""

from __future__ import annotations

import socket


def build_address(host: str, port: int | str) -> str:
    """Return "host:port", with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if is_ipv6(host) else f"{host}:{port}"


def parse_address(address: str) -> tuple[str, str] | None:
    """Return host and port of "host:port", None if it is not such a text."""
    if address.startswith("["):
        host, bracket, port = address[1:].partition("]:")
        return (host, port) if bracket else None
    host, colon, port = address.rpartition(":")
    return (host, port) if colon and ":" not in host else None


def is_ipv6(host: str) -> bool:
    """Return True for the text of an IPv6 address."""
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        return False
    return True


def is_localhost(host: str) -> bool:
    """Return True for the usual names of this machine's loopback address."""
    return host in ("localhost", "127.0.0.1", "::1")


def get_localhost_ip() -> str:
    """Return the loopback address."""
    return "127.0.0.1"


def get_all_interfaces_ip() -> str:
    """Return the address by which a server listens on all interfaces."""
    return "0.0.0.0"
