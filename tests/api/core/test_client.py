"""The parts put together, without a server: see `rabbitry.core.client`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from rabbitry import current
from rabbitry.client import Client
from rabbitry.core.lock_order import ORDER
from rabbitry.core.ports import Executing
from rabbitry.core.service.thread import ServiceThread
from rabbitry.object_ref import ObjectRef
from rabbitry.options import TaskOptions
from rabbitry_broker.endpoint import Endpoint
from tests.api.core.fakes import DETACHED, JOB, OURS, THEIRS, FakePublisher, result_id

NOWHERE = Endpoint(store_url="redis://127.0.0.1:1", broker_url=None, secrets=(b"0123456789abcdef",), prefix="test")


class Publisher(FakePublisher):
    """Can be closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def new_client(publisher: Any, executing: Executing | None = None) -> Client:
    return Client(
        NOWHERE, publisher, client_id=OURS, job=JOB, detached_id=DETACHED, namespace="space", executing=executing
    )


@pytest.fixture
def client(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(ServiceThread, "start", lambda self: None)
    client = new_client(publisher)
    monkeypatch.setattr(client.puts, "_require_room", lambda size: None)  # it would ask the store
    current.set_client(client)
    yield client
    current.set_client(None)


def submit(client: Client, *args: Any, **options: Any) -> Any:
    return client.submit(client.plans.task(b"f" * 16, print, TaskOptions.from_kwargs(**options)), args, {})


def test_a_task_goes_out_and_its_result_comes_in(client: Client, publisher: Publisher) -> None:
    ref = submit(client)
    assert publisher.tasks() == [[ref._id[:24]]] and client.in_flight == 1
    client.inbox.make_known([ref._id, b"N"], tasks=1)
    assert client.get_one(ref, 0) is None and client.in_flight == 0
    assert client.wait([ref], 1, 0) == ([ref], [])


def test_a_task_that_waits_can_be_taken_back_with_all_its_results(client: Client, publisher: Publisher) -> None:
    committed: list[bytes] = []
    client._cancelling._commit = committed.extend
    first = submit(client)
    refs = submit(client, num_returns=2)
    client.cancel(refs[0]._id[:24], force=False, recursive=True)
    assert committed[::2] == [ref._id for ref in refs]
    assert all(ref._id in client.inbox.values for ref in refs) and client.in_flight == 1
    client.outbox.flush()
    assert publisher.tasks() == [[first._id[:24]]] and not client.returns


def test_a_put_value_is_here_at_once(client: Client) -> None:
    ref = client.put([1, 2])
    assert client.get_many([ref, ref], 0) == [[1, 2], [1, 2]]
    del ref


def test_what_others_took_for_dead_tells_its_own_who_wait(client: Client) -> None:
    ref = submit(client)
    for died in client.liveness.on_died:
        died()
    assert client.in_flight == 0 and client.inbox.values[ref._id].startswith(b"E")


def test_handles_from_elsewhere_are_counted_and_the_session_s_own_known(client: Client) -> None:
    ref = ObjectRef(result_id(1, THEIRS))
    assert client.references.counts[ref._id] == 1 and list(client.references.fresh) == [ref._id]
    called: list[int] = []
    mine = client.put(1)
    client.on_ready(mine, lambda: called.append(1))
    assert called == [1] and mine.future().result(0) == 1


def test_what_a_session_says_is_heeded_by_plans_that_are_made_after_it(client: Client) -> None:
    client.namespace, client.job_env = "other", {"env_vars": {"A": "1"}}
    header = client.plans.task(b"f" * 16, print, TaskOptions.from_kwargs()).header
    assert (header.namespace, header.env) == ("other", b'{"A": "1"}')


def test_an_executor_s_client_knows_what_runs(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServiceThread, "start", lambda self: None)
    nothing: Any = lambda *_: None  # noqa: E731
    client = new_client(publisher, Executing(lambda: b"parent", nothing, nothing, nullcontext()))
    ref = submit(client)
    assert client.executing and client.current_task() == b"parent"
    assert client.children == {b"parent": [ref._id[:24]]}
    assert not client.holds_nothing()


def test_a_result_that_comes_while_a_process_looks_what_it_holds_is_let_go_of(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = submit(client)
    key = ref._id
    del ref
    collect, told = client.collect, []
    monkeypatch.setattr(client.lifetimes, "_tell", lambda plain, *_: told.extend(plain))

    def and_it_comes() -> None:
        collect()
        client.inbox.make_known([key, b"N"], tasks=client.in_flight)

    client.collect = and_it_comes  # type: ignore[method-assign]
    if client.holds_nothing():
        assert told == [key], "nobody would delete it"
    client.inbox.make_known([key, b"N"], tasks=client.in_flight)
    client.collect = collect  # type: ignore[method-assign]
    assert client.holds_nothing()
    assert key in told


def test_who_leaves_while_another_thread_takes_what_came_leaves_the_rest_to_others(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[bytes] = []
    monkeypatch.setattr(client.store.lives, "forget", forgotten.append)
    monkeypatch.setattr(client.inbox, "_pump", lambda timeout: False)
    client.liveness.registered = True
    with client.inbox._leader:
        client.deregister()
    assert not forgotten
    client.deregister()
    assert forgotten == [OURS]


def test_the_service_s_steps_have_names_of_their_own_and_the_lease_comes_first(client: Client) -> None:
    names = [step.name for step in client._service.steps]
    assert names[0] == "renewing the lease" and len(set(names)) == len(names)


def test_a_round_without_a_cause_asks_no_server(client: Client) -> None:
    client._service.steps = [step for step in client._service.steps if not step.every]
    assert client._service.run_once()


def test_a_client_that_nobody_knows_leaves_without_a_word_and_is_closed_once(
    client: Client, publisher: Publisher
) -> None:
    client.deregister()
    client.failed()
    client.collect_quietly()
    client.close()
    client.close()
    assert publisher.closed and client._service._closed
    client.store_lost(ConnectionError("of no interest any more"))


def test_the_locks_of_the_client_have_places_in_the_order(client: Client) -> None:
    names = {name for row in ORDER for name in row}
    assert {"outbox._flush_lock", "lifetimes.lock", "inbox._leader", "flight.lock", "references.lock"} <= names
    assert {name for name in names if name.startswith("thread")} == {"thread._start_lock"}
