"""Calls to an actor whose node was lost keep each caller's order."""

from __future__ import annotations

from rabbitry_broker.messages import KIND_ACTOR_CALL, Task, encode_header
from rabbitry_workers.node.actors.call_order import Call, CallOrder
from rabbitry_workers.node.model.work import Held
from tests.workers.conftest import header

ONE, OTHER = b"one client id", b"another one"


def call(position: int, caller: bytes = ONE) -> Call:
    head = header(caller, kind=KIND_ACTOR_CALL, actor=b"a" * 16)
    task: Task = (caller + position.to_bytes(8, "big") + b"jjjj", b"", 0, [], {}, position)
    return Held(None, "actor.a"), encode_header(head), head, task


def positions(calls: list[Call]) -> list[int]:
    return [each[3][5] for each in calls]


def test_what_follows_the_state_is_not_early():
    order = CallOrder({ONE: [1, 7]})
    assert positions(order.in_turn(call(8))) == [8]
    assert positions(order.in_turn(call(9))) == [9]
    assert positions(order.in_turn(call(1, OTHER))) == [1]


def test_a_call_waits_for_those_before_it():
    order = CallOrder({ONE: [1, 7]})
    assert order.in_turn(call(10)) == []
    assert order.in_turn(call(12)) == []
    assert order.in_turn(call(9)) == []
    assert order.is_early(ONE, 12)
    assert not order.is_early(ONE, 8)
    assert positions(order.in_turn(call(8))) == [8, 9, 10]
    assert positions(order.waiting()) == [12]
    assert positions(order.in_turn(call(11))) == [11, 12]
    assert order.waiting() == []


def test_callers_do_not_wait_for_each_other():
    order = CallOrder({})
    assert order.in_turn(call(2)) == []
    assert positions(order.in_turn(call(1, OTHER))) == [1]
    assert positions(order.in_turn(call(2, OTHER))) == [2]


def test_what_the_state_contains_comes_again_and_passes():
    order = CallOrder({ONE: [1, 7]})
    assert positions(order.in_turn(call(3))) == [3]
    assert order.in_turn(call(9)) == []
    assert positions(order.in_turn(call(8))) == [8, 9]
    assert positions(order.in_turn(call(8))) == [8]


def test_a_call_without_a_number_passes():
    assert positions(CallOrder({}).in_turn(call(0))) == [0]


def test_what_never_comes_is_not_waited_for_in_the_end():
    order = CallOrder({ONE: [1, 7]})
    for position in (12, 10):
        assert order.in_turn(call(position)) == []
    assert positions(order.clear()) == [10, 12]
    assert order.clear() == []
