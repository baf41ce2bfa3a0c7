"""`/metrics` and `rabbitry.util.metrics`, on both engines: what Prometheus would read."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

import rabbitry
from rabbitry.util.metrics import Counter, Gauge, Histogram
from rabbitry_workers.http import metrics
from rabbitry_workers.http.access import ClusterAccess
from rabbitry_workers.http.app import make_app
from rabbitry_workers.joining import find_cluster
from tests.end_to_end.looking import add, wait_until


@rabbitry.remote(num_cpus=0.1, max_calls=1)
def count_once(counter: Counter, gauge: Gauge) -> None:
    counter.inc(2, tags={"where": "task"})
    gauge.set(7)


@rabbitry.remote(num_cpus=0.1)
class Measuring:
    def __init__(self) -> None:
        self.counter = Counter("handled", "What was handled.", ("where",)).set_default_tags({"where": "actor"})
        self.gauge = Gauge("level", "How high it stands.")
        self.histogram = Histogram("took", "How long it took.", [0.1, 1.0], ("where",))

    def handle(self, seconds: float) -> None:
        self.counter.inc()
        self.gauge.set(seconds)
        self.histogram.observe(seconds, tags={"where": "actor"})


@pytest.fixture
def service(session: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TestClient]:
    monkeypatch.setattr(metrics, "SLOW_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)  # `make up` leaves a .env that names another cluster
    cluster = ClusterAccess(find_cluster(None, None, None, newest=True))
    with TestClient(make_app(cluster, [metrics.router], token=None, hosts=("testserver",))) as client:
        yield client


def read(service: TestClient) -> dict[str, list[tuple[dict[str, str], float]]]:
    reply = service.get("/metrics")
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/plain")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(reply.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(found: Any, name: str, **labels: str) -> float:
    return sum(each for tags, each in found.get(name, []) if labels.items() <= tags.items())


def test_tasks_nodes_and_servers_have_figures(service: TestClient):
    read(service)
    before = value(read(service), "rabbitry_tasks_ended_total", function="figure", state="FINISHED")
    rabbitry.get([add.options(name="figure").remote(at, 1) for at in range(10)], timeout=20)
    waits = add.options(name="never", num_cpus=1000).remote(1, 2)
    wait_until(
        lambda: value(read(service), "rabbitry_tasks_ended_total", function="figure", state="FINISHED") == before + 10,
        10,
        lambda: read(service),
    )
    wait_until(lambda: value(read(service), "rabbitry_tasks", state="PENDING_NODE_ASSIGNMENT") >= 1, 10, lambda: "")
    for histogram in ("rabbitry_task_run_seconds_count", "rabbitry_task_wait_seconds_count"):
        # How long a task has waited is known when its submission is, too: another process tells of that.
        wait_until(
            lambda name=histogram: value(read(service), name, function="figure") >= 10, 10, lambda: read(service)
        )
    found = read(service)
    assert value(found, "rabbitry_task_run_seconds_bucket", function="figure", le="+Inf") >= 10
    assert value(found, "rabbitry_node_resources", resource="CPU") == 2.0
    assert 0.0 <= value(found, "rabbitry_node_resources_available", resource="CPU") <= 2.0
    assert value(found, "rabbitry_nodes", state="alive") == 1
    assert value(found, "rabbitry_workers") >= 1
    assert 0.0 < value(found, "rabbitry_redis_round_trip_seconds") < 5.0
    assert value(found, "rabbitry_redis_used_memory_bytes") > 0
    assert any("task.CPU=0.1" in tags["queue"] for tags, _ in found["rabbitry_queue_messages"])
    for name in (
        "rabbitry_put_aside_total",
        "rabbitry_node_value_bytes_sent_total",
        "rabbitry_events_dropped_total",
        "rabbitry_objects",
        "rabbitry_clients",
    ):
        assert name in found, sorted(found)
    assert value(found, "rabbitry_object_memory_bytes", state="free") > 0
    rabbitry.cancel(waits)


def test_confirms_of_rabbitmq_are_counted(service: TestClient, session: str):
    first = add.remote(1, 2)
    rabbitry.get(add.remote(first, 2), timeout=20)

    def confirmed() -> bool:
        found = read(service)
        return value(found, "rabbitry_node_confirmed_messages_total") > 0 or session == "embedded"

    @rabbitry.remote(num_cpus=0.1)
    def submits() -> int:
        return int(rabbitry.get(add.remote(1, 2)))  # its node publishes for it

    assert rabbitry.get(submits.remote(), timeout=20) == 3
    wait_until(confirmed, 10, lambda: read(service).get("rabbitry_node_confirmed_messages_total"))
    assert "rabbitry_node_unconfirmed_messages" in read(service)


def test_what_programs_measure_is_added_up_over_all_processes(service: TestClient):
    counter = Counter("handled", "What was handled.", ("where",))
    counter.inc(tags={"where": "driver"})
    actor = Measuring.remote()
    gauge = Gauge("level", "How high it stands.")
    rabbitry.get([count_once.remote(counter, gauge) for _ in range(5)], timeout=30)  # each in a process of its own
    rabbitry.get([actor.handle.remote(seconds) for seconds in (0.05, 0.5, 5.0)], timeout=20)

    def complete() -> bool:
        found = read(service)
        return (
            value(found, "ray_handled_total", where="task") == 10
            and value(found, "ray_handled_total", where="actor") == 3
            and value(found, "ray_handled_total", where="driver") == 1
            and value(found, "ray_took_count") == 3
        )

    wait_until(complete, 15, lambda: {name: each for name, each in read(service).items() if name.startswith("ray_")})
    found = read(service)
    assert [each for _, each in found["ray_level"]] == [5.0]  # gauges of processes that have ended are gone
    assert value(found, "ray_took_bucket", le="0.1") == 1
    assert value(found, "ray_took_bucket", le="1.0") == 2
    assert value(found, "ray_took_bucket", le="+Inf") == 3
    assert value(found, "ray_took_sum") == pytest.approx(5.55)
    assert {tags["JobId"] for tags, _ in found["ray_handled_total"]} == {rabbitry.get_runtime_context().get_job_id()}
    # A crash takes its gauge along.
    rabbitry.kill(actor)
    wait_until(lambda: "ray_level" not in read(service), 15, lambda: read(service)["ray_level"])
    assert value(read(service), "ray_handled_total", where="actor") == 3


def test_series_are_bounded(service: TestClient, monkeypatch: pytest.MonkeyPatch):
    from rabbitry_broker.measures import measures

    there = sum(len(each) for name, each in read(service).items() if name.startswith("ray_"))
    monkeypatch.setenv("RABBITRY_METRICS_SERIES", str(there + 50))
    dropped = measures.dropped
    counter = Counter("many", "Too many.", ("at",))
    for at in range(200):
        counter.inc(tags={"at": str(at)})
    wait_until(lambda: measures.dropped > dropped, 10, lambda: measures.dropped)
    assert len(read(service)["ray_many_total"]) <= 50


def test_metrics_travel_and_refuse_nonsense():
    again = pickle.loads(pickle.dumps(Histogram("h", "d", [1.0], ("a",)).set_default_tags({"a": "b"})))
    assert again.info == {
        "name": "h",
        "description": "d",
        "tag_keys": ("a",),
        "default_tags": {"a": "b"},
        "boundaries": [1.0],
    }
    counter = Counter("c", tag_keys=("a",))
    for wrong, error in (
        (lambda: Counter(""), ValueError),
        (lambda: Counter("c", tag_keys=["a"]), TypeError),
        (lambda: Counter("c", tag_keys=(1,)), TypeError),
        (lambda: counter.set_default_tags({"b": "x"}), ValueError),
        (lambda: counter.set_default_tags({"a": 1}), TypeError),
        (lambda: counter.inc(0, tags={"a": "x"}), ValueError),
        (lambda: counter.inc("1", tags={"a": "x"}), TypeError),
        (lambda: counter.inc(), ValueError),
        (lambda: counter.inc(tags={"a": "x", 1: "y"}), TypeError),
        (lambda: Histogram("h"), ValueError),
        (lambda: Histogram("h", boundaries=[0.0]), ValueError),
        (lambda: Histogram("h", boundaries=[2.0, 1.0]), ValueError),
        (lambda: Gauge("g").set("high"), TypeError),
    ):
        with pytest.raises(error):
            wrong()
    counter.inc(tags={"a": "x", "b": "y"})  # more tags than were named are no error in Ray, either
    with pytest.warns(UserWarning, match="is invalid"):
        Counter("not a name").inc()


def test_a_cluster_that_is_away_is_told(service: TestClient, monkeypatch: pytest.MonkeyPatch):
    from rabbitry_broker.errors import ConnectionLost

    read(service)

    def away(*_: Any) -> Any:
        raise ConnectionLost("gone")

    monkeypatch.setattr("rabbitry_broker.store.reader.Reader.call", away)
    assert service.get("/metrics").status_code == 503
    monkeypatch.undo()
    time.sleep(0)
    assert service.get("/metrics").status_code == 200
