"""The dashboard of a session: a child process with the HTTP service, gone with whoever called `init`.

This process opens the socket and hands it down: so the address is known at once, `init` need not wait until the service
is up (browsers and clients do), and no other program can take the port in between.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import socket
import subprocess
import sys
from typing import Final

from rabbitry import dashboard_token

DEFAULT_PORT: Final = 8265
PORTS_TRIED: Final = 100
BACKLOG: Final = 512
STOP_SECONDS: Final = 5.0
NEEDED: Final = ("fastapi", "nicegui", "prometheus_client", "uvicorn", "websockets")


class Dashboard:
    """A running service. Make one with `start`.

    Attributes:
        url: where it is, `host:port` as Ray writes it.
    """

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket, url: str) -> None:
        self._process = process
        self._link = link
        self.url = url

    @classmethod
    def start(cls, address: str, *, host: str, port: int | None, servers: dict[str, str]) -> Dashboard:
        """Start the service of a cluster; return at once.

        Args:
            address: of the cluster, without a password.
            host: where to listen.
            port: on which port; None for 8265, or the next that is free; 0 for any.
            servers: variables that name the cluster's servers, for the child alone.

        Raises:
            ImportError: the extra is not installed.
            ValueError: the token is too weak, others can read it, or none can be kept.
            OSError: the port is taken.
        """
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise ImportError(
                f"include_dashboard=True needs {', '.join(missing)}: pip install 'rabbitry[dashboard]'", name=missing[0]
            )
        dashboard_token.token()  # what is wrong with it is told here, not in the child's output
        listener = _listen(host, port)
        ours, theirs = socket.socketpair()
        with listener, theirs:
            options = {"address": address, "host": host, "link": theirs.fileno(), "listener": listener.fileno()}
            environment = {**os.environ, **servers}
            # It must find the same packages as this process, wherever they were imported from.
            environment["PYTHONPATH"] = os.pathsep.join([path for path in sys.path if path])
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "rabbitry_workers", "session-dashboard", json.dumps(options)],
                    pass_fds=(theirs.fileno(), listener.fileno()),
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,  # a Ctrl-C at the terminal is for the driver
                )
            except BaseException:
                ours.close()
                raise
            shown = f"[{host}]" if ":" in host else host
            return cls(process, ours, f"{shown}:{listener.getsockname()[1]}")

    def stop(self) -> None:
        """End the service and wait until it is gone."""
        self._link.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _listen(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidates = range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED) if port is None else [port]
    for candidate in candidates:
        try:
            return socket.create_server((host, candidate), family=family, backlog=BACKLOG)
        except OSError as error:
            failure = error
            if error.errno != errno.EADDRINUSE:
                break
    raise OSError(failure.errno, f"the dashboard cannot listen on {host}:{candidates[-1]}: {failure.strerror}")
