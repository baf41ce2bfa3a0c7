"""`ray._private.services`: where things run."""

from __future__ import annotations

import subprocess
from typing import Any, NamedTuple

from rabbitry import environment
from rabbitry.util.node_address import get_node_instance_id, get_node_ip_address

__all__ = ["canonicalize_bootstrap_address", "get_node_instance_id", "get_node_ip_address"]


class ProcessInfo(NamedTuple):
    """One of Ray's own servers as a process, of which there is none here: a type for those who name it."""

    process: subprocess.Popen[bytes]
    stdout_file: str | None = None
    stderr_file: str | None = None
    use_valgrind: bool = False
    use_gdb: bool = False
    use_valgrind_profiler: bool = False
    use_perftools_profiler: bool = False
    use_tmux: bool = False


def canonicalize_bootstrap_address(addr: str | None = None, temp_dir: str | None = None) -> str | None:
    """Return an address as `init` takes it, None for "auto", "local" or none."""
    return None if addr in (None, "auto", "local") else addr


def canonicalize_bootstrap_address_or_die(addr: str | None = None, temp_dir: str | None = None) -> str:
    """Return an address as `init` takes it: the one given, else the environment's, else "auto"."""
    return canonicalize_bootstrap_address(addr) or environment.text("RAY_ADDRESS") or "auto"


def find_gcs_addresses() -> set[str]:
    """Return an empty set: there is no head node to be found."""
    return set()


def get_ray_jars_dir() -> str:
    """Say that there is no Java here.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("rabbitry runs Python only")


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"rabbitry has none of Ray's own servers, to which ray._private.services.{name} belongs", name=name
    )
