"""What an agent sends late renews its lease, and says no more than that its loop goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from rabbitry_broker.store.redis.connection import Connection
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.model import lease
from tests.workers.conftest import MakeAgent

pytestmark = pytest.mark.parametrize("engine", ["rabbitmq"], indirect=True)

LEASE = 30.0
SHORT_MILLISECONDS = 15_000  # what is left of it


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    return make_agent(lease=LEASE)


@pytest.fixture
def other(agent: Agent) -> Iterator[Connection]:
    """A connection of somebody else, by whom half of the lease has passed."""
    connection = agent.store.open_connection("test")
    assert connection.call(b"PEXPIRE", agent.node.keys.node(agent.node.id), SHORT_MILLISECONDS)
    yield connection
    connection.close()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sign of life is late at once."""
    monkeypatch.setattr(lease, "LATE", 0.0)


def is_renewed(agent: Agent, other: Connection) -> bool:
    return int(other.call(b"PTTL", agent.node.keys.node(agent.node.id))) > SHORT_MILLISECONDS


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(
    ("send", "reply"),
    [
        pytest.param(lambda agent: agent.store.call(b"ECHO", b"1"), b"1", id="call"),
        pytest.param(
            lambda agent: agent.store.pipeline([(b"ECHO", b"1"), (b"ECHO", b"2")]), [b"1", b"2"], id="pipeline"
        ),
        pytest.param(lambda agent: agent.store.script("custody_adopt", *keys(agent)), [], id="script"),
        pytest.param(
            lambda agent: agent.store.pipeline_of_scripts([("custody_adopt", keys(agent))], [(b"ECHO", b"1")]),
            [[]],
            id="pipeline-of-scripts",
        ),
    ],
)
def test_a_late_command_renews_the_lease_and_has_its_own_reply(
    agent: Agent, other: Connection, send: Callable[[Agent], object], reply: object
):
    agent.store.sign_of_life(agent.node.id, LEASE)
    assert send(agent) == reply
    assert is_renewed(agent, other)


def keys(agent: Agent) -> tuple[bytes, bytes]:
    return agent.node.keys.custody(b"nobody"), agent.node.keys.custody(agent.node.id)


def test_a_command_in_time_is_sent_as_it_is(agent: Agent, other: Connection):
    agent.store.call(b"ECHO", b"1")
    assert not is_renewed(agent, other)


@pytest.mark.usefixtures("late")
def test_a_lease_that_ended_is_not_revived(agent: Agent, other: Connection):
    agent.store.sign_of_life(agent.node.id, LEASE)
    other.call(b"DEL", agent.node.keys.node(agent.node.id))
    agent.store.call(b"ECHO", b"1")
    assert not other.call(b"EXISTS", agent.node.keys.node(agent.node.id))
    agent.heartbeat.run_once()
    assert other.call(b"EXISTS", agent.node.keys.node(agent.node.id))


@pytest.mark.usefixtures("late")
def test_another_thread_says_nothing_about_the_loop(agent: Agent, other: Connection):
    agent.store.sign_of_life(agent.node.id, LEASE)
    thread = threading.Thread(target=agent.store.call, args=(b"ECHO", b"1"))
    thread.start()
    thread.join()
    assert not is_renewed(agent, other)
