"""Environment variables that are no settings of a cluster: those stand in `rabbitry_broker.settings`."""

from __future__ import annotations

from typing import Final

GROUPS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Of programs": {
        "RABBITRY_ADDRESS": ("The address where `init()` and the commands are given none: `auto`, or a URL.", ""),
        "RABBITRY_TASK_MAX_RETRIES": (
            "`max_retries` of tasks that do not say; `RAY_TASK_MAX_RETRIES` does as well.",
            "`3`",
        ),
        "RABBITRY_IGNORE_UNHANDLED_ERRORS": (
            "`1`: no log entry for a task that failed and whose result nobody read; `RAY_IGNORE_UNHANDLED_ERRORS` too.",
            "",
        ),
        "RABBITRY_PICKLE_VERBOSE_DEBUG": (
            "`1`: what keeps a function or value from being pickled by `cloudpickle.dumps_debug`, which Tune uses, is "
            "looked for and printed; `RAY_PICKLE_VERBOSE_DEBUG` does as well.",
            "",
        ),
        "RABBITRY_DASHBOARD_TOKEN": (
            "What the dashboard asks for, and what clients show: 16 characters or more.",
            "a file that is made",
        ),
        "RABBITRY_API_SERVER_ADDRESS": (
            "URL of the dashboard for `rabbitry job` and `JobSubmissionClient`; `RAY_API_SERVER_ADDRESS` does as well.",
            "",
        ),
        "RABBITRY_JOB_HEADERS": (
            "HTTP headers of `rabbitry job`, a JSON object; `RAY_JOB_HEADERS` does as well.",
            "",
        ),
        "RABBITRY_OVERRIDE_JOB_RUNTIME_ENV": (
            "`1`: what `init(runtime_env=...)` says in a job counts more than the job's; `RAY_...` does as well.",
            "",
        ),
        "RABBITRY_JOB_CONFIG": ("Environment and metadata of the job that a driver belongs to. Set for you.", ""),
        "RABBITRY_LOG_TO_DRIVER": (
            "`0`: a driver does not print what its tasks print; `RAY_LOG_TO_DRIVER` too, and so for those below.",
            "",
        ),
        "RABBITRY_DEDUP_LOGS": ("`0`: lines that several processes print alike are all shown.", "`1`"),
        "RABBITRY_DEDUP_LOGS_AGG_WINDOW_S": ("Seconds in which such lines are counted.", "`5`"),
        "RABBITRY_DEDUP_LOGS_ALLOW_REGEX": ("Lines that are always shown.", ""),
        "RABBITRY_DEDUP_LOGS_SKIP_REGEX": ("Lines that are never shown.", ""),
        "RABBITRY_COLOR_PREFIX": (
            "`0`: no colours before what tasks print; `1`: one for each process, also where there is no terminal. "
            "`NO_COLOR` is heeded.",
            "cyan, on a terminal",
        ),
        "RABBITRY_PRELOAD_LIBRARIES": (
            "`0`: what runs a piece of Ray's libraries, or of Modin, imports them itself, once in each process.",
            "`1`",
        ),
        "RABBITRY_USE_UVLOOP": (
            "`0`: asyncio actors run on asyncio's own loops even where uvloop is installed; `RAY_USE_UVLOOP` too.",
            "`1`",
        ),
        "RABBITRY_DISABLE_WORKER_LOG_PREFIX": ("`1`: what tasks print is shown without their name and process.", ""),
        "RABBITRY_VALUE_COPIES": (
            "`eager`: large values are in Redis before `put` returns or a task ends; `lazy`: when needed elsewhere.",
            "`lazy`",
        ),
        "RABBITRY_STORE_FULL_SECONDS": (
            "Seconds that whoever writes a value waits for room in a full store before it fails; of nodes, too.",
            "`10`",
        ),
        "RABBITRY_REDIS_SERVER": (
            "Path of the `redis-server` that the embedded engine starts.",
            "a package's, or PATH",
        ),
        "RABBITRY_TASK_EVENTS": (
            "`off`: nothing is recorded of what becomes of tasks (of a driver's, or on a node).",
            "`on`",
        ),
        "RABBITRY_TASK_EVENTS_BYTES": ("Of what is recorded, so many bytes are kept in Redis.", "64 MiB"),
        "RABBITRY_TASK_EVENTS_SECONDS": ("And for so long.", "`21600`"),
        "RABBITRY_METRICS_SERIES": (
            "Of what a job's programs measure (`rabbitry.util.metrics`), so many series are kept.",
            "`10000`",
        ),
        "RABBITRY_TRACING": ("`on`: spans of tasks by OpenTelemetry, as its variables `OTEL_...` say.", "`off`"),
        "RABBITRY_SPANS_DIR": (
            "Where `rabbitry.util.tracing.setup_local_tmp_tracing` writes spans.",
            "`spans` among the temporary files",
        ),
        "RABBITRY_AS_RAY": (
            "`1` in child processes of `python -m rabbitry.as_ray`: there `import ray` means rabbitry. Set for you.",
            "",
        ),
    },
    "Of programs whose code goes to nodes": {
        "RABBITRY_PACKAGE_LIMIT": ("Bytes that a directory may have which `runtime_env` sends to nodes.", "500 MiB"),
    },
    "Of nodes": {
        "RABBITRY_REPLICAS_TIMEOUT": (
            "Seconds, up to 25, that a call of a durable actor with `durable_replicas` waits for these.",
            "`1`",
        ),
        "RABBITRY_LOG_DIR": (
            "Where nodes keep what tasks and actors print, in a directory for each node.",
            "`rabbitry-logs-<user>` among temporary files",
        ),
        "RABBITRY_DEBUG_POST_MORTEM": (
            "`1` in a task's `env_vars`: a task that fails waits for `rabbitry debug` first; "
            "`RAY_DEBUG_POST_MORTEM` too.",
            "",
        ),
        "RABBITRY_DEBUGGER_EXTERNAL": (
            "`1` in a task's `env_vars`: its debugger can be reached from other machines; `RAY_DEBUGGER_EXTERNAL` too.",
            "",
        ),
        "RABBITRY_LOG_BYTES": (
            "What these files may take, for each node; the oldest go first. `0`: none are written.",
            "`536870912`",
        ),
        "RABBITRY_ENVIRONMENTS": (
            "Directory for what nodes fetch and install for `runtime_env`; all nodes of a user on a machine share it.",
            "`~/.cache/rabbitry/environments`",
        ),
        "RABBITRY_ENVIRONMENTS_LIMIT": (
            "Bytes that it may have before what nobody uses goes, the one that was not used for longest first.",
            "10 GiB",
        ),
        "RABBITRY_ENVIRONMENTS_KEEP_SECONDS": ("How long what nobody uses stays there in any case.", "7 days"),
        "RABBITRY_TEMPLATE": ("What the first process of an environment is told. Set for you.", ""),
        "RABBITRY_PEERS": (
            "`off`, of a node or a driver: large values of other hosts come through Redis alone.",
            "`on`",
        ),
        "RABBITRY_PEER_PORT": (
            "Port at which a node serves large values to other hosts; `0`: any that is free.",
            "`0`",
        ),
        "RABBITRY_PEER_BIND": (
            "Address at which it listens for that, `0.0.0.0` for all of its machine's.",
            "the node's address",
        ),
        "RABBITRY_DRAIN_SECONDS": (
            "Time that a node which is asked to leave (SIGTERM) has to finish what runs; it hands back the rest.",
            "`30`; `60` in Compose",
        ),
    },
    "Of jobs": {
        "RABBITRY_JOB_LOG_BYTES": ("Of a node: how much of a job's log is kept.", "`67108864`"),
        "RABBITRY_JOB_SHARE": ("Weight of this program's work beside that of other jobs, 0.001 to 1000.", "`1`"),
        "RABBITRY_JOB_PRIORITY": ("0 to 9, of this program's tasks that have no priority of their own.", "`0`"),
        "RABBITRY_JOB_TTL": ("Of nodes: seconds that jobs and drivers which have ended are listed.", "`604800`"),
        "RABBITRY_JOB_START_TIMEOUT_SECONDS": (
            "Of nodes and dashboards: a job that found no room by then has failed; `RAY_...` does as well.",
            "`900`",
        ),
        "RABBITRY_JOB_STOP_SIGNAL": (
            "Of a node or a job: `SIGINT` instead of `SIGTERM`; `RAY_JOB_STOP_SIGNAL` does as well.",
            "`SIGTERM`",
        ),
        "RABBITRY_JOB_STOP_WAIT_TIME_S": (
            "Of a node or a job: seconds until a job that is to stop is killed; `RAY_JOB_STOP_WAIT_TIME_S` too.",
            "`3`",
        ),
    },
    "Of docker-compose.yml and its image": {
        "RABBITRY_EXTRA_REQUIREMENTS": ("What your tasks import, for pip: `numpy pandas==2.2.*`.", ""),
        "RABBITRY_DASHBOARD_PORT": ("Port of the dashboard on this host.", "`8265`"),
        "RABBITRY_DASHBOARD_MEMORY": ("What its container may take.", "`512m`"),
        "RABBITRY_BUILD_NETWORK": ("`host` where a build cannot reach the package index otherwise.", "`default`"),
    },
    "Of rabbitry's own tests": {
        "RABBITRY_TEST_REDIS_URL": ("A Redis to run the tests on instead of one that they start.", ""),
        "RABBITRY_TEST_AMQP_URL": ("The same for RabbitMQ.", ""),
        "RABBITRY_TEST_STORE": ("`cluster`: tests with RabbitMQ keep results in a Redis Cluster.", ""),
        "RABBITRY_TEST_PASSWORD": ("Password of the containers that `make test` may start. Set for you.", "random"),
        "RABBITRY_CHAOS_LONG": ("`1`: the long form of the chaos tests; `make chaos` sets it.", ""),
        "RABBITRY_CHAOS_SEED": ("Seed of the chaos tests, to repeat what one of them did.", "random"),
        "RABBITRY_ORACLE_PYTHON": ("A Python that has Ray, for `make oracle`, which sets it.", ""),
        "RABBITRY_CHROMIUM": ("Path of the Chromium that `make dashboard-test` drives.", "`/usr/bin/chromium`"),
        "RABBITRY_SCREENSHOTS": ("A directory in which `make dashboard-test` leaves pictures of all pages.", ""),
    },
}
"""Title to variable to (meaning, default)."""

NO_VARIABLES: Final = frozenset({"RABBITRY_EXCEPTION_TYPES"})
"""Names in the source that look like variables of the environment and are none."""
