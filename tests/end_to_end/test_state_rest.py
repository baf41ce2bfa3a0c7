"""The state API over HTTP, on both engines: paths and forms of Ray's dashboard, and our own client of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

import rabbitry
from rabbitry.state.rest import Service
from rabbitry.state.schemas import ActorState, NodeState, TaskState
from rabbitry_workers.http import state
from rabbitry_workers.http.access import ClusterAccess
from rabbitry_workers.http.app import make_app
from rabbitry_workers.joining import find_cluster
from tests.end_to_end.looking import add, wait_for_state, wait_until


@pytest.fixture
def service(session: str) -> Iterator[TestClient]:
    cluster = ClusterAccess(find_cluster(None, None, None, newest=True))
    app = make_app(cluster, [state.router], token=None, hosts=("testserver",))
    with TestClient(app) as client:
        yield client


def ask(service: TestClient, path: str, **parameters: Any) -> Any:
    reply = service.get(f"/api/v0/{path}", params=parameters)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert answer["result"] is True
    return answer["data"]["result"]


def test_tasks_are_listed_in_the_form_that_clients_of_ray_read(service: TestClient):
    ref = add.options(name="by http").remote(1, 2)
    assert rabbitry.get(ref, timeout=20) == 3
    wait_for_state(ref, "FINISHED")
    filters = {
        "filter_keys": ["name", "state"],
        "filter_predicates": ["=", "="],
        "filter_values": ["by http", "FINISHED"],
    }
    found = ask(service, "tasks", detail=True, limit=5, **filters)
    assert (found["total"] >= 1, found["num_filtered"], found["partial_failure_warning"]) == (True, 1, "")
    (row,) = found["result"]
    assert row["task_id"] == ref.task_id().hex()
    assert set(row) == set(TaskState.list_columns()) - {"pending_reason"}  # Ray's client refuses what it does not know
    assert "pending_reason" in ask(service, "tasks", detail=True, own_columns=True)["result"][0]
    (short,) = ask(service, "tasks", **filters)["result"]
    assert set(short) == TaskState.base_columns()


def test_every_kind_is_listed(service: TestClient):
    ref = rabbitry.put(bytes(200_000))
    nodes = ask(service, "nodes", detail=True)["result"]
    assert [set(row) for row in nodes] == [set(NodeState.list_columns())]
    for kind in ("actors", "jobs", "workers", "runtime_envs", "placement_groups", "cluster_events"):
        assert isinstance(ask(service, kind)["result"], list), kind
    assert ref.hex() in {row["object_id"] for row in ask(service, "objects", limit=1000)["result"]}
    for kind in ("tasks", "actors", "objects"):
        assert "summary" in ask(service, f"{kind}/summarize")["result"]["node_id_to_summary"]["cluster"]
    assert (
        ask(service, "tasks/summarize", summary_by="lineage")["result"]["node_id_to_summary"]["cluster"]["summary_by"]
        == "lineage"
    )
    assert ActorState.filterable_columns() >= {"actor_id", "state"}


def test_nonsense_is_refused_with_a_reason(service: TestClient):
    for path, why in (
        ("tasks?limit=many", "limit='many' is not a whole number"),
        ("tasks?limit=100000000", "no answer has more"),
        ("tasks?filter_keys=state", "there are not as many of each"),
        ("tasks?filter_keys=colour&filter_predicates==&filter_values=red", "colour is not supported"),
        ("tasks/summarize?summary_by=moon", "summary_by"),
    ):
        reply = service.get(f"/api/v0/{path}")
        assert (reply.status_code, reply.json()["result"]) == (400, False)
        assert why in reply.json()["msg"]


def test_the_timeline_comes_as_a_file(service: TestClient):
    rabbitry.get(add.remote(1, 2), timeout=20)
    reply = service.get("/api/v0/tasks/timeline", params={"download": "1"})
    assert "attachment" in reply.headers["content-disposition"]
    assert isinstance(reply.json(), list)
    assert service.get("/api/v0/tasks/timeline", params={"job_id": "00000000"}).json() == []


def test_a_service_that_is_not_there_is_told():
    from rabbitry.state.errors import ServerUnavailable

    with pytest.raises(ServerUnavailable, match="cannot be reached"):
        Service("http://127.0.0.1:1").get("/api/v0/tasks", {}, 2.0)


def test_logs_come_by_the_name_and_by_the_task(service: TestClient):
    @rabbitry.remote(num_cpus=0.1)
    def speak() -> None:
        print("words over http")

    ref = speak.remote()
    rabbitry.get(ref, timeout=20)
    wanted = {"task_id": ref.task_id().hex()}

    def words() -> str:
        return service.get("/api/v0/logs/file", params=wanted).text

    wait_until(lambda: "words over http" in words(), 10, words)
    node = ask(service, "nodes")["result"][0]["node_id"]
    names = [name for each in ask(service, "logs", node_id=node).values() for name in each]
    assert any(
        "words over http" in service.get("/api/v0/logs/file", params={"node_id": node, "filename": name}).text
        for name in names
    )
    assert service.get("/api/v0/logs/file").status_code == 400
    assert service.get("/api/v0/logs/file", params={"task_id": "00" * 24}).status_code == 500
    assert service.get("/api/v0/logs", params={"node_id": "00" * 28}).status_code == 500
