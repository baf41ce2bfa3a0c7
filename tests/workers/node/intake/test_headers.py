"""Headers that no node could act on are found out, each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry_broker.ids import new_client_id
from rabbitry_broker.messages import KIND_ACTOR_CALL, KIND_ACTOR_CREATION, ActorSpec, encode, encode_header
from rabbitry_broker.queue_names import actor_queue, node_queue
from rabbitry_broker.resources import NOTHING
from rabbitry_workers.node.intake.headers import fault_of, is_answerable
from tests.workers.conftest import header

OWNER = new_client_id()
ACTOR = b"a" * 16
NODE = node_queue(b"n" * 28)


def creation(running: str) -> dict[str, Any]:
    spec = ActorSpec(running, 1, {}, False, "", "", "C", b"")
    return {"kind": KIND_ACTOR_CREATION, "actor": ACTOR, "extra": encode(spec)}


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, ""),
        ({"kind": 99}, "kind 99"),
        ({"job": b"x"}, "id of a job"),
        ({"num_returns": 10**9}, "num_returns"),
        ({"priority": 10}, "priority 10"),
        ({"retry_delay": -1.0}, "retry_delay"),
        ({"kind": KIND_ACTOR_CALL, "actor": b"x"}, "id of an actor"),
        ({"resources": "CPU=much"}, "much"),
        ({"elsewhere": "actor.00"}, "actor.00"),
        ({"kind": KIND_ACTOR_CREATION, "actor": ACTOR, "extra": b"nonsense"}, " "),
        (creation("CPU=1"), ""),
        (creation(NOTHING), ""),
        (creation("CPU=2"), "would hold CPU=2"),
    ],
)
def test_a_header_has_its_fault_or_none(fields: dict[str, Any], fault: str):
    found = fault_of(encode_header(header(OWNER, **fields)), NODE)
    assert fault in found
    assert bool(found) is bool(fault)


@pytest.mark.parametrize(
    ("queue", "fields", "fault"),
    [
        (actor_queue(ACTOR), {"kind": KIND_ACTOR_CALL, "actor": ACTOR}, ""),
        (actor_queue(b"b" * 16), {"kind": KIND_ACTOR_CALL, "actor": ACTOR}, "a call to actor"),
        (NODE, {"kind": KIND_ACTOR_CALL, "actor": ACTOR}, "a call to actor"),
        ("task.CPU=1", {"kind": KIND_ACTOR_CALL, "actor": ACTOR}, "a call to actor"),
        (actor_queue(ACTOR), {}, "no call"),
        ("task.CPU=1", {}, ""),
        ("task.CPU=2.(zone=eu)", {}, ""),
        ("task.CPU=1", {"resources": "CPU=2"}, "needs CPU=2"),
        ("task.CPU=1", {"resources": "CPU=1,license=1"}, "needs CPU=1,license=1"),
        (NODE, {"resources": "CPU=2"}, ""),
    ],
)
def test_work_is_on_a_queue_whose_consumers_can_do_it(queue: str, fields: dict[str, Any], fault: str):
    found = fault_of(encode_header(header(OWNER, **fields)), queue)
    assert fault in found
    assert bool(found) is bool(fault)


@pytest.mark.parametrize(
    ("fields", "answerable"),
    [({}, True), ({"num_returns": 10**9}, False), ({"kind": KIND_ACTOR_CREATION, "actor": b"x"}, False)],
)
def test_who_can_be_told_is(fields: dict[str, Any], answerable: bool):
    assert is_answerable(header(OWNER, **fields)) is answerable
    assert not is_answerable(header(b"nobody"))
