"""`make scale`: a short form of it on real servers, and what its model makes of figures."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks import scale, scale_model
from benchmarks.scale_model import Costs, Load, ceiling, line, most_nodes, spends
from benchmarks.scale_processes import PARTS, Look, below, processor_time, spent
from tests.servers import RabbitMQServer, RedisServer


def figures(nodes: int, *, grows: float = 0.0) -> dict[str, Any]:
    """What would be measured where Redis spends 100 us a second by itself and 50 for each node, and so on."""
    idle = dict.fromkeys(PARTS, 100.0 / nodes + 50.0 + grows * nodes)
    rate = 40.0 * nodes
    busy = {part: 200.0 + idle[part] * nodes / rate for part in PARTS}
    shared = {"commands": 3.0, "calls": {}, "seconds": 10.0}
    return {
        "idle": {"us": idle, "rate": float(nodes), **shared},
        "sleep": {"us": busy, "rate": rate, "efficiency": 0.4, **shared},
    }


def test_the_model_finds_what_each_part_spends():
    costs = scale.costs_of({1: figures(1), 40: figures(40)})
    assert costs.base["redis"] == pytest.approx(100.0)
    assert costs.idle["redis"] == pytest.approx(50.0)
    assert costs.task["redis"] == pytest.approx(200.0)
    assert spends(costs, Load(10, tasks=100.0), "redis") == pytest.approx((100 + 10 * 50 + 100 * 200) / 1e6)


def test_a_cost_that_grows_with_the_number_of_nodes_shows_as_an_error_of_the_model():
    right = scale.report({nodes: figures(nodes) for nodes in (1, 10, 40)})
    assert {row.split()[-2] for row in right.splitlines() if " said, " in row} <= {"+0", "-0"}
    wrong = scale.report({nodes: figures(nodes, grows=10.0) for nodes in (1, 10, 40)})
    assert any(int(row.split()[-2]) > 50 for row in wrong.splitlines() if "10 nodes, idle  redis" in row)


def test_more_nodes_leave_less_room_for_work_until_there_is_none():
    costs = Costs(
        base={}, idle={"redis": 100.0, "rabbitmq": 10.0}, task={"redis": 50.0, "rabbitmq": 900.0}, short={}, call={}
    )
    cores = {"redis": 1.0, "rabbitmq": 8.0}
    assert ceiling(costs, 10, cores)[1] == "rabbitmq"
    rates = [ceiling(costs, nodes, cores)[0] for nodes in (10, 1000, 7000, 10_000)]
    assert rates == sorted(rates, reverse=True)
    assert ceiling(costs, 10_000, cores) == (0.0, "redis")
    nodes, server = most_nodes(costs, cores, task_seconds=1e12)
    assert (nodes, server) == (pytest.approx(8000, abs=1), "redis")


def test_a_line_through_two_numbers_of_nodes_never_goes_below_nothing():
    assert line({1: {"redis": 50.0}, 11: {"redis": 40.0}}) == ({"redis": 50.0}, {"redis": 0.0})
    assert line({1: {"redis": 10.0}, 11: {"redis": 210.0}}) == ({"redis": 0.0}, {"redis": 20.0})


def test_what_was_spent_counts_new_processes_and_forgets_those_that_ended():
    before = Look({1: 1.0, 2: 5.0}, {1: "node", 2: "executor"}, {"get": 2, "set": 1})
    after = Look({1: 1.5, 3: 0.25}, {1: "node", 3: "executor"}, {"get": 5, "set": 1})
    found = spent(before, after)
    assert (found.seconds["node"], found.seconds["executor"]) == (0.5, 0.25)
    assert found.calls == {"get": 3}
    assert below(1, {1: [2], 2: [3, 4]}) == [2, 3, 4]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processor_time_is_of_the_process():
    before = processor_time(os.getpid())
    while processor_time(os.getpid()) < before + 0.01:
        pass
    assert processor_time(2**22 + 1) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_everything_is_measured_on_a_real_cluster(redis_server: RedisServer, rabbitmq_server: RabbitMQServer):
    if not (redis_server.running and rabbitmq_server.running):
        pytest.skip("servers that run elsewhere have no processes here")
    vhost = f"scale-{secrets.token_hex(4)}"
    amounts = scale.Amounts(quick=True)
    amounts.settle, amounts.idle, amounts.sleeps, amounts.empty, amounts.calls, amounts.actors = (
        0.2,
        1.5,
        10,
        100,
        100,
        2,
    )
    servers = scale.Servers(rabbitmq_server.add_vhost(vhost), rabbitmq_server.pid, redis_server.url, redis_server.pid)
    try:
        with ExitStack() as stack:
            scene = scale.Scene(stack, servers, 2, amounts)
            found = {name: work(scene) for name, work in scale.WORK.items()}
    finally:
        rabbitmq_server.delete_vhost(vhost)
    for name, each in found.items():
        for part in ("redis", "rabbitmq", "node"):
            assert each["us"][part] > 0, (name, part)
        assert each["commands"] > 0
    assert found["sleep"]["us"]["executor"] > 0
    assert 0 < found["sleep"]["efficiency"] <= 1
    assert found["actors"]["kib"]["executor"] > 0
    text = scale.report({2: found})
    assert all(f"\n{name}: " in text for name in scale.WORK)
    assert scale_model.SERVERS[0] in text
