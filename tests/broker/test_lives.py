"""Who counts as alive, and what is left when steps of letting go run twice: on both engines' stores."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import numpy
import pytest

from rabbitry_broker import records
from rabbitry_broker.ids import CLIENT_BYTES, NODE_BYTES, OBJECT_BYTES, TASK_BYTES, new_client_id, new_detached_id
from rabbitry_broker.queue_names import MAX_NAME_BYTES
from rabbitry_broker.serialization import Packed, pack
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import clients
from rabbitry_broker.store.store import ObjectStore
from tests.conftest import Engine

LEASE = 60.0


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


def new_object(owner: bytes) -> bytes:
    return owner + secrets.token_bytes(OBJECT_BYTES - CLIENT_BYTES)


def a_client(store: ObjectStore) -> bytes:
    client = new_client_id()
    store.register_client(client, LEASE)
    return client


def a_silent_client(store: ObjectStore) -> bytes:
    """Return a client whose lease ended while Redis was away: nobody could renew it, nobody has cleared up after it."""
    client = a_client(store)
    store.call(b"DEL", store.keys.client(client))
    return client


def begin_to_clear(store: ObjectStore, client: bytes) -> None:
    """Take the first step of clearing up after a client."""
    steps = store.lives.leave((client,), lambda object_ids: None)
    next(steps)


def a_large_value() -> Packed:
    return pack(numpy.arange(100_000))


def chunks_of(engine: Engine) -> list[str]:
    every = engine.keys()
    return [key for key in every if key.startswith(f"{engine.prefix}x:")]


# -- leases ----------------------------------------------------------------------------------------------------------


def test_results_of_a_silent_owner_are_committed(store: ObjectStore) -> None:
    owner = a_silent_client(store)
    result = new_object(owner)
    assert store.commit(owner, [result, records.NONE], b"entry", require_owner=True) == []
    assert store.fetch([result]) == [records.NONE]


def test_results_of_an_owner_that_is_cleared_away_are_not(store: ObjectStore) -> None:
    owner = a_silent_client(store)
    begin_to_clear(store, owner)
    result = new_object(owner)
    assert store.commit(owner, [result, records.NONE], b"entry", require_owner=True) == [-1]
    assert store.fetch([result]) == [None]


def test_results_of_an_owner_that_nobody_knows_are_not(store: ObjectStore) -> None:
    owner = new_client_id()
    assert store.commit(owner, [new_object(owner), records.NONE], b"", require_owner=True) == [-1]


def test_a_silent_client_may_commit_what_it_prepared(store: ObjectStore) -> None:
    owner, preparer = a_client(store), a_silent_client(store)
    items = [new_object(owner), records.NONE]
    arguments = store.commit_arguments(owner, items, b"", require_owner=True, preparer=preparer)
    assert store.script("commit", *arguments) == []
    begin_to_clear(store, preparer)
    items = [new_object(owner), records.NONE]
    arguments = store.commit_arguments(owner, items, b"", require_owner=True, preparer=preparer)
    assert store.script("commit", *arguments) == [-2]


def test_who_waits_for_a_silent_owner_goes_on_waiting(store: ObjectStore) -> None:
    owner, reader = a_silent_client(store), a_client(store)
    waited = new_object(owner)
    assert store.subscribe(reader, [waited]) == ([None], [])
    begin_to_clear(store, owner)
    assert store.subscribe(reader, [waited]) == ([None], [waited])


def test_a_silent_client_comes_back_unless_it_is_cleared_away(store: ObjectStore) -> None:
    by_itself, by_its_agent, dead = a_silent_client(store), a_silent_client(store), a_silent_client(store)
    begin_to_clear(store, dead)
    assert store.renew_client(by_itself, LEASE)
    store.keep_clients([by_its_agent, dead], LEASE)
    assert not store.renew_client(dead, LEASE)
    signs = [store.call(b"EXISTS", store.keys.client(each)) for each in (by_itself, by_its_agent, dead)]
    assert signs == [1, 1, 0]
    assert [store.is_alive(each) for each in (by_itself, by_its_agent, dead)] == [True, True, False]


def test_the_signs_of_many_clients_are_kept_in_few_steps_and_nobody_gets_one_who_had_none(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "KEPT_AT_ONCE", 3)
    living, strangers = [a_silent_client(store) for _ in range(4)], [new_client_id() for _ in range(3)]
    store.keep_clients([*living[:2], *strangers, *living[2:]], LEASE)
    assert [store.call(b"EXISTS", store.keys.client(each)) for each in (*living, *strangers)] == [1] * 4 + [0] * 3
    assert store.registered([*living, *strangers]) == living
    scores = [float(store.call(b"ZSCORE", store.keys.clients, each)) for each in living]
    assert all(abs(score - store.time() - LEASE) < LEASE / 2 for score in scores)


def test_a_client_that_comes_back_while_it_is_cleared_away_stays_on_record(store: ObjectStore) -> None:
    client = a_silent_client(store)
    steps = store.lives.leave((client,), lambda object_ids: None)
    next(steps)
    store.register_client(client, LEASE)
    for _ in steps:
        pass
    assert store.registered([client]) == [client]
    assert store.renew_client(client, LEASE)
    for _ in store.lives.leave((client,), lambda object_ids: None):
        pass
    assert store.registered([client]) == []


def test_a_goodbye_waits_for_what_has_come(store: ObjectStore) -> None:
    """A task of its own ran twice, and the second result came when the first had been deleted."""
    client = a_client(store)
    result = new_object(client)
    assert store.commit(client, [result, records.NONE], b"entry", require_owner=True) == []
    assert not store.lives.forget(client)
    assert store.is_alive(client)
    assert store.call(b"RPOP", store.keys.inbox(client)) == b"entry"
    assert store.lives.drop([result], plain=True) == (set(), [])
    assert store.lives.forget(client)
    assert not store.is_alive(client)
    assert store.commit(client, [result, records.NONE], b"entry", require_owner=True) == [-1]
    assert store.call(b"EXISTS", store.keys.inbox(client), store.keys.object(result)) == 0


# -- steps that run twice --------------------------------------------------------------------------------------------


def test_marks_of_tasks_go_with_their_client_or_by_themselves(store: ObjectStore) -> None:
    living, silent, gone, detached = a_client(store), a_silent_client(store), new_client_id(), new_detached_id()
    node = secrets.token_bytes(NODE_BYTES)
    for client in (living, silent, gone, detached):
        task_id = client + secrets.token_bytes(TASK_BYTES - CLIENT_BYTES)
        assert store.start_once(node, [task_id]) == [b""]
        assert store.start_once(secrets.token_bytes(NODE_BYTES), [task_id]) == [node]
        assert [store.count_attempts([task_id]) for _ in range(2)] == [[1], [2]]
        seconds = [store.call(b"TTL", key) for key in (store.keys.starts(client), store.keys.attempts(client))]
        if client in (living, silent):
            assert seconds == [-1, -1]
        elif client == gone:
            assert all(0 < each <= 600 for each in seconds)
        else:
            assert all(600 < each <= 7 * 24 * 3600 for each in seconds)


def test_a_release_whose_reply_was_lost_leaves_nothing(engine: Engine, store: ObjectStore) -> None:
    owner, holder = a_client(store), a_client(store)
    key, inner = new_object(owner), new_object(owner)
    value = a_large_value()
    value.refs = (inner,)
    store.put_records([(inner, records.NONE)])
    store.put_packed(key, value)
    store.lives.hold(b"o" + key, [inner])
    store.lives.borrow(holder, [key])
    assert store.lives.drop([key, inner]) == ({key, inner}, [])
    store.script("release", store.keys.prefix, store.tag(owner), b"c" + holder, key[CLIENT_BYTES:])

    store.lives.give_back(holder, [key])
    assert chunks_of(engine) == []
    assert store.fetch([key, inner]) == [None, None]
    assert store.call(b"EXISTS", store.keys.graves(owner)) == 0


def test_a_drop_whose_reply_was_lost_leaves_nothing(engine: Engine, store: ObjectStore) -> None:
    owner = a_client(store)
    key = new_object(owner)
    store.put_packed(key, a_large_value())
    store.script("drop", store.keys.prefix, store.tag(owner), b"1", key[CLIENT_BYTES:])

    assert store.lives.drop([key]) == (set(), [])
    assert chunks_of(engine) == []
    assert store.call(b"EXISTS", store.keys.graves(owner)) == 0


# -- nonsense in what nobody signs -----------------------------------------------------------------------------------


def test_waiters_and_specs_that_are_none_stop_no_commit(store: ObjectStore) -> None:
    client = a_client(store)
    awaited, keys = new_object(client), store.keys
    good = client + secrets.token_bytes(TASK_BYTES - CLIENT_BYTES)
    assert store.park([(good, b"frame", "task.CPU=1", 0, [awaited])]) == [False]
    field = b"d" + store.tag(client) + b":" + awaited[CLIENT_BYTES:]
    specs: list[dict[bytes, bytes]] = [
        {b"n": b"1", b"f": b"frame", b"q": b"task.CPU=1", b"p": b"eleven"},
        {b"n": b"1", b"f": b"frame", b"q": b"\xff\r\n", b"p": b"0"},
        {b"n": b"1", b"f": b"frame", b"q": b"task.CPU=1" + b"0" * MAX_NAME_BYTES, b"p": b"0"},
        {b"n": b"many", b"f": b"frame", b"q": b"task.CPU=1", b"p": b"0"},
        {b"n": b"1", b"q": b"task.CPU=1", b"p": b"0"},
    ]
    names = [keys.spec(client + secrets.token_bytes(TASK_BYTES - CLIENT_BYTES)) for _ in specs]
    for name, fields in zip(names, specs, strict=True):
        store.call(b"HSET", name, field, b"1", *[each for pair in fields.items() for each in pair])
    text = keys.prefix + b"text"
    store.call(b"SET", text, b"no spec")
    waiters = [b"t" + name for name in (*names, text, keys.prefix + b"nothing", b"")]
    store.call(b"SADD", keys.waiters(awaited), *waiters, b"?", b"", b"c\xff")
    left = store.commit(client, [awaited, records.NONE], b"", require_owner=True, publish=False)
    publish, tell = store.dependants(client, left)
    assert [(spec, frame[-5:], queue) for spec, frame, queue, *_ in publish] == [
        (keys.spec(good), b"frame", "task.CPU=1")
    ]
    assert [who for who, _ in tell] == [b"\xff"]
    store.launched(publish)
    assert store.fetch([awaited]) == [records.NONE]
    assert int(store.call(b"GET", keys.put_aside + b":count")) == 3
    assert not store.call(b"EXISTS", keys.waiters(awaited))
    store.call(b"UNLINK", text, *names)


def test_a_list_of_waiters_of_another_type_stops_no_commit(store: ObjectStore) -> None:
    client = a_client(store)
    awaited = new_object(client)
    store.call(b"SADD", store.keys.waited(client), awaited[CLIENT_BYTES:])
    store.call(b"SET", store.keys.waiters(awaited), b"nonsense")
    assert store.commit(client, [awaited, records.NONE], b"", require_owner=True) == []
    assert store.fetch([awaited]) == [records.NONE]


def test_graves_of_another_type_do_not_keep_ghosts_for_ever(store: ObjectStore) -> None:
    first, second = new_client_id(), new_client_id()
    store.call(b"SADD", store.keys.ghosts, first, second)
    for client in (first, second):
        store.call(b"SET", store.keys.graves(client), b"nonsense")
    store.lives.lay_ghosts()
    assert not store.call(b"EXISTS", store.keys.ghosts, store.keys.graves(first), store.keys.graves(second))


# -- leases that others end ------------------------------------------------------------------------------------------


def test_who_has_not_renewed_its_lease_counts_as_dead_once_that_is_said(store: ObjectStore) -> None:
    living, silent, gone = a_client(store), a_silent_client(store), new_client_id()
    late = a_silent_client(store)
    store.call(b"ZADD", store.keys.clients, store.time() - 1, silent)
    assert store.lapse([living, silent, gone, late]) == [silent, gone], "the lease of the last one goes on"
    assert not store.renew_client(silent, LEASE)
    assert store.renew_client(late, LEASE)
    assert store.commit(silent, [new_object(silent), records.NONE], b"", require_owner=True) == [-1]


def test_who_is_cleared_up_after_is_told_of(store: ObjectStore) -> None:
    told: list[list[bytes]] = []
    client = a_client(store)
    store.lives.on_gone = lambda clients: told.append([each for each in clients if not store.clients.is_alive(each)])
    begin_to_clear(store, client)
    assert told == [[client]]
