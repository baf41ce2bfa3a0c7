"""What RabbitMQ's management plugin tells, from a server that answers as it does, and from itself."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.queue_names import task_queue
from rabbitry_broker.queues import open_publisher
from rabbitry_workers.http.metrics import _of_queues
from rabbitry_workers.management import AGAIN_SECONDS, Management, QueueTold, Told
from tests.servers import RabbitMQServer, free_port, wait_until

QUEUE = {
    "name": "test:task.CPU=1",
    "messages_ready": 3,
    "messages_unacknowledged": 2,
    "consumers": 1,
    "message_stats": {
        "publish": 40,
        "publish_details": {"rate": 1.5},
        "deliver_get": 35,
        "deliver_get_details": {"rate": 2.0},
    },
}
UNUSED = {"name": "test:task.CPU=2", "messages_ready": 0, "messages_unacknowledged": 0, "consumers": 0}


class Plugin(ThreadingHTTPServer):
    """Answers every path from a table; what is not in it is refused."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Any] = {"queues": [QUEUE, UNUSED], "overview": {"rabbitmq_version": "3.13"}}
        self.asked: list[str] = []
        self.users: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Plugin

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.users.add(base64.b64decode(self.headers["authorization"].split()[1]).decode())
        answer = self.server.answers.get(self.path.split("/")[2].partition("?")[0])
        self.send_response(401 if answer is None else 200)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    plugin = Plugin()
    thread = threading.Thread(target=plugin.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield plugin
    plugin.shutdown()
    thread.join()
    plugin.server_close()


def asking(plugin: Plugin, path: str = "/team%2Fone", clock: Any = lambda: 0.0) -> Management:
    return Management(f"amqp://me:p%40ss@127.0.0.1{path}", port=plugin.server_port, clock=clock)


def test_queues_of_the_virtual_host_are_told(plugin: Plugin) -> None:
    told = asking(plugin).ask()
    assert told is not None and told.overview == {"rabbitmq_version": "3.13"}
    assert told.queues == {
        QUEUE["name"]: QueueTold(3, 2, 1, 40, 35, 1.5, 2.0),
        UNUSED["name"]: QueueTold(0, 0, 0),
    }
    assert plugin.asked[0].startswith("/api/queues/team%2Fone?columns=name,messages_ready,")
    assert plugin.users == {"me:p@ss"}


@pytest.mark.parametrize(("path", "host"), [("", "%2F"), ("/", ""), ("/%2F", "%2F"), ("/a", "a")])
def test_the_virtual_host_is_that_of_the_url(plugin: Plugin, path: str, host: str) -> None:
    asking(plugin, path).ask()
    assert plugin.asked[0].startswith(f"/api/queues/{host}?")


@pytest.mark.parametrize("queues", [None, b"no json", {"error": "not_authorised"}, [7], [{"message_stats": 7}]])
def test_what_does_not_answer_as_it_should_is_left_alone_for_a_while(plugin: Plugin, queues: Any) -> None:
    now = [0.0]
    management = asking(plugin, clock=lambda: now[0])
    right, plugin.answers["queues"] = plugin.answers["queues"], queues
    assert management.ask() is None and f"127.0.0.1:{plugin.server_port}" in management.refusal
    asked = len(plugin.asked)
    now[0] = AGAIN_SECONDS / 2
    assert management.ask() is None and len(plugin.asked) == asked
    now[0] = AGAIN_SECONDS
    plugin.answers["queues"] = right
    assert management.ask() is not None and management.refusal == ""


def test_another_server_of_the_cluster_answers_for_one_that_is_away(plugin: Plugin) -> None:
    address = "amqp://me:pw@127.0.0.2/a,amqp://me:pw@127.0.0.1/a"
    management = Management(address, port=plugin.server_port)
    assert management.ask() is not None and management.ask() is not None and management.refusal == ""
    plugin.answers.clear()
    assert management.ask() is None
    assert "127.0.0.1:" in management.refusal and "127.0.0.2:" in management.refusal


def test_prometheus_reads_it() -> None:
    found = {
        sample.name: sample.value
        for family in _of_queues({"task.CPU=1": QueueTold(3, 2, 1, 40, 35, 1.5, 2.0)})
        for sample in family.samples
    }
    assert found == {
        "rabbitry_queue_unsettled_messages": 2,
        "rabbitry_queue_consumers": 1,
        "rabbitry_queue_published_messages_total": 40,
        "rabbitry_queue_delivered_messages_total": 35,
    }


def test_a_real_plugin_tells_of_queues_and_server(start_rabbitmq: Callable[..., RabbitMQServer]) -> None:
    port = free_port()
    config = {"management.tcp.ip": "127.0.0.1", "management.tcp.port": str(port), "collect_statistics_interval": "200"}
    server = start_rabbitmq(config=config, plugins=["rabbitmq_management"])
    publisher = open_publisher(Endpoint("redis://unused", server.url, prefix="m:"))
    for _ in range(3):
        publisher.publish(task_queue("CPU=1"), b"x")
    assert publisher.flush(25)
    management = Management(server.url, port=port)
    told: list[Told | None] = []

    def told_of_all() -> bool:
        management._ask_again_at = float("-inf")
        told[:] = [management.ask()]
        queue = told[0] and told[0].queues.get("m:task.CPU=1")
        return bool(queue and queue.ready == 3 and queue.published == 3)

    wait_until(told_of_all, "the plugin tells of the queue's messages", 25)
    assert told[0] is not None and management.refusal == ""
    assert told[0].queues["m:task.CPU=1"][:5] == (3, 0, 0, 3, 0)
    assert told[0].overview["rabbitmq_version"] == ".".join(map(str, server.version))
    publisher.close()
