"""Parts of the store alone, with a fake in place of Redis: no server, no waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.engine import EMBEDDED, RABBITMQ
from rabbitry_broker.errors import StoreError
from rabbitry_broker.ids import CLIENT_BYTES, NODE_BYTES, SUFFIX_BYTES
from rabbitry_broker.queue_names import actor_queue, node_queue
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.announcements import Announcements
from rabbitry_broker.store.aside import PUT_ASIDE_BYTES, Aside
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.results import Results
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.specs import Specs
from rabbitry_broker.store.tags import Tags

SECRETS = (b"0123456789abcdef",)
OWNER = b"o" * CLIENT_BYTES
SUFFIX = b"s" * SUFFIX_BYTES
FULL = StoreError("OOM command not allowed when used memory > 'maxmemory'.")


class Server:
    """Takes commands down and answers what a test says, in turn; an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self.endpoint = Endpoint("redis://nowhere", "amqp://nowhere", SECRETS, "p:")
        self.traits = RABBITMQ
        self.asked: list[Any] = []
        self.answers = list(answers)
        self.made_room = 0

    def _answer(self, *asked: Any) -> Any:
        self.asked.append(asked)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    call = script = _answer

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> Any:
        return self._answer(*commands)

    def pipeline_of_scripts(self, calls: Sequence[Any], before: Sequence[Any] = ()) -> Any:
        return self._answer(*before, *calls)

    def on_full(self) -> None:
        self.made_room += 1

    def time(self) -> float:
        return 1000.0


def parts(server: Any) -> tuple[Keys, Tags, Room, Aside]:
    keys = Keys.of(server.endpoint)
    return keys, Tags(keys), Room(server), Aside(server, keys)


def results_of(server: Any) -> Results:
    keys, tags, room, aside = parts(server)
    specs = Specs(server, keys, tags, room)
    return Results(server, keys, tags, Signer(SECRETS), aside, specs, ttl_milliseconds=0)


def test_what_a_commit_leaves_to_do_is_read() -> None:
    results = results_of(Server())
    released = [b"spec", b"frame", b"task.CPU=1", b"3", SUFFIX]
    publish, tell, lost, to_run = results.left_to_do(
        OWNER, [b"c", b"client", SUFFIX, b"x", SUFFIX, b"t", *released, b"r", *released]
    )
    assert tell == [(b"client", SUFFIX)] and lost == [OWNER + SUFFIX]
    assert publish == [to_run] and publish[0][:4] == (b"spec", b"frame", "task.CPU=1", 3)


@pytest.mark.parametrize(("queue", "priority"), [(b"nonsense", b"0"), (b"task.CPU=1", b"ten"), (b"\xff", b"0")])
def test_a_spec_that_nobody_signed_is_put_aside_and_forgotten(queue: bytes, priority: bytes) -> None:
    server = Server()
    publish, *_ = results_of(server).left_to_do(OWNER, [b"t", b"spec", b"frame", queue, priority, SUFFIX])
    assert publish == []
    aside, forgotten = server.asked
    assert b"parked task" in aside[0][2]
    assert forgotten[0][0] == "launched" and forgotten[0][1][-1] == b"spec"


@pytest.mark.parametrize(("traits", "flag"), [(EMBEDDED, b"1"), (RABBITMQ, b"0")])
def test_only_an_engine_that_can_publishes_in_the_commit(traits: Any, flag: bytes) -> None:
    server = Server()
    server.traits = traits
    arguments = results_of(server).commit_arguments(OWNER, [], b"", require_owner=True)
    assert arguments[5] == flag
    assert results_of(server).commit_arguments(OWNER, [], b"", require_owner=True, publish=False)[5] == b"0"


def test_a_start_mark_of_our_own_call_that_came_twice_is_no_older_mark() -> None:
    node = b"n" * NODE_BYTES
    server = Server([node + b"12345678"], [b""])
    keys, tags, room, _ = parts(server)
    specs = Specs(server, keys, tags, room)
    assert specs.start_once(node, [OWNER + b"t" * 12], b"12345678") == [node]
    assert specs.start_once(node, [OWNER + b"t" * 12], b"12345678") == [b""]
    first, second = server.asked
    assert first[3] == second[3] == node + b"12345678"


def test_a_writer_waits_for_room_and_makes_some() -> None:
    server = Server()
    room = Room(server)
    answers: list[Any] = [FULL, FULL, "written"]

    def write() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert room.when_room(write) == "written"
    assert server.made_room == 2


def test_a_writer_that_finds_no_room_is_told_how_much_there_was() -> None:
    server = Server(b"used_memory:990\r\nmaxmemory:1000\r\n")

    def write() -> Any:
        raise FULL

    with pytest.raises(ObjectStoreFull, match="maxmemory"):
        Room(server).when_room(write, patience=0, size=100)


def test_the_environment_says_how_long_a_writer_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> Any:
        raise FULL

    server = Server(b"used_memory:990\r\nmaxmemory:1000\r\n")
    room = Room(server)
    monkeypatch.setenv("RABBITRY_STORE_FULL_SECONDS", "0")
    with pytest.raises(ObjectStoreFull, match="maxmemory"):
        room.when_room(write, size=100)
    monkeypatch.setenv("RABBITRY_STORE_FULL_SECONDS", "soon")
    with pytest.raises(ValueError, match=r"RABBITRY_STORE_FULL_SECONDS='soon' must be a number of seconds"):
        Room(server)


def test_another_error_is_not_waited_for() -> None:
    def write() -> Any:
        raise StoreError("WRONGTYPE")

    with pytest.raises(StoreError, match="WRONGTYPE"):
        Room(Server()).when_room(write)


def test_what_is_put_aside_is_cut_and_its_loss_stops_nothing() -> None:
    server = Server(None, FULL)
    *_, aside = parts(server)
    aside.put("queue", b"x" * (PUT_ASIDE_BYTES + 1), "not signed")
    head, _, data = server.asked[0][0][2].partition(b"\0")
    assert head.endswith(b"queue: not signed") and len(data) == PUT_ASIDE_BYTES
    aside.put("queue", b"", "the store is full")


def test_an_actor_queue_needs_no_announcement() -> None:
    server = Server()
    keys, _, room, _ = parts(server)
    announcements = Announcements(server, keys, Signer(SECRETS), room)
    announcements.queue(actor_queue(b"a" * 16))
    assert server.asked == []
    announcements.queue(node_queue(b"n" * NODE_BYTES))
    assert [command[0] for command in server.asked[0]] == [b"ZREM", b"SADD", b"PUBLISH"]  # it is retired no longer


def test_tags_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry_broker.store.tags.TAGS_KEPT", 2)
    keys = Keys("p:")
    tags = Tags(keys)
    clients = [bytes([number]) * CLIENT_BYTES for number in range(5)]
    assert [tags.of(each) for each in clients] == [keys.tag(each) for each in clients]
    assert len(tags._tags) <= 2
    assert tags.pairs([OWNER + SUFFIX]) == [keys.tag(OWNER), SUFFIX]
