"""`init` and `shutdown`: a driver's session with a cluster, its own embedded one or one on RabbitMQ and Redis."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypedDict

from rabbitry import (
    current,
    environment,
    init_checks,
    job_environment,
    job_shares,
    late_paths,
    loggers,
    program,
    submitted_job,
)
from rabbitry.arguments import optional_text, wrong_type
from rabbitry.client import Client
from rabbitry.context import RabbitryContext
from rabbitry.dashboard import Dashboard
from rabbitry.embedded import EmbeddedNode
from rabbitry.logs import LogPrinter
from rabbitry.nodes import implicit
from rabbitry.suggestions import closest
from rabbitry.termination import leave_sigterm_alone, say_goodbye_on_sigterm
from rabbitry.util.node_address import get_node_ip_address
from rabbitry_broker import cluster_file, events, local_clusters
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import new_client_id, new_detached_id, new_job_id
from rabbitry_broker.messages import encode
from rabbitry_broker.queues import open_publisher
from rabbitry_broker.store.clients import CLIENT_LEASE_SECONDS

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger("rabbitry")

# The embedded cluster ends with its driver: a driver that is busy in C, or sleeps with its machine, is not dead.
EMBEDDED_LEASE_SECONDS: Final = 7 * 86400.0


class OfRay(TypedDict, total=False):
    """Options private to Ray that `init` accepts."""

    _node_ip_address: str | None
    _temp_dir: str | None
    _metrics_export_port: int | None
    _system_config: dict[str, Any] | None
    _tracing_startup_hook: str | None
    _node_name: str | None
    _redis_username: str | None
    _redis_password: str | None
    _plasma_directory: str | None
    object_spilling_directory: str | None
    _enable_object_reconstruction: bool
    _driver_object_store_memory: int | None
    _skip_env_hook: bool
    proxy_server_url: str | None


def _names_of_arguments() -> list[str]:
    """Return the names of what `init` takes."""
    import inspect

    return [name for name in inspect.signature(init).parameters if name != "kwargs"]


class Session:
    """What `init` made and `shutdown` takes down."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.node: EmbeddedNode | None = None
        self.printer: LogPrinter | None = None
        self.dashboard: Dashboard | None = None
        self.context: RabbitryContext | None = None
        self.address = ""  # of a cluster on this machine


_session: Session | None = None

after_init: list[Callable[[], None]] = []
"""Called at the end of each `init`, in this order; for libraries, which add to it once when they are imported."""
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
    logging_level: int | str = logging.INFO,
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
    **kwargs: Unpack[OfRay],
) -> RabbitryContext:
    """Connect this process to a cluster; without an address, start one on this machine (the embedded engine).

    Args:
        address: None: `RABBITRY_ADDRESS`, else an embedded cluster. "local": always an embedded one. "auto": what
            `RABBITRY_ADDRESS` says, else the cluster named by `RABBITRY_BROKER_URL`, `RABBITRY_STORE_URL` and
            `RABBITRY_SECRET` (a `.env` file is read), else the newest session that runs on this machine.
            `amqp://user:password@host/vhost`: that RabbitMQ. `unix:///directory`: a session or `Cluster` on this
            machine, as `init().address_info["address"]` or `Cluster.address` has it. A session that is joined ends
            with the program that started it.
        store: URL of Redis, with an `amqp://` address; default `RABBITRY_STORE_URL`.
        num_cpus: CPUs of the embedded node; default: the machine's.
        num_gpus: GPUs of the embedded node; default: those found.
        resources: custom resources of the embedded node, by name.
        labels: labels of the embedded node.
        object_store_memory: limit of shared memory for objects of an embedded cluster, in bytes.
        local_mode: removed, as in Ray; must be False.
        ignore_reinit_error: return the running session instead of raising if there is one.
        include_dashboard: True starts the HTTP service (REST API, jobs, pages) as a child process, which ends with
            the session; `dashboard_url` of the context says where. It needs the extra `rabbitry[dashboard]`.
        dashboard_host: where it listens; its token is needed from everywhere.
        dashboard_port: its port; default: 8265, or the next one that is free.
        job_config: a `JobConfig`: its namespace and runtime environment are used if they are not given here; its share
            and priority say what the job gets beside others.
        configure_logging: whether to set up the `rabbitry` logger (and `ray`, where that means rabbitry).
        logging_level: its level, as a number or a name.
        logging_format: its format.
        logging_config: a `LoggingConfig`: how this process and all tasks and actors of the job log.
        log_to_driver: print here what tasks print; default True (or `RAY_LOG_TO_DRIVER`).
        namespace: where named actors live; default: a random one.
        runtime_env: default for all tasks: a dict of what a `RuntimeEnv` takes. Its files and directories are uploaded.
        enable_resource_isolation: accepted, unused.
        cgroup_path: accepted, unused.
        system_reserved_cpu: accepted, unused.
        system_reserved_memory: accepted, unused.
        _memory: memory resource of the embedded node, in bytes.
        kwargs: options private to Ray, accepted and unused.

    Returns:
        A context, which may be used with `with` (shuts down at the end).

    Raises:
        RuntimeError: called twice or inside a task or actor, an unknown keyword, `local_mode=True`.
        TypeError: an argument is of the wrong type.
        ValueError: an impossible value, or resources were given for a cluster that runs already.
        RuntimeEnvSetupError: what `runtime_env` names cannot be read, or is too large.
        ImportError: `include_dashboard=True` without the extra.
        OSError: the dashboard's port is taken.
        ConnectionError: a server cannot be reached, or the cluster is not ours.
    """
    global _session
    unknown = sorted(set(kwargs) - set(OfRay.__annotations__))
    if unknown:
        hint = closest(unknown[0], _names_of_arguments())
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}.{hint}")
    if local_mode:
        raise RuntimeError("`local_mode` is no longer supported: call init() without it; tasks run in processes.")
    hook = optional_text("_tracing_startup_hook", kwargs.get("_tracing_startup_hook"))
    address = init_checks.address(address)
    store = optional_text("store", store)
    level = init_checks.logging_level(logging_level)
    logging_format = optional_text("logging_format", logging_format)
    num_cpus, num_gpus, memory, resources = init_checks.node_resources(num_cpus, num_gpus, _memory, resources)
    labels = init_checks.node_labels(labels)
    object_store_memory = init_checks.store_bytes(object_store_memory)
    init_checks.directory("_temp_dir", kwargs.get("_temp_dir"))
    spill_url = optional_text("object_spilling_directory", kwargs.get("object_spilling_directory"))
    if job_config is not None:
        from rabbitry.job_config import JobConfig

        if not isinstance(job_config, JobConfig):
            raise wrong_type("job_config", job_config, "a JobConfig")
        namespace = getattr(job_config, "ray_namespace", None) if namespace is None else namespace
        runtime_env = getattr(job_config, "runtime_env", None) if runtime_env is None else runtime_env
    metadata = {**(getattr(job_config, "metadata", None) or {}), **submitted_job.metadata()}
    shares = job_shares.of_job(job_config)
    namespace = init_checks.namespace(namespace)
    env = job_environment.given(runtime_env, uv_run=not kwargs.get("_skip_env_hook"))
    logging_config = init_checks.logging_config(logging_config)
    dashboard = init_checks.dashboard(include_dashboard, dashboard_host, dashboard_port)
    with _lock:
        worker = current.peek()
        if worker is not None and worker.executing:
            # Inside a task or actor: the process has its session, which is its executor's.
            if ignore_reinit_error:
                return RabbitryContext(worker, None)
            raise RuntimeError(
                "init() was called inside a task or actor, which has its session already: leave it out, keep it from "
                'running when the module is imported (if __name__ == "__main__":), or pass ignore_reinit_error=True.'
            )
        if _session is not None:
            if ignore_reinit_error:
                log.info("Calling init() again after it has already been called.")
                assert _session.context is not None
                return _session.context
            raise RuntimeError(
                f"Maybe you called {program.name()}.init twice by accident? Call shutdown() between, or pass "
                "ignore_reinit_error=True to allow it."
            )
        if hook:
            from rabbitry.tracing import enable

            enable(hook)
        if configure_logging:
            _configure_logging(level, logging_format)
        else:
            _leave_logging_to_others()
        if logging_config is not None:
            logging_config._apply()
        if address is None:
            address = local_clusters.address_in_environment()
        if address == local_clusters.AUTO:
            address = local_clusters.resolve_auto()
        session = Session()
        try:
            if address is None or address == local_clusters.LOCAL:
                totals = _totals(num_cpus, num_gpus, memory, resources)
                node = implicit(totals, labels or {}, optional_text("_node_ip_address", kwargs.get("_node_ip_address")))
                _start_embedded(session, node, object_options(object_store_memory, spill_url))
            else:
                given = {
                    "num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources,
                    "labels": labels, "object_store_memory": object_store_memory, "_memory": _memory,
                    "object_spilling_directory": spill_url,
                }  # fmt: skip
                for name, value in given.items():
                    if value is not None:
                        raise ValueError(f"{name} belongs to the nodes; it cannot be set when connecting to a cluster.")
                _connect(session, address, store)
            assert session.client is not None
            client = session.client
            client.namespace = namespace or str(uuid.uuid4())  # as Ray calls what nobody named
            client.job_logging = None if logging_config is None else logging_config.to_dict()
            if session.node is None:
                client.register()  # before its job: who is not on record is not missed
                client.liveness.restores.append(lambda: _register_job(client, metadata, shares))
            _register_job(client, metadata, shares)
            client.job_priority = shares.priority
            job_environment.enter(client, env)
            if logging_config is not None:
                from rabbitry.logging_config import home_node

                home_node[:] = [client.home_node().hex()]
            if log_to_driver is None:
                log_to_driver = not environment.is_off(*environment.LOG_TO_DRIVER)
            if log_to_driver:
                plain = logging_config is not None or environment.is_on(*environment.NO_LOG_PREFIX)
                session.printer = LogPrinter(client, plain=plain)
                session.printer.start()
            if dashboard is not None:
                session.dashboard = _start_dashboard(session, *dashboard)
        except BaseException:
            _close(session)
            raise
        current.set_client(client)
        _session = session
        dashboard_url = session.dashboard.url if session.dashboard is not None else ""
        session.context = RabbitryContext(
            client, session.node, session.address, dashboard_url=dashboard_url, end=shutdown
        )
        atexit.register(shutdown)
        say_goodbye_on_sigterm()
    for initialized in after_init:
        initialized()
    return session.context


def _configure_logging(level: int, text: str | None) -> None:
    logger = logging.getLogger(loggers.OWN)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(text or "%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    for name in loggers.configured:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if text and name != loggers.OWN:
            for each in logger.handlers:
                each.setFormatter(logging.Formatter(text))


def _leave_logging_to_others() -> None:
    for name in loggers.configured:
        if name != loggers.OWN:
            logging.getLogger(name).handlers.clear()


def _totals(
    num_cpus: float | None, num_gpus: float | None, memory: float | None, resources: dict[str, float] | None
) -> dict[str, float]:
    from rabbitry_broker.resources import detect_totals

    return detect_totals(num_cpus, num_gpus, memory, resources).to_floats()


def _start_embedded(session: Session, facts: dict[str, Any], objects: dict[str, Any]) -> None:
    session.node = node = EmbeddedNode.start(facts, objects)
    session.address = node.address
    _set_node_address(facts["address"])
    objects = {**objects, "spill_url": node.spill_url}
    session.client = _client(
        node.endpoint,
        slots=int(facts["totals"].get("CPU", 1)),
        session=node.session,
        host=node.host,
        lease=EMBEDDED_LEASE_SECONDS,
        by_connection=False,
        **objects,
    )


def object_options(memory_limit: int | None, spill_url: str | None) -> dict[str, Any]:
    """Return what the environment says of objects, as keywords of `Client`.

    Raises:
        ValueError: a value that is no such number.
    """
    if memory_limit is None:
        memory_limit = environment.number(environment.SHARED_MEMORY_LIMIT, int) or None
    elif memory_limit <= 0:
        raise ValueError(f"object_store_memory must be a positive number of bytes, got {memory_limit}")
    environment.number(environment.EXECUTOR_MEMORY_LIMIT, int)  # the node reads it; a mistake is told here
    events.are_on()  # the same
    return {
        "object_ttl": environment.number(environment.OBJECT_TTL, float) or 0.0,
        "spill_url": spill_url or environment.text(environment.SPILL_URL),
        "memory_limit": memory_limit,
    }


def _connect(session: Session, address: str, store: str | None) -> None:
    from rabbitry.cluster import check_cluster
    from rabbitry_broker.store.host import host_id, shared_session

    if cluster_file.is_address(address):
        cluster = cluster_file.read(address)
        check_cluster(cluster.endpoint)
        session.address = address
        ours = object_options(cluster.memory_limit, None)
        session.client = _client(
            cluster.endpoint,
            slots=1,
            session=cluster.session,
            host=host_id(),
            lease=cluster.client_lease,
            object_ttl=ours["object_ttl"] or cluster.object_ttl,
            spill_url=ours["spill_url"] or cluster.spill_url,
            memory_limit=ours["memory_limit"],
        )
        session.client.refresh_slots()
        return
    from rabbitry_broker.settings import Settings

    settings = Settings.load(address, store)
    endpoint = settings.endpoint()
    mark = check_cluster(endpoint, timeout=settings.connect_timeout)
    session.client = _client(
        endpoint,
        slots=1,
        session=shared_session(endpoint, mark.cluster_id),
        host=host_id(),
        object_ttl=settings.object_ttl or 0.0,
        spill_url=settings.spill_url.get_secret_value() if settings.spill_url else "",
        memory_limit=settings.shared_memory_limit,
        lease=settings.client_lease,
    )
    session.client.refresh_slots()


def _set_node_address(address: str) -> None:
    from rabbitry.util.node_address import set_node_address  # `rabbitry.util` is loaded when it is asked for

    set_node_address(address)


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
    by_connection: bool = True,
) -> Client:
    holder: list[Client] = []
    publisher = open_publisher(
        endpoint,
        on_new_queue=lambda queue: holder[0].store.announce_queue(queue),
        name="driver",
        patience=endpoint.patience,
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
        by_connection=by_connection,
        session=session,
        host=host,
        events=events.are_on(),
        traced=_traced(),
    )
    holder.append(client)
    return client


def _traced() -> tuple[Any, Any] | None:
    """Return what makes spans of what is submitted; None while that is off."""
    if "rabbitry.tracing" not in sys.modules and not environment.is_yes(environment.TRACING):
        return None  # nothing has switched it on
    from rabbitry import tracing

    return (tracing.traced_submit, tracing.traced_creation) if tracing.is_on() else None


def _tracing_facts() -> str:
    return sys.modules["rabbitry.tracing"].facts() if _traced() is not None else ""


def _register_job(client: Client, metadata: dict[str, str], shares: job_shares.JobShare) -> None:
    """Tell the nodes what executors of this job need: import path, working directory, namespace."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    path = [os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path]
    late_paths.told([*sys.path, *path])
    record = {
        "client": client.id,
        "is_missed": client.registered,
        "detached_id": client.detached_id,
        "namespace": client.namespace,
        # As JSON, which holds names of files and variables that are no text.
        "process": json.dumps({"sys_path": path, "cwd": os.getcwd(), "logging": client.job_logging}).encode(),
        "python": list(sys.version_info[:3]),
        "entrypoint": os.fsencode(script or "").decode("utf-8", "backslashreplace"),
        "tracing": _tracing_facts(),
        "as_ray": environment.is_on(environment.AS_RAY),
        "pid": os.getpid(),
        "started": time.time(),
        "ip": "127.0.0.1" if client.endpoint.embedded else get_node_ip_address(),
        "metadata": metadata,
        "share": shares.share,
        "priority": shares.priority,
    }
    sealed = client.signer.seal(b"job" + client.job, encode(record))
    client.store.begin_job(client.job, sealed)
    facts = {name: record[name] for name in ("client", "pid", "started", "entrypoint", "namespace", "metadata")}
    client.events.add((events.JOB, record["started"], client.job, facts), 0)


def shutdown(*, wait_for_processes: bool = False) -> None:
    """End the session: stop what `init` started, or say goodbye to the cluster. May be called at any time.

    Inside a task or actor it does nothing: the session there is its process's, and others run in it.

    Args:
        wait_for_processes: accepted for Ray's sake; the processes are always waited for.
    """
    global _session
    with _lock:
        session, _session = _session, None
        if session is None:
            return
        atexit.unregister(shutdown)
        leave_sigterm_alone()
        current.set_client(None)
        _close(session)


def _start_dashboard(session: Session, host: str, port: int | None) -> Dashboard:
    assert session.client is not None
    endpoint = session.client.endpoint
    if session.address:
        return Dashboard.start(session.address, host=host, port=port, servers={})
    # Variables, because every user of the machine can read a command line.
    servers = {
        environment.BROKER_URL: endpoint.broker_url or "",
        environment.STORE_URL: endpoint.store_url,
        environment.ADDRESS: local_clusters.AUTO,
    }
    return Dashboard.start(local_clusters.AUTO, host=host, port=port, servers=servers)


def _close(session: Session) -> None:
    if session.dashboard is not None:
        session.dashboard.stop()
    if session.printer is not None:
        session.printer.stop()
    client = session.client
    if client is not None:
        try:
            client.goodbye(cluster=session.node is None)
        except (RabbitryBrokerError, OSError) as error:
            log.debug("goodbye failed: %s", error)
        client.close()
    if session.node is not None:
        _set_node_address("")
        session.node.stop()


def context() -> RabbitryContext | None:
    """Return the context of this process's session; None without one, and inside tasks and actors."""
    return _session.context if _session is not None else None


def is_initialized() -> bool:
    """True between `init` and `shutdown`, and always inside tasks and actors."""
    return current.peek() is not None


def _auto_init() -> None:
    if environment.text(environment.AUTO_CONNECT) == "0":
        return
    with _lock:
        if current.peek() is None:
            init()


current.set_auto_init(_auto_init)


def _forget_in_child() -> None:
    """A forked child shares our sockets and handlers but not our session."""
    global _session
    if _session is None and current.peek() is None:
        return  # what is written to here is memory that the two share no longer
    session, _session = _session, None
    leave_sigterm_alone()
    if session is not None and session.client is not None:
        session.client.store.forget_in_child()
    current.set_client(None)


os.register_at_fork(after_in_child=_forget_in_child)
