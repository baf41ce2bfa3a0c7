"""Drivers by their connections, and work without an owner; on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rabbitry_broker.errors import StoreError
from rabbitry_broker.ids import new_client_id
from rabbitry_broker.store.presence import driver_connection
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.services import drivers
from tests.workers.conftest import MakeAgent, drive, frame, header, task

QUEUE = "task.CPU=1"


@pytest.fixture(autouse=True)
def confirm_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "CONFIRM_SECONDS", 0.05)


def a_driver(agent: Agent, *, silent: bool = True) -> bytes:
    """Register a driver; one that is silent has given no sign for a minute."""
    client = new_client_id()
    agent.store.register_client(client, 5.0, driver=True)
    if silent:
        be_silent(agent, client)
    return client


def be_silent(agent: Agent, client: bytes) -> None:
    agent.store.call(b"ZADD", agent.node.keys.drivers, agent.store.time() - 60, client)


def lease(agent: Agent, client: bytes) -> int:
    return int(agent.store.call(b"PTTL", agent.node.keys.client(client)))


def end_of(agent: Agent, client: bytes) -> bytes | None:
    found: bytes | None = agent.store.call(b"ZSCORE", agent.node.keys.clients, client)
    return found


@contextmanager
def connection_of(agent: Agent, client: bytes) -> Iterator[None]:
    """Have the connection that the driver's process would have."""
    connection = agent.store.open_connection(driver_connection(client))
    try:
        yield
    finally:
        connection.close()


def test_a_silent_driver_is_kept_while_it_is_connected_and_condemned_when_it_is_not(make_agent: MakeAgent):
    agent = make_agent()
    client = a_driver(agent)
    with connection_of(agent, client):
        agent.drivers.run_once()
        assert lease(agent, client) > 10_000
    assert agent.drivers.is_silent(client)
    agent.store.call(b"DEL", agent.node.keys.janitor + b":drivers")
    agent.drivers.run_once()
    assert lease(agent, client) > 0, "it is looked for twice"
    drive(agent, lambda: end_of(agent, client) == b"-inf", "it is condemned")
    assert not agent.store.renew_client(client, 5.0, driver=True)
    assert agent.store.call(b"ZSCORE", agent.node.keys.drivers, client) is None


def test_a_driver_that_gives_a_sign_between_two_looks_is_not_condemned(make_agent: MakeAgent):
    agent = make_agent()
    client = a_driver(agent)
    (too_old,) = agent.drivers.keep_connected().values()
    assert agent.store.renew_client(client, 5.0, driver=True)
    assert not agent.store.condemn(client, too_old)
    assert not agent.drivers.keep_connected()
    assert lease(agent, client) > 0


def test_whoever_may_not_see_connections_goes_by_leases(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch):
    agent = make_agent()
    client = a_driver(agent)
    call = agent.store.call

    def refuse(*command: object) -> object:
        if command[0] == b"CLIENT":
            raise StoreError("NOPERM this user has no permissions to run the 'client|list' command")
        return call(*command)

    monkeypatch.setattr(agent.store, "call", refuse)
    assert agent.drivers.keep_connected() == {}
    monkeypatch.setattr(agent.store, "call", lambda *command: b"" if command[0] == b"CLIENT" else call(*command))
    assert agent.drivers.keep_connected() == {}, "a list without this node says nothing"
    assert lease(agent, client) > 0


def test_what_is_no_driver_among_drivers_goes(make_agent: MakeAgent):
    agent = make_agent()
    agent.store.call(b"ZADD", agent.node.keys.drivers, 1, b"nonsense")
    agent.drivers.run_once()
    assert agent.store.call(b"ZCARD", agent.node.keys.drivers) == 0


def waiting(agent: Agent) -> int:
    return sum(lane.waiting for lane in agent.lanes.values())


def submit(agent: Agent, owner: bytes, number: int, **fields: object) -> None:
    agent.sources.consider(QUEUE)
    agent.publisher.publish(QUEUE, frame(agent, header(owner, **fields), task(owner, number)))


def test_what_an_ended_driver_left_on_a_queue_does_not_begin(make_agent: MakeAgent):
    agent = make_agent()
    left, condemned, alive = new_client_id(), a_driver(agent), a_driver(agent, silent=False)
    assert agent.store.condemn(condemned, agent.store.time())
    for owner in (left, condemned):
        submit(agent, owner, 1)
    submit(agent, left, 2, lifetime="detached")
    submit(agent, alive, 1)
    drive(agent, lambda: waiting(agent) == 2, "what is detached and what has an owner is taken")
    drive(agent, lambda: {left, condemned} <= set(agent.owners.gone), "the others are dropped")
    assert waiting(agent) == 2
    source = agent.sources.by_queue[QUEUE]
    drive(agent, lambda: source.outstanding == 2, "their messages are acknowledged")


def test_work_waits_until_it_is_known_whether_its_driver_is_there(make_agent: MakeAgent):
    agent = make_agent()
    returns, killed = a_driver(agent), a_driver(agent)
    submit(agent, returns, 1)
    submit(agent, killed, 1)
    drive(agent, lambda: agent.sources.by_queue[QUEUE].outstanding == 2, "the messages are here")
    assert waiting(agent) == 0
    agent.store.renew_client(returns, 5.0, driver=True)
    drive(agent, lambda: waiting(agent) == 1, "one is there")
    agent.drivers.run_once()
    drive(agent, lambda: agent.sources.by_queue[QUEUE].outstanding == 1, "the other is not")
    assert list(agent.owners.gone) == [killed]


def test_work_of_a_client_whose_lease_has_ended_waits_until_that_is_settled(make_agent: MakeAgent):
    agent = make_agent()
    client = new_client_id()
    agent.store.register_client(client, 60.0)
    agent.store.call(b"DEL", agent.node.keys.client(client))
    agent.store.call(b"ZADD", agent.node.keys.clients, 1, client)
    submit(agent, client, 1)
    drive(agent, lambda: agent.sources.by_queue[QUEUE].outstanding == 1, "the message is here")
    assert waiting(agent) == 0
    agent.janitor.run_once()
    drive(agent, lambda: agent.sources.by_queue[QUEUE].outstanding == 0, "it is dropped")
    assert client in agent.owners.gone
