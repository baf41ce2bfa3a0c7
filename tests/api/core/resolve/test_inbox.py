"""Reading the inbox: see `rabbitry.core.resolve.inbox`; threads in many orders: tests/fuzz/interleavings."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from rabbitry.core.resolve import inbox as module
from rabbitry.core.resolve.callbacks import Callbacks
from rabbitry.core.resolve.inbox import Inbox
from rabbitry.exceptions import OwnerDiedError, RabbitrySystemError, load_task_error
from rabbitry_broker.errors import ConnectionLost, RabbitryBrokerError, StoreError
from rabbitry_broker.messages import Completion, encode_completion
from tests.api.core.fakes import OURS, SIGNER, THEIRS, FakeStore, Surroundings, result_id, task_id


class Connection:
    """A list of entries; `fails` is raised once instead."""

    def __init__(self) -> None:
        self.entries: deque[bytes] = deque()
        self.fails: BaseException | None = None
        self.closed = False
        self.server_version = (7, 0, 15)
        self.commands: list[bytes] = []

    def _fail(self) -> None:
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error

    def call(self, command: bytes, key: bytes, count: int) -> Any:
        self._fail()
        self.commands.append(command)
        taken = [self.entries.popleft() for _ in range(min(count, len(self.entries)))]
        return taken or None

    def call_blocking(self, command: bytes, *arguments: Any, timeout: float, on_late: Any = None) -> Any:
        self._fail()
        self.commands.append(command)
        if command == b"BLPOP":
            return [arguments[0], self.entries.popleft()] if self.entries else None
        taken = [self.entries.popleft() for _ in range(min(arguments[-1], len(self.entries)))]
        return [arguments[2], taken] if taken else None

    def limit_replies(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Store(FakeStore):
    """Opens that connection."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection()
        self.orphans: list[bytes] = []

    def open_connection(self, name: str) -> Connection:
        self._note("open_connection", name)
        return self.connection

    def subscribe(self, client: bytes, ids: Any) -> Any:
        return super().subscribe(client, ids)[0], self.orphans


@dataclass
class Case:
    """An inbox over fakes."""

    around: Surroundings = field(default_factory=lambda: Surroundings(store=Store()))
    heard: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        around = self.around
        self.known = around.known()
        self.connection: Connection = around.store.connection
        self.inbox = Inbox(
            around.identity, around.store, self.known, around.flight, register=around.register,
            known_here=around.references.owns, on_note=lambda note: self.heard.append(("note", note.note)),
            learn=lambda function, mean: self.heard.append(("learn", function, mean)),
            store_lost=lambda error: self.heard.append(("lost",)),
            put_aside=lambda where, data, reason: self.heard.append(("aside", where)),
        )  # fmt: skip

    def arrives(self, *numbers: int, **fields: Any) -> None:
        for number in numbers:
            self.around.references.new(result_id(number))
        items = [each for number in numbers for each in (result_id(number), b"N")]
        entry = Completion(fields.get("function", b""), len(numbers), 1.0, items, note=fields.get("note", ""))
        self.connection.entries.append(encode_completion(SIGNER, OURS, entry))

    def wait(self, number: int, timeout: float | None) -> bool:
        key = result_id(number)
        deadline = None if timeout is None else time.monotonic() + timeout
        return self.inbox.wait(lambda: key in self.around.values, lambda: [key], deadline)


@pytest.fixture
def case() -> Case:
    return Case()


def test_who_waits_takes_what_comes(case: Case) -> None:
    case.arrives(1, function=b"f")
    assert case.wait(1, None)
    assert case.heard == [("learn", b"f", 1.0)]
    assert case.wait(1, None), "it is here"


def test_what_is_there_counts_also_without_time(case: Case) -> None:
    case.arrives(1)
    assert case.wait(1, 0)
    assert not case.wait(2, 0)


def test_a_notification_that_got_lost_is_made_up_for_by_a_look_at_the_key(case: Case) -> None:
    case.around.references.new(result_id(1))
    case.around.store.records[result_id(1)] = b"N"
    case.around.flight.count = 1
    assert case.wait(1, 0)
    assert case.around.flight.count == 0


def test_a_long_wait_looks_at_keys_now_and_then(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEY_POLL_SECONDS", 0.0)
    case.around.references.new(result_id(1))
    case.around.store.records[result_id(1)] = b"N"
    assert case.wait(1, None)


def test_a_poll_of_many_goes_round(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_A_POLL", 2)
    keys = [result_id(number) for number in range(3)]
    for _ in range(3):
        case.inbox.look_for(keys)
    assert [call[0] for call in case.around.store.named("fetch")] == [keys[:2], [keys[2], keys[0]], keys[1:]]
    case.inbox.look_for([])


def test_what_is_unreadable_is_put_aside_and_others_are_read(case: Case) -> None:
    case.connection.entries.append(b"nonsense")
    case.arrives(1)
    case.inbox.drain()
    assert case.heard == [("aside", "inbox")] and result_id(1) in case.around.values


def test_several_are_taken_at_a_look(case: Case) -> None:
    case.arrives(1)
    case.arrives(2)
    assert case.wait(2, None)
    assert case.connection.commands == [b"BLMPOP"]


@pytest.mark.parametrize("refused", [False, True])
def test_a_redis_that_pops_one_at_a_time_is_read_as_well(
    case: Case, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_MIN_SECONDS", 60.0)  # on a busy machine this wait counts as a long one
    if refused:
        case.connection.fails = StoreError("NOPERM this user has no permissions to run the 'blmpop' command")
    else:
        case.connection.server_version = (6, 2, 6)
    case.arrives(1)
    case.arrives(2)
    assert case.wait(2, None)
    assert case.connection.commands == [b"BLPOP", b"BLPOP"]


def test_who_took_all_that_a_look_takes_looks_again_without_a_pause(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POP_COUNT", 2)
    monkeypatch.setattr(module, "PAUSE_MIN_SECONDS", -1.0)
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    for number in range(1, 6):
        case.arrives(number)
    assert case.wait(5, None)
    assert case.connection.commands == [b"BLMPOP", b"LPOP", b"LPOP"]
    assert not pauses


def test_notes_are_handed_on(case: Case) -> None:
    case.arrives(note="warning")
    case.inbox.drain()
    assert case.heard == [("note", "warning")]


def test_a_connection_that_breaks_is_opened_again(case: Case) -> None:
    case.connection.fails = ConnectionLost("broken")
    case.arrives(1)
    assert case.wait(1, None)
    assert case.heard[0] == ("lost",)
    assert len(case.around.store.named("open_connection")) == 2


def test_an_interrupted_read_gives_its_connection_up(case: Case) -> None:
    case.connection.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        case.wait(1, None)
    assert case.connection.closed
    case.arrives(1)
    assert case.wait(1, None)


def test_a_key_that_others_overwrote_is_removed(case: Case) -> None:
    case.connection.fails = StoreError("WRONGTYPE Operation against a key holding the wrong kind of value")
    case.inbox.drain()
    assert case.around.store.named("call")[0][0] == b"UNLINK" and case.heard == [("aside", "inbox")]
    case.connection.fails = StoreError("ERR other")
    with pytest.raises(StoreError):
        case.inbox.drain()


def test_only_what_nobody_tells_us_of_is_asked_for_and_once(case: Case) -> None:
    theirs = result_id(1, THEIRS)
    case.inbox.subscribe([result_id(1)])
    assert not case.around.store.named("subscribe")
    case.inbox.subscribe([result_id(1), theirs])
    case.inbox.subscribe([theirs])
    assert case.around.store.named("subscribe") == [([theirs],)]
    assert case.around.registered == 1, "only who lives is told"
    case.inbox.forget([theirs])
    case.inbox.subscribe([theirs])
    assert len(case.around.store.named("subscribe")) == 2


def test_what_is_there_already_or_never_will_be_is_known_at_once(case: Case) -> None:
    there, orphan = result_id(1, THEIRS), result_id(2, THEIRS)
    for key in (there, orphan):
        case.around.references.new(key)
    case.around.store.records[there] = b"N"
    case.around.store.orphans = [orphan]
    case.inbox.subscribe([there, orphan])
    assert case.around.values[there] == b"N"
    assert isinstance(load_task_error(case.around.values[orphan][1:]), OwnerDiedError)


def test_a_subscription_that_fails_within_a_deadline_is_left_to_the_poll(case: Case) -> None:
    case.around.store.fails["subscribe"] = RabbitryBrokerError("away")
    case.inbox.subscribe([result_id(1, THEIRS)], time.monotonic() - 1)
    with pytest.raises(RabbitryBrokerError):
        case.inbox.subscribe([result_id(1, THEIRS)])


def test_an_end_that_was_committed_here_is_counted_once(case: Case) -> None:
    case.around.flight.count = 3
    case.inbox.ended_here([task_id(1)], [], untold=True)
    assert case.around.flight.count == 2
    case.inbox.ended_here([task_id(2)], [result_id(2), b"E"], untold=False)
    assert case.around.flight.count == 1
    case.inbox.make_known([result_id(2), b"E"], tasks=1, ended=[task_id(2)])
    assert case.around.flight.count == 1


def test_a_leader_that_blocks_is_called_by_an_entry(case: Case) -> None:
    case.inbox._blocking = True
    case.inbox.wake()
    case.inbox.wake()
    assert [call[0] for call in case.around.store.named("call")] == [b"LPUSH"], "one entry is enough"
    case.inbox._blocking = True
    case.around.store.fails["call"] = RabbitryBrokerError("away")
    case.inbox.wake()


def test_the_end_of_a_wait_is_not_left_to_redis_which_would_be_late(case: Case) -> None:
    calls: list[Any] = []
    blocking = case.connection.call_blocking

    def call_blocking(*arguments: Any, timeout: float, on_late: Any = None) -> Any:
        calls.append((float(arguments[1]), on_late))
        if on_late is not None:
            on_late()
        return blocking(*arguments, timeout=timeout)

    case.connection.call_blocking = call_blocking  # type: ignore[method-assign]
    assert not case.wait(1, 0.0001)
    (limit, on_late), *_ = calls
    assert limit >= 0.001, "Redis would wait for ever"
    assert on_late is not None
    assert case.around.store.named("call")[0][0] == b"LPUSH"
    assert case.inbox._pump(0.0001, case.known.generation) is False
    assert calls[-1][1] is None, "who looks again anyway is in no hurry"


def test_who_waits_when_the_session_ends_is_told_so(case: Case) -> None:
    case.inbox.close()
    with pytest.raises(RabbitrySystemError, match="shut down"):
        case.wait(1, None)
    case.inbox.drain()


def test_a_follower_is_woken_by_the_leader(case: Case) -> None:
    case.inbox._leader.acquire()
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(case.wait(1, 30)))
    thread.start()
    while not case.inbox._followers:
        time.sleep(0.001)
    case.arrives(1)
    case.inbox._leader.release()
    case.inbox.wake()
    thread.join(20)
    assert found == [True]


def test_callbacks_run_at_once_or_when_it_comes_or_at_the_end(case: Case) -> None:
    callbacks = Callbacks(case.around.references, case.known, case.inbox, send_waiting=lambda: None)
    called: deque[str] = deque()
    came, ended = threading.Event(), threading.Event()
    case.around.values[result_id(1)] = b"N"
    callbacks.when_ready(result_id(1), lambda: called.append("at once"))
    callbacks.when_ready(result_id(1), lambda: 1 // 0)  # logged
    case.arrives(2)
    callbacks.when_ready(result_id(2), came.set)
    assert came.wait(20)
    callbacks.when_ready(result_id(3), ended.set)
    callbacks.close()
    case.inbox.close()
    assert ended.wait(20)
    callbacks.when_ready(result_id(4), lambda: called.append("after the end"))
    assert list(called) == ["at once", "after the end"]
