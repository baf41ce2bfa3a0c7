"""`rabbitry dashboard`, and the child process of `init(include_dashboard=True)`: the service, run by uvicorn.

A process that started the service may hold the other end of a link: the service ends when it is gone. It may hand over
the socket too, so that it knows the address, and browsers may come, before the service is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import rabbitry
from rabbitry import environment
from rabbitry.dashboard import BACKLOG, DEFAULT_PORT
from rabbitry.dashboard_token import token, token_file
from rabbitry.job_submission.finding import ANNOUNCED_SECONDS, announce
from rabbitry.util.node_address import get_node_ip_address
from rabbitry_broker import local_clusters
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_workers.joining import find_cluster

DEFAULT_HOST: Final = "127.0.0.1"
SHUTDOWN_SECONDS: Final = 3
WILDCARDS: Final = ("0.0.0.0", "::")

log = logging.getLogger("rabbitry.dashboard")


class DashboardError(RabbitryBrokerError, ValueError):
    """The service cannot be started so. The message says what to do."""


@dataclass(frozen=True)
class DashboardOptions:
    """What `rabbitry dashboard` was told.

    Attributes:
        address: RabbitMQ's URL, "auto", or `unix:///directory`; None for the environment's.
        store: Redis' URL; None for the environment's.
        prefix: of keys and queues; None for the environment's.
        host: where it listens.
        port: on which port; 0 for any that is free.
        no_token: let in whoever reaches it; only on this host.
        allow_host: names by which browsers may reach it, besides addresses and this host's own.
        link: descriptor of a socket to whoever started it; None for a service of its own.
        listener: descriptor of a socket that listens already; None to make one.
    """

    address: str | None = None
    store: str | None = None
    prefix: str | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    no_token: bool = False
    allow_host: Sequence[str] = ()
    link: int | None = None
    listener: int | None = None


def run_dashboard(options: DashboardOptions) -> int:
    """Serve until a signal, or the end of the link; return the exit code.

    Raises:
        DashboardError: the extra is not installed, the port is taken, or others could reach it without a token.
        TokenError: the token is too weak, others can read it, or none can be kept.
        ConnectError: there is no such cluster.
        SettingsError: a setting is wrong.
    """
    try:
        import uvicorn

        from rabbitry_workers.dashboard.cluster.cluster import ClusterSource
        from rabbitry_workers.dashboard.mount import mount
        from rabbitry_workers.http import jobs, metrics, packages, state, version
        from rabbitry_workers.http.access import ClusterAccess
        from rabbitry_workers.http.app import make_app
        from rabbitry_workers.jobs.manager import JobManager
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("rabbitry"):
            raise
        raise DashboardError(f"{error.name} is not installed: pip install 'rabbitry[dashboard]'") from None

    if options.no_token and not _is_loopback(options.host):
        raise DashboardError(
            f"--no-token is for this host alone, and {options.host} can be reached from others: leave out --no-token "
            f"or listen on {DEFAULT_HOST}"
        )
    if options.prefix:
        os.environ[environment.PREFIX] = options.prefix  # for the session that jobs need
    address = options.address or local_clusters.address_in_environment()
    if options.store is None and address in (None, local_clusters.AUTO):
        address = local_clusters.resolve_auto()
    joining = find_cluster(address, options.store, options.prefix)
    cluster = ClusterAccess(joining, address, options.store)
    cluster.check()
    wanted = None if options.no_token else token()
    routers = [version.router, jobs.router, packages.router, state.router, metrics.router]
    app = make_app(cluster, routers, token=wanted, hosts=(options.host, *options.allow_host))
    source = ClusterSource(cluster.endpoint, JobManager(cluster.client), timeout=cluster.timeout)
    mount(app, source)
    listener = _listen(options)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # a login link holds the token
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)

    @contextlib.asynccontextmanager
    async def until_link_ends() -> AsyncIterator[None]:
        if options.link is None:
            yield
            return
        loop, link = asyncio.get_running_loop(), socket.socket(fileno=options.link)

        def on_link() -> None:
            with contextlib.suppress(BlockingIOError):
                if not link.recv(4096):
                    loop.remove_reader(link)
                    server.should_exit = True

        link.setblocking(False)
        loop.add_reader(link, on_link)
        yield

    url = _url(options.host, listener.getsockname()[1])

    async def announcing() -> None:
        # By a host's wildcard address nobody can be reached.
        where = url.replace(options.host, get_node_ip_address()) if options.host in WILDCARDS else url
        while True:
            with contextlib.suppress(RabbitryBrokerError):  # the store is away: later
                await asyncio.to_thread(announce, cluster.endpoint, where)
            await asyncio.sleep(ANNOUNCED_SECONDS / 3)

    async def serve() -> None:
        async with until_link_ends():
            telling = asyncio.create_task(announcing())
            try:
                await server.serve(sockets=[listener])
            finally:
                telling.cancel()

    if options.link is None:
        _say_where(url, wanted)
    # Uvicorn raises the signal that ended it once more, when everything is closed: that is no crash.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve())
    finally:
        source.close()
        rabbitry.shutdown()
    return 0 if server.started else 1


def _listen(options: DashboardOptions) -> socket.socket:
    if options.listener is not None:
        return socket.socket(fileno=options.listener)
    try:
        return socket.create_server(
            (options.host, options.port),
            family=socket.AF_INET6 if ":" in options.host else socket.AF_INET,
            backlog=BACKLOG,
        )
    except OSError as error:
        raise DashboardError(
            f"cannot listen on {options.host}:{options.port} ({error.strerror}): say another --port, 0 for any"
        ) from None


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say_where(url: str, wanted: str | None) -> None:
    print(f"dashboard: {url}", flush=True)
    if wanted is None:
        return
    # Not into logs that others may read.
    if sys.stdout.isatty():
        print(f"log in by: {url}/login?token={wanted}", flush=True)
    else:
        print(f"the token is in RABBITRY_DASHBOARD_TOKEN, or in {token_file()}", flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main(request: str) -> int:
    """Run the service that a session starts; its options as JSON.

    Returns:
        The exit code.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return run_dashboard(DashboardOptions(**json.loads(request)))
    except (RabbitryBrokerError, ValueError) as error:
        log.error("the dashboard could not be started: %s", error)
        return 1
