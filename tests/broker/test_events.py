"""Marks, the recorder that keeps them until they are sent, and the stream that they go to."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rabbitry_broker import events
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.events import Recorder, RunTimes, pack, split, times_of, unpack
from rabbitry_broker.ids import TaskIds, new_client_id, new_job_id
from rabbitry_broker.messages import MalformedMessage, Task
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.events import BYTES_VARIABLE, SECONDS_VARIABLE, EventReader
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer

SIGNER = Signer((b"0123456789abcdef",))
WHO = {"id": b"c" * 12, "pid": 1, "host": "here", "node": b""}


def tasks(count: int, *, needs: list[bytes] | None = None) -> list[Task]:
    ids = TaskIds(new_client_id(), new_job_id())
    return [(ids.next(), b"", 0, needs or [], {}, 0) for _ in range(count)]


def all_of(recorder: Recorder) -> list[Any]:
    return [mark for marks, _ in recorder.take() for mark in marks]


def test_a_batch_of_tasks_is_one_mark():
    recorder = Recorder(clock=lambda: 7.0)
    sent = tasks(3)
    assert not recorder
    recorder.sent(b"header", sent, "task.CPU=1")
    assert recorder
    ((word, header, at, ids, queue),) = all_of(recorder)
    assert (word, header, at, queue) == (events.SUBMITTED, b"header", 7.0, "task.CPU=1")
    assert split(ids) == [task[0] for task in sent]
    assert not recorder


def test_what_a_task_needs_is_told_by_the_tasks_that_make_it():
    recorder = Recorder()
    (maker,) = tasks(1)
    sent = tasks(1, needs=[maker[0] + b"\1\0\0\0"])
    recorder.sent(b"header", sent, "task.CPU=1", parked=True)
    parked, needs = all_of(recorder)
    assert parked[0] == events.PARKED
    assert needs == (events.NEEDS, sent[0][0], maker[0])


def test_what_does_not_fit_is_dropped_and_counted():
    recorder = Recorder(limit=2000)
    for _ in range(10):
        recorder.sent(b"header", tasks(20), "q")
    kept = sum(events.tasks_in(mark) for mark in all_of(recorder))
    assert recorder.dropped == 200 - kept
    assert 20 <= kept <= 60
    recorder.sent(b"header", tasks(20), "q")  # there is room again
    ((marks, dropped),) = recorder.take()
    assert len(marks) == 1
    assert dropped == 0  # it was told before


def test_a_batch_tells_how_many_were_dropped_before_it():
    recorder = Recorder(limit=1000)
    recorder.sent(b"header", tasks(20), "q")
    recorder.sent(b"header", tasks(30), "q")
    ((_, dropped),) = recorder.take()
    assert dropped == 30
    recorder.lost([(events.SUBMITTED, b"h", 1.0, b"x" * 48, "q")])
    recorder.sent(b"header", tasks(1), "q")
    ((_, dropped),) = recorder.take()
    assert dropped == 2


def test_many_marks_make_several_batches():
    recorder = Recorder()
    for _ in range(300):
        recorder.sent(b"header", tasks(100), "q")
    batches = list(recorder.take())
    assert len(batches) > 1
    assert sum(events.tasks_in(mark) for marks, _ in batches for mark in marks) == 30_000


def test_a_batch_comes_back_as_it_was():
    marks = [
        (events.SUBMITTED, b"one", 1.5, b"a" * 24, "q"),
        (events.DONE, b"two", 1.0, 2.0, 3.0, b"b" * 24, b"12345678", b"", b"w" * 12, 5),
        (events.CHILDREN, b"p" * 24, b"c" * 24),
        (events.SUBMITTED, b"one", 2.5, b"d" * 24, "q"),
    ]
    batch = unpack(SIGNER, pack(SIGNER, WHO, marks, 4))
    assert batch.who == WHO
    assert batch.headers == [b"one", b"two"]
    assert [mark[1] for mark in batch.marks] == [0, 1, b"p" * 24, 0]
    assert batch.dropped == 4


def test_what_nobody_of_the_cluster_wrote_is_refused():
    sealed = pack(SIGNER, WHO, [], 0)
    with pytest.raises(MalformedMessage, match="events"):
        unpack(Signer((b"another secret..",)), sealed)
    with pytest.raises(MalformedMessage, match="events"):
        unpack(SIGNER, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(MalformedMessage, match="events"):
        unpack(SIGNER, SIGNER.seal(b"events", b"no batch"))


@pytest.mark.parametrize(("text", "on"), [("", True), ("on", True), ("1", True), ("off", False), ("OFF", False)])
def test_a_variable_switches_events_off(text: str, on: bool):
    assert events.are_on({events.SWITCH: text}) is on


def test_a_switch_that_says_neither_is_an_error():
    with pytest.raises(ValueError, match="RABBITRY_TASK_EVENTS='maybe' must be on or off"):
        events.are_on({events.SWITCH: "maybe"})


def test_run_times_are_told_from_the_start_of_the_first():
    times = RunTimes()
    begin = time.perf_counter()
    times.note(begin + 0.5, 0.5)
    times.note(begin + 0.75, 0.2)
    times.failed(b"t" * 24, 1, "KIND", "x" * 5000)
    since, numbers, failures = times.take()
    assert abs(since - time.time()) < 5.0
    spans = times_of(since, numbers)
    assert [(round(start - since, 3), round(end - since, 3)) for start, end in spans] == [(0.0, 0.5), (0.55, 0.75)]
    assert [(each[:3], len(each[3])) for each in failures] == [((b"t" * 24, 1, "KIND"), events.TEXT_CHARACTERS)]
    assert times.take()[1:] == (b"", [])


# -- the stream --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[ObjectStore]:
    endpoint = Endpoint(redis_server.url, None, (b"0123456789abcdef",), f"events-{secrets.token_hex(4)}:")
    store = ObjectStore(endpoint, Signer(endpoint.secrets))
    yield store
    store.call(b"UNLINK", store.keys.events, store.keys.events + b":bytes")
    store.close()


@pytest.fixture
def reader(store: ObjectStore) -> EventReader:
    return EventReader(store, store.keys, store.signer)


def random_marks(recorder: Recorder, count: int = 50) -> None:
    for _ in range(count):
        recorder.sent(new_client_id(), tasks(1), "q")


def test_what_was_sent_is_read_once(store: ObjectStore, reader: EventReader):
    recorder = Recorder()
    assert list(reader.fresh()) == []
    random_marks(recorder, 3)
    store.events.send(recorder, WHO)
    ((at, batch),) = reader.fresh()
    assert abs(at - time.time()) < 60.0
    assert len(batch.marks) == 3
    assert list(reader.fresh()) == []
    random_marks(recorder, 2)
    store.events.send(recorder, WHO)
    assert [len(batch.marks) for _, batch in reader.fresh()] == [2]
    assert reader.size() > 0


def test_the_stream_keeps_within_its_bytes(store: ObjectStore, reader: EventReader, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(BYTES_VARIABLE, "20000")
    recorder = Recorder()
    for _ in range(40):
        random_marks(recorder)
        store.events.send(recorder, WHO)
    assert reader.size() <= 20_000
    kept = len(list(reader.fresh()))
    assert 2 <= kept < 20
    assert store.call(b"XLEN", store.keys.events) == kept


def test_old_events_go_and_the_last_ones_by_themselves(
    store: ObjectStore, reader: EventReader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(SECONDS_VARIABLE, "100")
    keys = store.keys
    store.call(b"XADD", keys.events, b"1000-0", b"b", b"old")
    store.call(b"SET", keys.events + b":bytes", 3)
    recorder = Recorder()
    random_marks(recorder)
    store.events.send(recorder, WHO)
    assert store.call(b"XLEN", keys.events) == 1
    assert len(list(reader.fresh())) == 1
    assert 0 < store.call(b"TTL", keys.events) <= 100
    assert 0 < store.call(b"TTL", keys.events + b":bytes") <= 100


def test_foreign_entries_are_counted_and_passed_over(store: ObjectStore, reader: EventReader):
    store.call(b"XADD", store.keys.events, b"*", b"b", b"rubbish")
    recorder = Recorder()
    random_marks(recorder)
    store.events.send(recorder, WHO)
    assert len(list(reader.fresh())) == 1
    assert reader.unreadable == 1


def test_a_server_that_is_away_costs_the_events_and_nothing_else():
    endpoint = Endpoint("unix:///nowhere/redis.sock", None, (b"0123456789abcdef",), "p:")
    store = ObjectStore(endpoint, Signer(endpoint.secrets))
    recorder = Recorder()
    recorder.sent(b"header", tasks(5), "q")
    began = time.monotonic()
    store.events.send(recorder, WHO)
    assert time.monotonic() - began < 2.0
    assert recorder.dropped == 5
    assert not recorder


def test_a_full_server_has_no_room_for_events(start_redis: Any):
    server: RedisServer = start_redis(config={"maxmemory": "20mb"})
    endpoint = Endpoint(server.url, None, (b"0123456789abcdef",), "p:")
    store = ObjectStore(endpoint, Signer(endpoint.secrets))
    try:
        recorder = Recorder()
        random_marks(recorder)
        store.events.send(recorder, WHO)
        reader = EventReader(store, Keys.of(endpoint), store.signer)
        assert reader.size() > 0
        for at in range(1000):
            if not store.room.limit_and_left()[1] > 0:
                break
            store.call(b"SET", f"fill{at}", b"x" * 100_000)
        store.events._asked_at = -1000.0
        random_marks(recorder)
        before = recorder.dropped
        store.events.send(recorder, WHO)
        assert recorder.dropped == before + 50
        assert reader.size() == 0  # others need the room more
    finally:
        store.close()
