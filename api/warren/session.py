"""`init` and `shutdown`: a driver's session with a cluster, its own embedded one or one on RabbitMQ and Redis."""

from __future__ import annotations

import atexit
import logging
import os
import secrets as random_secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from warren import current
from warren.client import Client
from warren.context import WarrenContext
from warren.embedded import EmbeddedNode
from warren.logs import LogPrinter
from warren_broker import cluster_file
from warren_broker.endpoint import Endpoint
from warren_broker.errors import WarrenBrokerError
from warren_broker.ids import new_client_id, new_detached_id, new_job_id
from warren_broker.messages import encode
from warren_broker.queues import open_publisher
from warren_broker.store.object_store import CLIENT_LEASE_SECONDS

log = logging.getLogger("warren")

# The embedded cluster ends with its driver: a driver that is busy in C, or sleeps with its machine, is not dead.
EMBEDDED_LEASE_SECONDS: Final = 7 * 86400.0

IGNORED = frozenset(
    [
        "_node_ip_address",
        "_temp_dir",
        "_metrics_export_port",
        "_system_config",
        "_tracing_startup_hook",
        "_node_name",
        "_redis_username",
        "_redis_password",
        "_plasma_directory",
        "object_spilling_directory",
        "_enable_object_reconstruction",
        "_driver_object_store_memory",
        "_skip_env_hook",
    ]
)


class Session:
    """What `init` made and `shutdown` takes down."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.node: EmbeddedNode | None = None
        self.printer: LogPrinter | None = None
        self.context: WarrenContext | None = None


_session: Session | None = None
_lock = threading.RLock()


def init(
    address: str | None = None,
    *,
    store: str | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    job_config: Any = None,
    configure_logging: bool = True,
    logging_level: int = logging.INFO,
    logging_format: str | None = None,
    logging_config: Any = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    enable_resource_isolation: bool = False,
    cgroup_path: str | None = None,
    system_reserved_cpu: float | None = None,
    system_reserved_memory: int | None = None,
    _memory: int | None = None,
    **kwargs: Any,
) -> WarrenContext:
    """Connect this process to a cluster; without an address, start one on this machine (the embedded engine).

    Args:
        address: None: `WARREN_ADDRESS`, else an embedded cluster. "local": always an embedded one. "auto": the cluster
            named by `WARREN_BROKER_URL`, `WARREN_STORE_URL` and `WARREN_SECRET` (a `.env` file is read).
            `amqp://user:password@host/vhost`: that RabbitMQ. `unix:///directory`: a cluster on this machine that
            `warren.cluster_utils.Cluster` started (its `address`).
        store: URL of Redis, with an `amqp://` address; default `WARREN_STORE_URL`.
        num_cpus: CPUs of the embedded node; default: the machine's.
        num_gpus: GPUs of the embedded node; default: those found.
        resources: custom resources of the embedded node, by name.
        labels: labels of the embedded node.
        object_store_memory: limit of shared memory for objects of an embedded cluster, in bytes.
        local_mode: removed, as in Ray; must be False.
        ignore_reinit_error: return the running session instead of raising if there is one.
        include_dashboard: accepted; warren has no dashboard.
        dashboard_host: accepted, unused.
        dashboard_port: accepted, unused.
        job_config: accepted; its `ray_namespace` is used if `namespace` is not given.
        configure_logging: whether to set up the `warren` logger.
        logging_level: its level.
        logging_format: its format.
        logging_config: accepted, unused.
        log_to_driver: print here what tasks print; default True (or `RAY_LOG_TO_DRIVER`).
        namespace: where named actors live; default: a random one.
        runtime_env: default for all tasks; `{"env_vars": {...}}`.
        enable_resource_isolation: accepted, unused.
        cgroup_path: accepted, unused.
        system_reserved_cpu: accepted, unused.
        system_reserved_memory: accepted, unused.
        _memory: memory resource of the embedded node, in bytes.
        kwargs: options private to Ray, accepted and unused.

    Returns:
        A context, which may be used with `with` (shuts down at the end).

    Raises:
        RuntimeError: called twice, an unknown keyword, `local_mode=True`.
        ValueError: resources were given for a cluster that runs already.
        ConnectionError: a server cannot be reached, or the cluster is not ours.
    """
    global _session
    unknown = sorted(set(kwargs) - IGNORED)
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
    if local_mode:
        raise RuntimeError("local_mode was removed (as in Ray): call init() without it; tasks run in processes.")
    with _lock:
        if _session is not None:
            if ignore_reinit_error:
                log.info("Calling init() again after it has already been called.")
                assert _session.context is not None
                return _session.context
            raise RuntimeError(
                "init() was called twice without shutdown() between. Pass ignore_reinit_error=True to allow it."
            )
        if configure_logging:
            _configure_logging(logging_level, logging_format)
        if address is None:
            address = os.environ.get("WARREN_ADDRESS") or os.environ.get("RAY_ADDRESS") or None
            if address is not None and not address.startswith(("amqp", "auto", "local", cluster_file.SCHEME)):
                address = None  # an address of Ray's own
        if namespace is None and job_config is not None:
            namespace = getattr(job_config, "ray_namespace", None)
        _check_namespace(namespace)
        env = _job_env(runtime_env)
        session = Session()
        try:
            if address in (None, "local"):
                totals = _totals(num_cpus, num_gpus, _memory, resources)
                spill_url = kwargs.get("object_spilling_directory")
                _start_embedded(session, totals, labels or {}, object_options(object_store_memory, spill_url))
            else:
                given = {
                    "num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources,
                    "labels": labels, "object_store_memory": object_store_memory,
                }  # fmt: skip
                for name, value in given.items():
                    if value is not None:
                        raise ValueError(f"{name} belongs to the nodes; it cannot be set when connecting to a cluster.")
                _connect(session, address, store)
            assert session.client is not None
            client = session.client
            client.namespace = namespace or random_secrets.token_hex(16)
            client.job_env = env
            _register_job(client)
            if log_to_driver is None:
                log_to_driver = os.environ.get("RAY_LOG_TO_DRIVER", "1") not in ("0", "false", "False")
            if log_to_driver:
                session.printer = LogPrinter(client)
                session.printer.start()
        except BaseException:
            _close(session)
            raise
        current.set_client(client)
        _session = session
        session.context = WarrenContext(client, session.node)
        atexit.register(shutdown)
        return session.context


def _check_namespace(namespace: Any) -> None:
    if namespace is None:
        return
    if not isinstance(namespace, str):
        raise TypeError(f"namespace must be a str, got {namespace!r}")
    if not namespace:
        raise ValueError("namespace must not be empty; leave it out for a random one")


def _job_env(runtime_env: dict[str, Any] | None) -> dict[str, str]:
    if not runtime_env:
        return {}
    from warren.runtime_env import check_runtime_env

    validated = check_runtime_env(runtime_env) or {}
    return dict(validated.get("env_vars") or {})


def _configure_logging(level: int, text: str | None) -> None:
    logger = logging.getLogger("warren")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(text or "%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False


def _totals(
    num_cpus: float | None, num_gpus: float | None, memory: int | None, resources: dict[str, float] | None
) -> dict[str, float]:
    from warren_broker.resources import detect_totals

    return detect_totals(num_cpus, num_gpus, memory, resources).to_floats()


def _start_embedded(
    session: Session, totals: dict[str, float], labels: dict[str, str], objects: dict[str, Any]
) -> None:
    session.node = node = EmbeddedNode.start(totals, labels, objects)
    session.client = _client(
        node.endpoint,
        slots=int(totals.get("CPU", 1)),
        session=node.session,
        host=node.host,
        lease=EMBEDDED_LEASE_SECONDS,
        **objects,
    )


def object_options(memory_limit: int | None, spill_url: str | None) -> dict[str, Any]:
    """Return what the environment says of objects, as keywords of `Client`.

    Raises:
        ValueError: a value that is no such number.
    """
    if memory_limit is None:
        memory_limit = _number("WARREN_SHARED_MEMORY_LIMIT", int) or None
    elif memory_limit <= 0:
        raise ValueError(f"object_store_memory must be a positive number of bytes, got {memory_limit}")
    _number("WARREN_EXECUTOR_MEMORY_LIMIT", int)  # the node reads it; a mistake is told here
    return {
        "object_ttl": _number("WARREN_OBJECT_TTL", float) or 0.0,
        "spill_url": spill_url or os.environ.get("WARREN_SPILL_URL", ""),
        "memory_limit": memory_limit,
    }


def _number(variable: str, kind: Callable[[str], Any]) -> Any:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if value < 0:
        raise ValueError(f"{variable}={text!r} is not a number of 0 or more")
    return value


def _connect(session: Session, address: str, store: str | None) -> None:
    from warren.cluster import check_cluster
    from warren_broker.store.host import host_id, shared_session

    if cluster_file.is_address(address):
        cluster = cluster_file.read(address)
        check_cluster(cluster.endpoint)
        session.client = _client(
            cluster.endpoint,
            slots=1,
            session=cluster.session,
            host=host_id(),
            lease=cluster.client_lease,
            **object_options(None, None),
        )
        session.client.refresh_slots()
        return
    from warren_broker.settings import Settings

    settings = Settings.load(address, store)
    endpoint = settings.endpoint()
    check_cluster(endpoint, timeout=settings.connect_timeout)
    session.client = _client(
        endpoint,
        slots=1,
        session=shared_session(endpoint),
        host=host_id(),
        object_ttl=settings.object_ttl or 0.0,
        spill_url=settings.spill_url.get_secret_value() if settings.spill_url else "",
        memory_limit=settings.shared_memory_limit,
        lease=settings.client_lease,
    )
    session.client.refresh_slots()


def _client(
    endpoint: Endpoint,
    *,
    slots: int,
    session: str,
    host: bytes,
    object_ttl: float = 0.0,
    spill_url: str = "",
    memory_limit: int | None = None,
    lease: float = CLIENT_LEASE_SECONDS,
) -> Client:
    holder: list[Client] = []
    publisher = open_publisher(
        endpoint, on_new_queue=lambda queue: holder[0].store.announce_queue(queue), name="driver"
    )
    client = Client(
        endpoint,
        publisher,
        client_id=new_client_id(),
        job=new_job_id(),
        detached_id=new_detached_id(),
        namespace="",
        slots=slots,
        driver=True,
        object_ttl=object_ttl,
        spill_url=spill_url,
        memory_limit=memory_limit,
        lease=lease,
        session=session,
        host=host,
    )
    holder.append(client)
    return client


def _register_job(client: Client) -> None:
    """Tell the nodes what executors of this job need: import path, working directory, namespace."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    path = [os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path]
    record = {
        "client": client.id,
        "detached_id": client.detached_id,
        "namespace": client.namespace,
        "sys_path": path,
        "cwd": os.getcwd(),
        "env": client.job_env,
        "python": list(sys.version_info[:3]),
        "entrypoint": script or "",
        "as_ray": os.environ.get("WARREN_AS_RAY") == "1",
        "pid": os.getpid(),
        "started": time.time(),
    }
    sealed = client.signer.seal(b"job" + client.job, encode(record))
    client.store.call(b"SET", client.keys.job(client.job), sealed)


def shutdown(*, wait_for_processes: bool = False) -> None:
    """End the session: stop what `init` started, or say goodbye to the cluster. May be called at any time.

    Args:
        wait_for_processes: accepted for Ray's sake; the processes are always waited for.
    """
    global _session
    with _lock:
        session, _session = _session, None
        if session is None:
            return
        atexit.unregister(shutdown)
        current.set_client(None)
        _close(session)


def _close(session: Session) -> None:
    if session.printer is not None:
        session.printer.stop()
    client = session.client
    if client is not None:
        try:
            client.goodbye(cluster=session.node is None)
        except (WarrenBrokerError, OSError) as error:
            log.debug("goodbye failed: %s", error)
        client.close()
    if session.node is not None:
        session.node.stop()


def is_initialized() -> bool:
    """True between `init` and `shutdown`, and always inside tasks and actors."""
    return current.peek() is not None


def _auto_init() -> None:
    if os.environ.get("RAY_ENABLE_AUTO_CONNECT", "1") == "0":
        return
    with _lock:
        if current.peek() is None:
            init()


current.set_auto_init(_auto_init)


def _forget_in_child() -> None:
    """A forked child shares our sockets but not our session."""
    global _session
    _session = None
    current.set_client(None)


os.register_at_fork(after_in_child=_forget_in_child)
