"""Queue names say what they are for, and come back as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry_broker import queue_names as names
from rabbitry_broker.queue_names import QueueKind, QueueName


@given(st.text(min_size=1, max_size=7), st.text(max_size=7))
def test_task_queues_come_back_as_they_were(resource_class: str, selector: str) -> None:
    try:
        queue = names.task_queue(resource_class, selector)
    except UnicodeEncodeError:
        return  # Lone surrogates are no text.
    assert names.parse(queue) == QueueName(QueueKind.TASK, resource_class, selector)


@given(st.binary(min_size=1, max_size=28), st.integers(0, 1000))
def test_queues_of_ids_come_back_as_they_were(some_id: bytes, index: int) -> None:
    assert names.parse(names.node_queue(some_id)) == QueueName(QueueKind.NODE, id=some_id)
    assert names.parse(names.actor_queue(some_id)) == QueueName(QueueKind.ACTOR, id=some_id)
    assert names.parse(names.bundle_queue(some_id, index)) == QueueName(
        QueueKind.BUNDLE, id=some_id, bundle_index=index
    )
    assert names.parse(names.DEAD_LETTERS).kind is QueueKind.DEAD_LETTERS


@given(st.binary(min_size=1, max_size=28), st.sets(st.integers(0, 1000)), st.integers(0, 1000))
def test_queues_of_some_bundles_say_which(some_id: bytes, among: set[int], index: int) -> None:
    place = names.parse(names.bundle_queue(some_id, names.ANY_BUNDLE, among))
    assert (place.kind, place.id, place.bundle_index) == (QueueKind.BUNDLE, some_id, names.ANY_BUNDLE)
    assert all(map(place.has_bundle, among))
    assert place.has_bundle(index) == (not among or index in among)
    assert names.parse(names.bundle_queue(some_id, index)).has_bundle(index)
    assert not names.parse(names.bundle_queue(some_id, index)).has_bundle(index + 1)


@pytest.mark.parametrize(
    "queue",
    [
        "bundle.01.any.",
        "bundle.01.any.06",
        "bundle.01.any.x",
        "bundle.01.1.6",
        "",
        "task.",
        "node.xyz",
        "actor.abc",
        "bundle.01",
        "celery",
        "task.CPU=1.(a",
    ],
)
def test_foreign_names_are_refused(queue: str) -> None:
    with pytest.raises(ValueError, match="not the name of a queue"):
        names.parse(queue)


def test_too_long_a_class_names_itself_and_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"CPU=1,x{54}'.*shorter names"):
        names.task_queue("CPU=1," + "x" * 300_000)


def test_rabbitmq_knows_long_names_by_a_digest() -> None:
    many = [names.task_queue(",".join(f"r{at}=1" for at in range(count)), "zone=eu") for count in range(1, 200)]
    assert [names.parse(each).selector for each in many] == ["zone=eu"] * len(many)
    called = [names.amqp_name("prefix:", each) for each in many]
    assert len(set(called)) == len(many)
    assert max(map(len, called)) <= 255
    assert called[0] == "prefix:" + many[0]
    assert "#" in called[-1]


def test_whose_queue_an_actor_s_is_can_be_told_at_a_glance():
    assert names.actor_of(names.actor_queue(b"a" * 16)) == b"a" * 16
    for other in (names.task_queue("CPU=1"), names.node_queue(b"n" * 16), "actor.", "actor.xy", "", "actors.00"):
        assert names.actor_of(other) == b""
