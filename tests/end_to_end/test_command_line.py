"""The command line: status, stop, and errors that say what to do."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster import check_cluster, delete_cluster
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError, RabbitryBrokerError
from rabbitry_broker.messages import encode
from rabbitry_broker.shared_memory import SharedMemoryStore
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.host import host_id, shared_session
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.store import ObjectStore
from tests.end_to_end.conftest import node_environment
from tests.end_to_end.where_work_runs import hold, where
from tests.servers import RabbitMQServer, RedisServer, free_port, wait_until


def here(node_id: str, function: Any) -> Any:
    return function.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rabbitry_workers", *arguments],
        env={**node_environment(), **variables},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_status_shows_the_cluster_and_stop_ends_a_node(start_cluster, tmp_path):
    cluster = start_cluster({"num_cpus": 1, "name": "alpha"}, {"num_cpus": 1, "name": "beta"})
    alpha, beta = cluster.list_all_nodes()
    held = here(alpha.node_id, hold).remote(str(tmp_path), "alpha")
    refs = []
    for _ in range(100):  # in messages of their own: more than a node that is busy takes
        refs.append(here(alpha.node_id, where).remote())
        current.client().outbox.flush()
    wait_until((tmp_path / "alpha-began").exists, "the node is busy")

    def shown() -> dict[str, Any]:
        return dict(json.loads(command("status", "--json", "--address", cluster.address).stdout))

    wait_until(lambda: shown()["nodes"][0]["used"]["CPU"] == 1, "the CPU is shown as used")
    status = shown()
    assert [(node["name"], node["state"]) for node in status["nodes"]] == [("alpha", "alive"), ("beta", "alive")]
    assert status["nodes"][0]["id"] == alpha.node_id
    assert status["queues"][f"node.{alpha.node_id}"] > 0
    assert status["clients"] == 1
    assert status["put_aside"] == {"count": 0, "last_reasons": []}
    text = command("status", "--address", cluster.address).stdout
    assert "CPU 1/1" in text
    assert alpha.node_id[:8] in text

    assert command("stop", "--address", cluster.address, "gamma").returncode == 1
    stopped = command("stop", "--address", cluster.address, "beta")
    assert beta.node_id[:8] in stopped.stdout
    wait_until(lambda: not beta.alive(), "the node has left")
    (tmp_path / "go").touch()
    assert set(rabbitry.get([held, *refs], timeout=20)) == {alpha.node_id}


@pytest.mark.long
def test_status_counts_what_was_put_aside(start_cluster):
    from rabbitry_broker import cluster_file
    from rabbitry_broker.queues import open_publisher

    cluster = start_cluster({"num_cpus": 1})
    rabbitry.get(where.remote(), timeout=10)
    publisher = open_publisher(cluster_file.read(cluster.address).endpoint)
    publisher.publish("task.CPU=1", b"W1 is no message of ours")
    publisher.flush(5.0)
    publisher.close()
    wait_until(
        lambda: json.loads(command("status", "--json", "--address", cluster.address).stdout)["put_aside"]["count"] == 1,
        "the message is put aside",
    )
    text = command("status", "--address", cluster.address).stdout
    assert "put aside: 1" in text
    assert "task.CPU=1" in text
    assert rabbitry.get(where.remote(), timeout=10)


# -- joining ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def variables(redis_server: RedisServer, rabbitmq_server: RabbitMQServer) -> Iterator[dict[str, str]]:
    """What names a cluster of this test's own, which is wiped at the end."""
    found = {
        "RABBITRY_BROKER_URL": rabbitmq_server.url,
        "RABBITRY_STORE_URL": redis_server.url,
        "RABBITRY_SECRET": secrets.token_hex(16),
        "RABBITRY_PREFIX": f"line-{secrets.token_hex(4)}:",
    }
    yield found
    delete_cluster(_endpoint(found))


def _endpoint(variables: dict[str, str]) -> Endpoint:
    return Endpoint(
        variables["RABBITRY_STORE_URL"],
        variables["RABBITRY_BROKER_URL"],
        (variables["RABBITRY_SECRET"].encode(),),
        variables["RABBITRY_PREFIX"],
    )


def joins(variables: dict[str, str]) -> bool:
    """Return True if the servers let us in: `status` then says that there is no node."""
    told = command("status", **variables)
    return told.returncode == 3 and "nodes: 0" in told.stdout and "no node is alive" in told.stderr


def _refusal(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a node and a driver are told, which must be the same: one line, no traceback, no password."""
    result = command("start", "--num-cpus", "1", **variables)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((ConnectError, RabbitryBrokerError)) as caught:
        rabbitry.init(address="auto")
    assert not rabbitry.is_initialized()
    assert line == f"rabbitry: {caught.value}"
    for url in (variables["RABBITRY_BROKER_URL"], variables["RABBITRY_STORE_URL"]):
        password = urlsplit(url).password
        assert not password or password not in line
    assert variables["RABBITRY_SECRET"] not in line
    return line


@pytest.mark.parametrize("name", ["RABBITRY_BROKER_URL", "RABBITRY_STORE_URL"])
def test_a_server_that_is_not_there_is_named(variables, monkeypatch, name):
    variables = {**variables, name: variables[name].replace(f":{urlsplit(variables[name]).port}", f":{free_port()}")}
    assert "nothing is listening there" in _refusal(variables, monkeypatch)


def test_a_wrong_password_for_rabbitmq_is_told(variables, monkeypatch):
    password = urlsplit(variables["RABBITRY_BROKER_URL"]).password
    assert password is not None
    variables = {**variables, "RABBITRY_BROKER_URL": variables["RABBITRY_BROKER_URL"].replace(password, "not-the-one")}
    assert "wrong user name or password" in _refusal(variables, monkeypatch)


def test_a_wrong_password_for_redis_is_told(variables, monkeypatch, start_redis):
    server = start_redis(password="the-right-one")
    variables = {**variables, "RABBITRY_STORE_URL": f"redis://:not-the-one@127.0.0.1:{server.port}/0"}
    assert "wrong user name or password" in _refusal(variables, monkeypatch)


@pytest.mark.long
def test_another_secret_is_told(variables, monkeypatch):
    assert joins(variables)
    assert "has another secret" in _refusal({**variables, "RABBITRY_SECRET": secrets.token_hex(16)}, monkeypatch)


def _leave_mark(variables: dict[str, str], mark: dict[str, Any], *, living: bool) -> None:
    endpoint = _endpoint(variables)
    keys, signer = Keys.of(endpoint), Signer(endpoint.secrets)
    connection = Connection.open(endpoint)
    connection.call(b"SET", keys.cluster, signer.seal(b"cluster", encode(mark)))
    if living:
        connection.call(b"ZADD", keys.clients, 2**40, b"somebody")
        connection.call(b"SET", keys.client(b"somebody"), b"1")
    connection.close()


def test_another_python_is_told(variables, monkeypatch):
    _leave_mark(variables, {"python": [3, 9], "wire": 1}, living=True)
    assert "runs Python 3.9" in _refusal(variables, monkeypatch)


def test_another_wire_version_is_told(variables, monkeypatch):
    _leave_mark(variables, {"python": list(sys.version_info[:2]), "wire": 99}, living=True)
    assert "wire version 99" in _refusal(variables, monkeypatch)


def test_a_deserted_cluster_may_be_upgraded(variables):
    _leave_mark(variables, {"python": [3, 9], "wire": 1}, living=False)
    assert joins(variables)


@pytest.fixture
def alike(variables: dict[str, str], start_redis: Callable[..., RedisServer]) -> tuple[Endpoint, Endpoint]:
    """Two clusters with the same secret and prefix on one host, each with a Redis of its own."""
    return _endpoint(variables), _endpoint({**variables, "RABBITRY_STORE_URL": start_redis().url})


def test_the_mark_tells_clusters_apart_that_have_the_same_secret_and_prefix(alike):
    one, other = alike
    first = check_cluster(one)
    assert first.cluster_id
    assert check_cluster(one) == first
    assert check_cluster(other).cluster_id not in ("", first.cluster_id)


def test_an_upgrade_leaves_the_cluster_its_id(variables):
    _leave_mark(variables, {"python": [3, 9], "wire": 1, "id": "it"}, living=False)
    assert check_cluster(_endpoint(variables)).cluster_id == "it"
    assert check_cluster(_endpoint(variables)).cluster_id == "it"
    _leave_mark(variables, {"python": list(sys.version_info[:2]), "wire": 1}, living=True)
    assert check_cluster(_endpoint(variables)).cluster_id == "", "its nodes know of none"


def test_nodes_leave_values_alone_that_another_cluster_with_the_same_secret_has(variables, monkeypatch, alike):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    rabbitry.init(address="auto")
    ref = rabbitry.put(np.arange(100_000))
    memory = SharedMemoryStore(current.client().session)
    names = memory.names()
    assert names, "the value is in shared memory"
    _, other = alike
    session = shared_session(other, check_cluster(other).cluster_id)
    store = ObjectStore(other, Signer(other.secrets), session=session, host=host_id())
    assert store.large.sweep() == 0, "as its nodes do every few seconds"
    store.close()
    assert memory.names() == names
    memory.close()
    assert rabbitry.get(ref)[-1] == 99_999
    rabbitry.shutdown()


@pytest.mark.long
def test_a_secret_can_be_replaced(variables):
    """First all get the new one beside the old one, then the old one goes."""
    assert joins(variables)
    old, new = variables["RABBITRY_SECRET"], secrets.token_hex(16)
    variables["RABBITRY_SECRET"] = f"{new},{old}"
    assert joins(variables)
    variables["RABBITRY_SECRET"] = new
    assert joins(variables)


def test_missing_settings_are_listed(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "rabbitry_workers", "start"],
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 1
    assert "RABBITRY_BROKER_URL" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--resources", "{"), "not JSON"),
        (("--resources", '{"license": "two"}'), "not an object of numbers"),
        (("--labels", "zone"), "not key=value"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments, told):
    result = command("start", *arguments)
    assert result.returncode == 2
    assert told in result.stderr


@pytest.mark.parametrize("arguments", [("--labels", "zone=-"), ("--resources", '{"CPU": 1}'), ("--num-cpus", "-1")])
def test_impossible_resources_and_labels_are_explained(variables, arguments):
    result = command("start", *arguments, **variables)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert arguments[1].strip('{}"').split('"')[0].partition("=")[0] in result.stderr


def test_a_node_reads_its_env_file_and_leaves_at_ctrl_c(variables, tmp_path):
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    with open(tmp_path / "log", "w") as log:
        node = subprocess.Popen(
            [sys.executable, "-m", "rabbitry_workers", "start", "--num-cpus", "1", "--name", "from-file"],
            env=node_environment(),
            cwd=tmp_path,
            stderr=log,
        )
    try:
        wait_until(lambda: "takes work" in (tmp_path / "log").read_text(), "the node takes work", 20.0)
        status = json.loads(command("status", "--json", **variables).stdout)
        assert [each["name"] for each in status["nodes"]] == ["from-file"]
        node.send_signal(signal.SIGINT)
        assert node.wait(15) == 0
        assert "has left" in (tmp_path / "log").read_text()
    finally:
        node.kill()
        node.wait()
