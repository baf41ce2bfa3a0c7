"""Tasks that wait for very many objects are parked slice by slice, whatever is committed in between."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from rabbitry_broker.ids import CLIENT_BYTES, OBJECT_BYTES, TASK_BYTES, new_client_id
from rabbitry_broker.records import plain
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import specs
from rabbitry_broker.store.store import ObjectStore
from tests.conftest import Engine

QUEUE = "task.CPU=1"


@pytest.fixture
def store(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setattr(specs, "PARK_AT_ONCE", 2)
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


def released(store: ObjectStore, engine: Engine, owner: bytes, *objects: bytes) -> int:
    """Commit objects; return how many tasks that releases."""
    stream = store.keys.prefix + b"q:" + QUEUE.encode()
    before = store.call(b"XLEN", stream)
    items = [each for key in objects for each in (key, plain(b"value"))]
    publish, _ = store.dependants(owner, store.commit(owner, items, b"", require_owner=False))
    return len(publish) + int(store.call(b"XLEN", stream)) - int(before)


@pytest.mark.parametrize("before", [0, 1, 2, 3, 4, 5])
def test_what_is_committed_between_slices_counts(
    store: ObjectStore, engine: Engine, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    owner = new_client_id()
    objects = [owner + secrets.token_bytes(OBJECT_BYTES - CLIENT_BYTES) for _ in range(5)]
    task = owner + secrets.token_bytes(TASK_BYTES - CLIENT_BYTES)
    pipeline = store.pipeline_of_scripts

    def one_by_one(calls: list[tuple[str, tuple[object, ...]]]) -> list[object]:
        assert len(calls) == 3
        monkeypatch.undo()  # what is committed in between goes the usual way
        replies: list[object] = []
        for call in calls:
            if len(replies) == 2:
                for key in objects[:before]:
                    assert released(store, engine, owner, key) == 0
            replies += pipeline([call])
        return replies

    monkeypatch.setattr(store.server, "pipeline_of_scripts", one_by_one)
    (now,) = store.park([(task, b"frame", QUEUE, 0, objects)])
    assert now is (before == 5)
    if not now:
        count = [released(store, engine, owner, key) for key in objects[before:]]
        assert count == [0] * (len(objects) - before - 1) + [1]
    else:
        assert not store.call(b"EXISTS", store.keys.spec(task))


def test_several_tasks_are_parked_at_once(store: ObjectStore, engine: Engine) -> None:
    owner = new_client_id()
    objects = [owner + secrets.token_bytes(OBJECT_BYTES - CLIENT_BYTES) for _ in range(5)]
    tasks = [owner + secrets.token_bytes(TASK_BYTES - CLIENT_BYTES) for _ in range(3)]
    assert released(store, engine, owner, *objects[1:]) == 0
    specs = [
        (tasks[0], b"f", QUEUE, 0, objects),
        (tasks[1], b"f", QUEUE, 0, objects[1:]),
        (tasks[2], b"f", QUEUE, 0, []),
    ]
    assert store.park(specs) == [False, True, True]
    assert released(store, engine, owner, objects[0]) == 1


@pytest.mark.parametrize(
    ("queue", "handed_over"),
    [(QUEUE, True), ("job.6a6f6231.CPU=1", True), ("job.6a6f6231.CPU=2", False), ("task.CPU=1.(zone=a)", False)],
)
def test_a_released_task_of_the_same_class_is_handed_over_whichever_queue_it_was_for(
    store: ObjectStore, queue: str, handed_over: bool
) -> None:
    owner = new_client_id()
    result = owner + secrets.token_bytes(OBJECT_BYTES - CLIENT_BYTES)
    task = owner + secrets.token_bytes(TASK_BYTES - CLIENT_BYTES)
    assert store.park([(task, b"frame", queue, 0, [result])]) == [False]
    arguments = store.commit_arguments(
        owner,
        [result, plain(b"value")],
        b"",
        require_owner=False,
        to_run=QUEUE,
        continuations=store.keys.continuations(b"node"),
        publish=False,
    )
    publish, _, _, to_run = store.left_to_do(owner, store.script("commit", *arguments))
    assert (to_run is not None, len(publish)) == (handed_over, 1 - handed_over)
