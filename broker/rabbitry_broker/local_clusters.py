"""Which cluster `auto` means: the one that is named in the environment, else the newest that runs on this machine.

Sessions of the embedded engine, and clusters that `Cluster` started, have a directory with a file that says how to
join (see `cluster_file`). One whose directory nobody holds locked any more is dead, and not found.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rabbitry_broker import cluster_file
from rabbitry_broker.errors import ConnectError
from rabbitry_broker.run_directory import in_use, places

AUTO: Final = "auto"
LOCAL: Final = "local"
# What names a cluster on servers of its own.
_SERVER_VARIABLES: Final = ("RABBITRY_BROKER_URL", "RABBITRY_STORE_URL")
# A variable for programs that know Ray only; an address of Ray's own in it is no concern of ours.
_ADDRESS_VARIABLES: Final = ("RABBITRY_ADDRESS", "RAY_ADDRESS")
_FORMS: Final = ("amqp://", "amqps://", cluster_file.SCHEME)
_ENV_FILE: Final = ".env"


def address_in_environment(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the address that stands in the environment; None if there is none.

    Example:
        >>> address_in_environment({"RAY_ADDRESS": "127.0.0.1:6379"})
        >>> address_in_environment({"RAY_ADDRESS": "127.0.0.1:6379", "RABBITRY_ADDRESS": "auto"})
        'auto'
    """
    for name in _ADDRESS_VARIABLES:
        address = environment.get(name, "")
        # What is no address at all is told to whoever wrote it into our own variable.
        if address in (AUTO, LOCAL) or address.startswith(_FORMS) or (address and name == _ADDRESS_VARIABLES[0]):
            return address
    return None


def resolve_auto(environment: Mapping[str, str] = os.environ, env_file: str = _ENV_FILE) -> str:
    """Return the address that "auto" stands for: "auto" itself if variables name servers, else a `unix://` address.

    Args:
        environment: of this process.
        env_file: a file that may hold the variables, too.

    Raises:
        ConnectError: none is named, and none runs.
    """
    given = address_in_environment(environment)
    if given not in (None, AUTO, LOCAL):
        return given or AUTO
    if any(environment.get(name) for name in _SERVER_VARIABLES) or _file_names_servers(env_file):
        return AUTO
    address = newest()
    if address is None:
        raise ConnectError(
            AUTO,
            "no session of this user runs on this machine, and no variable names a cluster",
            "Start a session with `rabbitry.init()` in another program, or set RABBITRY_BROKER_URL, "
            "RABBITRY_STORE_URL and RABBITRY_SECRET (in the environment or a file .env) to join a cluster.",
        )
    return address


def newest() -> str | None:
    """Return the address of the cluster of this user that was started last and still runs here; None without one.

    Where this process would put a session of its own is looked first, and elsewhere only if none runs there.
    """
    for place in places():
        found: list[tuple[int, Path]] = []
        for directory in in_use(place):
            try:
                file = (directory / cluster_file.FILE_NAME).lstat()
            except OSError:
                continue
            if stat.S_ISREG(file.st_mode) and file.st_uid == os.geteuid():
                found.append((file.st_mtime_ns, directory))
        if found:
            return cluster_file.address_of(max(found)[1])
    return None


def _file_names_servers(env_file: str) -> bool:
    if not os.path.isfile(env_file):
        return False
    # Not at the top: few programs have such a file.
    from rabbitry_broker.settings import names_variables

    return names_variables(env_file, _SERVER_VARIABLES)
