"""From options to headers and queues: see `rabbitry.core.submit.plans`, `placement` and `routes`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rabbitry.core.submit import routes
from rabbitry.core.submit.plan import Line
from rabbitry.core.submit.plans import END_METHOD, retry_code
from rabbitry.options import ActorOptions, MethodOptions, TaskOptions
from rabbitry.scheduling import In, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy
from rabbitry_broker import queue_names as names
from rabbitry_broker.messages import DYNAMIC, KIND_ACTOR_CALL, KIND_ACTOR_CREATION, STREAMING, ActorSpec
from tests.api.core.fakes import JOB, OURS, Surroundings

NODE = b"n" * 28


def node(
    number: int, *, zone: str = "a", draining: bool = False, cpus: float = 4.0, free: float = 4.0
) -> dict[str, Any]:
    return {
        "id": bytes([number]) * 28, "alive": True, "draining": draining, "totals": {"CPU": cpus},
        "room": {"CPU": free}, "labels": {"zone": zone},
    }  # fmt: skip


def task(around: Surroundings, nodes: Any = list, **options: Any) -> Any:
    return around.plans(nodes).task(b"f" * 16, print, TaskOptions.from_kwargs(**options))


def test_a_task_says_whose_it_is_and_what_it_is_called() -> None:
    header = task(Surroundings()).header
    assert (header.owner, header.job, header.namespace, header.name) == (OURS, JOB, "space", "print")
    assert task(Surroundings(), name="mine").header.name == "mine"


@pytest.mark.parametrize(("given", "code"), [(1, 1), (3, 3), (0, 0), ("streaming", STREAMING), ("dynamic", DYNAMIC)])
def test_numbers_of_results(given: Any, code: int) -> None:
    assert task(Surroundings(), num_returns=given).header.num_returns == code


def test_exceptions_to_retry() -> None:
    assert (retry_code(True), retry_code(False), retry_code([])) == (b"*", b"", b"")
    assert b"ValueError" in retry_code([ValueError])


def test_a_task_s_variables_come_over_its_job_s() -> None:
    around = Surroundings()
    assert task(around).header.env == b""
    around.job.env = {"env_vars": {"A": "job", "B": "job"}}
    header = task(around, runtime_env={"env_vars": {"B": "task"}}).header
    assert json.loads(header.env) == {"A": "job", "B": "task"}


def test_priorities_are_announced_and_queues_are_noted() -> None:
    around = Surroundings()
    plan = task(around, priority=3)
    assert around.store.named("announce_priorities") == [(plan.queue,)]
    assert around.queues == [plan.queue]


def test_a_task_for_one_node_goes_to_its_queue() -> None:
    around = Surroundings()
    around.store.answer = 1
    plan = task(around, scheduling_strategy=NodeAffinitySchedulingStrategy(NODE.hex(), soft=False))
    assert plan.next_queue() == names.node_queue(NODE)
    assert plan.header.elsewhere == ""


@pytest.mark.parametrize("soft", [True, False])
def test_a_task_for_a_node_that_is_gone_goes_elsewhere_or_to_be_failed(soft: bool) -> None:
    around = Surroundings()
    around.store.answer = 0
    plan = task(around, scheduling_strategy=NodeAffinitySchedulingStrategy(NODE.hex(), soft=soft))
    elsewhere = plan.next_queue()
    assert (elsewhere == names.node_queue(NODE)) is not soft
    assert around.store.named("announce_queue") == ([] if soft else [(elsewhere,)]), "who is left must look at it"


def test_spread_tasks_are_dealt_out_in_turn_to_nodes_that_could_run_them() -> None:
    nodes = [node(1), node(2), node(3, draining=True), node(4, cpus=0.5)]
    plan = task(Surroundings(), lambda: nodes, scheduling_strategy="SPREAD")
    assert plan.single
    assert {plan.next_queue() for _ in range(4)} == {names.node_queue(bytes([number]) * 28) for number in (1, 2)}


def test_spread_tasks_of_a_small_cluster_go_to_the_common_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node(1)]
    plan = task(Surroundings(), lambda: nodes, scheduling_strategy="SPREAD")
    assert plan.next_queue() == plan.queue
    nodes.append(node(2))
    assert plan.next_queue() == plan.queue, "nodes are looked at now and then"
    monkeypatch.setattr(routes, "REFRESH_SECONDS", -1.0)
    assert plan.next_queue() != plan.queue


def queue_of(number: int) -> str:
    return names.node_queue(bytes([number]) * 28)


def test_a_soft_label_is_heeded_if_a_node_that_has_it_has_room() -> None:
    strategy = NodeLabelSchedulingStrategy({}, soft={"zone": In("b")})
    nodes = [node(1, free=0.0), node(2, zone="b", free=1.0), node(3, free=1.0)]
    plan = task(Surroundings(), lambda: nodes, scheduling_strategy=strategy)
    assert plan.queue == plan.header.elsewhere == names.task_queue("CPU=1")
    assert plan.single and plan.header.impatient
    assert [plan.next_queue() for _ in range(3)] == [queue_of(2), queue_of(3), plan.queue]


def test_fallbacks_have_their_order_and_one_queue_for_all_that_would_do() -> None:
    nodes = [node(1, zone="c"), node(2, zone="b", free=1.0), node(3, zone="a", free=0.0), node(4, zone="d")]
    fallbacks = [{"label_selector": {"zone": zone}} for zone in "bc"]
    plan = task(Surroundings(), lambda: nodes, label_selector={"zone": "a"}, fallback_strategy=fallbacks)
    assert plan.queue == names.task_queue("CPU=1", "zone=a|zone=b|zone=c")
    assert names.parse(plan.queue).selector == "zone=a|zone=b|zone=c"
    assert [plan.next_queue() for _ in range(3)] == [queue_of(2), queue_of(1), queue_of(1)]


def test_an_actor_s_creation() -> None:
    around = Surroundings()
    spec = ActorSpec("CPU=0", 1, {}, False, "", "", "Actor", b"facts")
    plan = around.plans().creation(
        b"a" * 16, b"c" * 16, namespace="other", options=ActorOptions.from_kwargs(), spec=spec, env=b""
    )
    header = plan.header
    assert (header.kind, header.name, header.actor) == (KIND_ACTOR_CREATION, "Actor.__init__", b"a" * 16)
    assert (header.namespace, header.max_retries, header.lifetime) == ("other", -1, "")
    assert plan.single and around.queues == [plan.queue]


def test_spread_actors_take_turns_though_each_has_a_plan() -> None:
    nodes = [node(number) for number in range(1, 6)]
    asked: list[int] = []

    def records() -> list[dict[str, Any]]:
        asked.append(1)
        return nodes

    plans = Surroundings().plans(records)
    spec = ActorSpec("CPU=0", 1, {}, False, "", "", "Actor", b"facts")
    options = ActorOptions.from_kwargs(scheduling_strategy="SPREAD")
    queues = [
        plans.creation(bytes([at]) * 16, b"c" * 16, namespace="", options=options, spec=spec, env=b"").queue
        for at in range(10)
    ]
    assert sorted(queues) == sorted(2 * [queue_of(number) for number in range(1, 6)])
    assert asked == [1], "nor are all nodes read for each"


def test_a_method_s_calls() -> None:
    line = Line("queue")
    plan = Surroundings().plans().method(b"a" * 16, "Actor", "work", MethodOptions(), line)
    assert (plan.header.kind, plan.header.name, plan.header.method) == (KIND_ACTOR_CALL, "Actor.work", "work")
    assert plan.function == b"a" * 16 and plan.line is line
    assert plan.next_queue() == names.actor_queue(b"a" * 16)


def test_the_end_of_an_actor_has_no_results() -> None:
    plan = Surroundings().plans().end(b"a" * 16, Line("queue"))
    assert (plan.header.method, plan.header.num_returns, plan.header.max_retries) == (END_METHOD, 0, 0)
