"""`/metrics`: the figures of a cluster, and what its programs measure, in the form that Prometheus reads.

| figures of | are read from |
|---|---|
| tasks | events: what they are now, and what has ended since the service looked first |
| nodes, worker processes, confirms | the nodes' own records |
| queues, objects, what was put aside | Redis and RabbitMQ (and its management plugin), every `SLOW_SECONDS` |
| programs (`rabbitry.util.metrics`) | the store, where all processes have added up |
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from rabbitry.context import VERSION
from rabbitry.state import tasks as states
from rabbitry.state.cluster import ClusterState
from rabbitry.state.tasks import Attempt, Task
from rabbitry_broker import measures
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.queue_names import amqp_name
from rabbitry_broker.store.measures import read as read_measures
from rabbitry_workers import status
from rabbitry_workers.http.access import Cluster, ClusterAccess
from rabbitry_workers.http.state import shared_state
from rabbitry_workers.management import Management, QueueTold

router = APIRouter()

SLOW_SECONDS: Final = 10.0
FUNCTIONS_AT_MOST: Final = 500
"""So many functions have figures of their own; all others are `other` together."""
OTHER: Final = "other"
SECONDS_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 300, 1800),
)
PROGRAM_PREFIX: Final = "ray_"
_OWN_TAG: Final = "JobId"
_PROCESS_TAG: Final = "WorkerId"


class Figures:
    """What one service knows of its cluster. For one thread at a time.

    Args:
        cluster: which it is.
    """

    def __init__(self, cluster: ClusterAccess) -> None:
        self._cluster = cluster
        url = cluster.endpoint.broker_url
        self._management = None if url is None else Management(url)
        self._functions: dict[str, str] = {}
        self._slow: tuple[float, dict[str, Any]] = (-math.inf, {})
        self._registry = CollectorRegistry(auto_describe=False)
        self._ended = PrometheusCounter(
            "rabbitry_tasks_ended",
            "Attempts of tasks and calls that have ended since the service looked first.",
            ("function", "state", "error"),
            registry=self._registry,
        )
        self._run = Histogram(
            "rabbitry_task_run_seconds",
            "How long tasks and calls ran.",
            ("function",),
            buckets=SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._wait = Histogram(
            "rabbitry_task_wait_seconds",
            "How long tasks and calls waited from being sent to their beginning.",
            ("function",),
            buckets=SECONDS_BUCKETS,
            registry=self._registry,
        )

    def learn(self, ended: Iterable[tuple[Task, Attempt]]) -> None:
        """Take into account what has ended."""
        for task, attempt in ended:
            name = self._function(task)
            self._ended.labels(name, attempt.state, attempt.error).inc()
            if attempt.started and attempt.ended:
                self._run.labels(name).observe(max(0.0, attempt.ended - attempt.started))
                since = task.created if attempt.number == 0 else attempt.queued
                if since:
                    self._wait.labels(name).observe(max(0.0, attempt.started - since))

    def text(self, state: ClusterState) -> bytes:
        """Return all figures.

        Raises:
            ConnectError: the store cannot be reached.
            ConnectionLost: it does not answer.
        """
        families = list(self._families(state))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(families))
        return generate_latest(self._registry) + generate_latest(registry)

    def _function(self, task: Task) -> str:
        name = task.header.name if task.header is not None else OTHER
        known = self._functions.get(name)
        if known is None:
            known = name if len(self._functions) < FUNCTIONS_AT_MOST else OTHER
            if known == name:
                self._functions[name] = name
        return known

    def _families(self, state: ClusterState) -> Iterator[Metric]:
        began = time.perf_counter()
        state.source.call(b"PING")
        ping = time.perf_counter() - began
        info = InfoMetricFamily("rabbitry", "The service that tells these figures.")
        info.add_metric((), {"version": VERSION})
        yield info
        yield _gauge("rabbitry_redis_round_trip_seconds", "How long Redis took to answer this service.", [((), ping)])
        yield from self._of_tasks(state)
        yield from self._of_nodes(state)
        yield from self._of_servers(state)
        yield from _of_programs(state)

    def _of_tasks(self, state: ClusterState) -> Iterator[Metric]:
        rows, _ = state.tasks(lambda row: row["state"] not in states.ENDS, unfinished_only=True)
        now = Counter((self._functions.get(row["name"], OTHER), row["state"]) for row in rows)
        yield _gauge(
            "rabbitry_tasks",
            "Tasks and calls that have not ended, by what they do.",
            [(key, count) for key, count in now.items()],
            ("function", "state"),
        )
        actors = Counter((row["class_name"][:100], row["state"]) for row in state.actors())
        yield _gauge("rabbitry_actors", "Actors.", [(key, count) for key, count in actors.items()], ("class", "state"))
        jobs = Counter((row["type"], row["status"]) for row in state.jobs())
        yield _gauge("rabbitry_jobs", "Jobs.", [(key, count) for key, count in jobs.items()], ("type", "status"))
        groups = Counter((row["state"],) for row in state.placement_groups())
        yield _gauge("rabbitry_placement_groups", "Placement groups.", list(groups.items()), ("state",))
        yield _counter(
            "rabbitry_events_dropped",
            "Tasks of which an event was dropped, there being no room, as far as events tell.",
            [((), state.log.dropped)],
        )

    @staticmethod
    def _of_nodes(state: ClusterState) -> Iterator[Metric]:
        nodes = state.node_records()
        by_state = Counter(("alive" if node["alive"] else "dead",) for node in nodes)
        yield _gauge("rabbitry_nodes", "Nodes on record.", list(by_state.items()), ("state",))
        alive = [(str(node["name"]), node["id"].hex(), node) for node in nodes if node["alive"]]
        labels = ("node", "node_id")
        totals, free, executors, waiting, actors, trips, unconfirmed = ([] for _ in range(7))
        confirmed, dropped, memory, sent, sent_bytes = ([] for _ in range(5))
        for name, node_id, node in alive:
            figures = node.get("figures", {})
            who = (name, node_id)
            totals += [((*who, resource), amount) for resource, amount in node["totals"].items()]
            free += [((*who, resource), amount) for resource, amount in node["available"].items()]
            executors += [((*who, each), count) for each, count in figures.get("executors", {}).items()]
            waiting.append((who, figures.get("waiting", 0)))
            actors.append((who, figures.get("actors", 0)))
            trips.append((who, figures.get("round_trip", 0.0)))
            unconfirmed.append((who, figures.get("unconfirmed", 0)))
            confirmed.append((who, figures.get("confirmed", 0)))
            dropped.append((who, figures.get("events_dropped", 0)))
            sent.append((who, figures.get("values_sent", 0)))
            sent_bytes.append((who, figures.get("value_bytes_sent", 0)))
            capacity, left = node["objects"]
            memory += [((*who, "used"), capacity - left), ((*who, "free"), left)]
        yield _gauge("rabbitry_node_resources", "What nodes have.", totals, (*labels, "resource"))
        yield _gauge("rabbitry_node_resources_available", "What of that is free.", free, (*labels, "resource"))
        yield _gauge("rabbitry_workers", "Worker processes of nodes.", executors, (*labels, "state"))
        yield _gauge("rabbitry_node_tasks_waiting", "Tasks that wait on nodes for room.", waiting, labels)
        yield _gauge("rabbitry_node_actors", "Actors that nodes host.", actors, labels)
        yield _gauge(
            "rabbitry_node_redis_round_trip_seconds", "How long Redis takes to answer nodes, at best.", trips, labels
        )
        yield _gauge(
            "rabbitry_node_unconfirmed_messages",
            "Messages of nodes that RabbitMQ has not confirmed.",
            unconfirmed,
            labels,
        )
        yield _counter(
            "rabbitry_node_confirmed_messages", "Messages of nodes that RabbitMQ has confirmed.", confirmed, labels
        )
        yield _counter("rabbitry_node_events_dropped", "Tasks of which a node has dropped an event.", dropped, labels)
        yield _gauge(
            "rabbitry_object_memory_bytes",
            "Shared memory for objects, on the nodes' hosts.",
            memory,
            (*labels, "state"),
        )
        yield _counter("rabbitry_node_values_sent", "Large values that nodes sent to other hosts.", sent, labels)
        yield _counter("rabbitry_node_value_bytes_sent", "Bytes of them.", sent_bytes, labels)
        yield from _of_machines(alive)

    def _of_servers(self, state: ClusterState) -> Iterator[Metric]:
        at, facts = self._slow
        if time.monotonic() - at >= SLOW_SECONDS:
            facts = self._look(state)
            self._slow = (time.monotonic(), facts)
        depths = [((queue,), depth) for queue, depth in facts["queues"].items() if depth is not None]
        yield _gauge(
            "rabbitry_queue_messages", "Messages that wait in queues; each holds a batch of tasks.", depths, ("queue",)
        )
        yield from _of_queues(facts["told"])
        yield _counter("rabbitry_put_aside", "What could not be read, and was put aside.", [((), facts["put_aside"])])
        yield _gauge(
            "rabbitry_clients", "Drivers, worker processes and others that hold objects.", [((), facts["clients"])]
        )
        yield _gauge("rabbitry_objects", "Objects in the store.", [((), facts["objects"])])
        for name, what in (("used_memory", "Memory that Redis uses."), ("maxmemory", "Its limit; 0 for none.")):
            yield _gauge(f"rabbitry_redis_{name}_bytes", what, [((), facts[name])])
        yield _gauge("rabbitry_events_bytes", "What events take in Redis.", [((), facts["events"])])

    def _look(self, state: ClusterState) -> dict[str, Any]:
        told = status.collect(self._cluster.endpoint, timeout=self._cluster.timeout)
        memory = state.source.call(b"INFO", b"memory")
        lines = dict(line.split(b":", 1) for line in memory.splitlines() if b":" in line)
        return {
            "queues": told["queues"],
            "told": self._told_of(told["queues"]),
            "put_aside": told["put_aside"]["count"],
            "clients": told["clients"],
            "objects": state.count_objects(),
            "used_memory": int(lines.get(b"used_memory", 0)),
            "maxmemory": int(lines.get(b"maxmemory", 0)),
            "events": state.events_bytes(),
        }

    def _told_of(self, queues: Iterable[str]) -> dict[str, QueueTold]:
        """Return what RabbitMQ's management plugin tells of queues; nothing without one."""
        told = None if self._management is None else self._management.ask()
        if told is None:
            return {}
        by_name = {queue: amqp_name(self._cluster.endpoint.prefix, queue) for queue in queues}
        return {queue: told.queues[name] for queue, name in by_name.items() if name in told.queues}


class _Collected:
    """What was collected already, as prometheus-client wants it."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return it."""
        return self._families


def _of_queues(told: Mapping[str, QueueTold]) -> Iterator[Metric]:
    """Yield what RabbitMQ's management plugin tells of queues."""
    of = told.items()
    labels = ("queue",)
    held = [((queue,), each.unsettled) for queue, each in of if each.unsettled is not None]
    takers = [((queue,), each.consumers) for queue, each in of if each.consumers is not None]
    yield _gauge("rabbitry_queue_unsettled_messages", "Messages that nodes hold, not settled yet.", held, labels)
    yield _gauge("rabbitry_queue_consumers", "Nodes that take from a queue.", takers, labels)
    yield _counter(
        "rabbitry_queue_published_messages",
        "Messages that came into a queue since it was made.",
        [((queue,), each.published) for queue, each in of],
        labels,
    )
    yield _counter(
        "rabbitry_queue_delivered_messages",
        "Messages that went out of a queue since it was made.",
        [((queue,), each.delivered) for queue, each in of],
        labels,
    )


def _of_machines(alive: Iterable[tuple[str, str, dict[str, Any]]]) -> Iterator[Metric]:
    """Yield what nodes tell of their machines. Two nodes of one machine tell the same."""
    labels = ("node", "node_id")
    busy, memory, gpus, gpu_memory = ([] for _ in range(4))
    for name, node_id, node in alive:
        share, used, total = node.get("load") or (-1.0, 0, 0)
        if share >= 0:  # nothing is known before the second look
            busy.append(((name, node_id), share))
        if total:
            memory += [((name, node_id, "used"), used), ((name, node_id, "free"), total - used)]
        for gpu, in_use, taken, whole in node.get("figures", {}).get("gpus", ()):
            if in_use is not None:
                gpus.append(((name, node_id, gpu), in_use))
            if taken is not None and whole is not None:
                gpu_memory += [((name, node_id, gpu, "used"), taken), ((name, node_id, gpu, "free"), whole - taken)]
    yield _gauge("rabbitry_machine_processors_busy", "Share of the machines' processors in use, 0 to 1.", busy, labels)
    yield _gauge("rabbitry_machine_memory_bytes", "Memory of the machines.", memory, (*labels, "state"))
    yield _gauge("rabbitry_gpu_busy", "Share of the time in which GPUs were in use, 0 to 1.", gpus, (*labels, "gpu"))
    yield _gauge("rabbitry_gpu_memory_bytes", "Memory of the GPUs.", gpu_memory, (*labels, "gpu", "state"))


def _gauge(name: str, what: str, values: Iterable[tuple[Any, float]], labels: tuple[str, ...] = ()) -> Metric:
    family = GaugeMetricFamily(name, what, labels=labels)
    for key, value in values:
        family.add_metric([str(each) for each in key], value)
    return family


def _counter(name: str, what: str, values: Iterable[tuple[Any, float]], labels: tuple[str, ...] = ()) -> Metric:
    family = CounterMetricFamily(name, what, labels=labels)
    for key, value in values:
        family.add_metric([str(each) for each in key], value)
    return family


def _of_programs(state: ClusterState) -> Iterator[Metric]:
    """Yield what programs measure. One name may have one kind only: of several jobs that differ the first counts."""
    about: dict[str, tuple[str, str, list[float]]] = {}
    found: dict[str, list[tuple[dict[str, str], int, float]]] = {}
    gone = state.dead_clients()
    for job, fields in read_measures(state.source, state.keys):
        read = [(measures.read_field(field), value) for field, value in fields.items()]
        for series, value in read:
            if series is not None and series[0] == measures.ABOUT:
                told = measures.read_about(value)
                if told is not None:
                    about.setdefault(series[1], told)
        for series, value in read:
            if series is None or series[0] == measures.ABOUT or about.get(series[1], ("",))[0] != series[0]:
                continue
            kind, name, part, tags, process = series
            number = _number(value)
            if number is None or (kind == measures.GAUGE and gone(process)):
                continue
            named = dict(zip(tags[::2], tags[1::2], strict=True))
            named[_OWN_TAG] = job.decode()
            if kind == measures.GAUGE:
                named[_PROCESS_TAG] = process.hex()
            found.setdefault(name, []).append((named, part, number))
    for name, series_of in found.items():
        kind, description, boundaries = about[name]
        keys = tuple(sorted({key for tags, _, _ in series_of for key in tags}))
        yield _family(PROGRAM_PREFIX + name, kind, description, boundaries, keys, series_of)


def _family(
    name: str,
    kind: str,
    description: str,
    boundaries: list[float],
    keys: tuple[str, ...],
    series_of: list[tuple[dict[str, str], int, float]],
) -> Metric:
    if kind != measures.HISTOGRAM:
        make = _counter if kind == measures.COUNTER else _gauge
        values = [([tags.get(key, "") for key in keys], value) for tags, _, value in series_of]
        return make(name.removesuffix("_total"), description, values, keys)
    family = HistogramMetricFamily(name, description, labels=keys)
    by_tags: dict[tuple[str, ...], dict[int, float]] = {}
    for tags, part, value in series_of:
        by_tags.setdefault(tuple(tags.get(key, "") for key in keys), {})[part] = value
    for labels, parts in by_tags.items():
        count = 0.0
        buckets = []
        for at, bound in enumerate([*boundaries, math.inf]):
            count += parts.get(at, 0.0)
            buckets.append(("+Inf" if bound == math.inf else repr(float(bound)), count))
        family.add_metric(list(labels), buckets, parts.get(measures.SUM, 0.0))
    return family


def _number(value: bytes) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


_made: Final = threading.Lock()


def _figures(request: Request, cluster: ClusterAccess) -> Figures:
    with _made:
        found: Figures | None = getattr(request.app.state, "figures", None)
        if found is None:
            shared = shared_state(request, cluster)
            found = request.app.state.figures = Figures(cluster)
            shared.on_ended.append(found.learn)
        return found


@router.get("/metrics")
def metrics(request: Request, cluster: Cluster) -> Response:
    """Return the figures, as Prometheus reads them."""
    figures = _figures(request, cluster)
    try:
        with shared_state(request, cluster).reading() as state:
            text = figures.text(state)
    except RabbitryBrokerError as error:
        return Response(f"The cluster cannot be read: {error}", 503, media_type="text/plain")
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/api/prometheus/sd")
def service_discovery(request: Request) -> list[dict[str, Any]]:
    """Return where Prometheus finds figures: this service has those of all nodes."""
    host = request.headers.get("host", "")
    return [{"targets": [host], "labels": {"job": "rabbitry", "__metrics_path__": "/metrics"}}]
