"""A node's environments alone: made once, waited for without standing still, let go of when nobody uses them."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.errors import ConnectionLost, StoreError
from rabbitry_broker.loop import Loop
from rabbitry_broker.runtime_environments import Record, digest_code
from rabbitry_workers.environments import cache as caches
from rabbitry_workers.environments.cache import Cache
from rabbitry_workers.environments.making import Setup
from rabbitry_workers.node.dispatch import environments as module
from rabbitry_workers.node.dispatch.environments import (
    TIMEOUT_SECONDS,
    TIMEOUT_SECONDS_MAX,
    Environments,
    send_beside,
    setup_seconds,
)
from rabbitry_workers.node.dispatch.forker import Forker
from rabbitry_workers.node.dispatch.templates import start_template
from tests.workers.node.fakes import FakeExecutor, World

JOB = b"jobs"
CODE = digest_code(b"d" * 16)
KEY = (JOB, CODE)
IN_PLACE = Record({"working_dir": "local:///", "env_vars": {"A": "1"}})


class Environs(World):
    """Environments over a real loop, whose records are in no store."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[bytes, Any] = {}
        self.loop = Loop()  # type: ignore[assignment]
        store = SimpleNamespace(functions=self)
        node = SimpleNamespace(loop=self.loop, store=store, config=self.node.config, endpoint=self.node.endpoint)
        self.served: list[Any] = []
        self.failed: list[Any] = []
        self.more: list[str] = []
        self.warmed: list[Any] = []
        self.cooled: list[Any] = []
        self.warms = False  # templates take their time
        self.environments = Environments(
            node,  # type: ignore[arg-type]
            self.lanes,
            self.executors,
            self.served.append,
            lambda key, error: self.failed.append((key, str(error))),
            self.more.append,
            self.warm,
            self.cooled.append,
        )

    def warm(self, key: Any, setup: Setup) -> bool:
        self.warmed.append(key)
        return self.warms

    def get(self, digest: bytes, kind: Any) -> bytes:
        record = self.records.get(digest)
        if isinstance(record, Exception):
            raise record
        if record is None:
            raise StoreError("it is not in the store any more")
        return record if isinstance(record, bytes) else record.pack()

    def until(self, done: Any, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline
            self.loop.run_once(0.05)


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environs]:
    monkeypatch.setenv(caches.DIRECTORY_VARIABLE, str(tmp_path / "cache"))
    made = Environs()
    yield made
    made.environments.close()
    made.loop.close()


@pytest.fixture
def hanging() -> Iterator[Record]:
    """An environment that is never ready: its builder waits for a server that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield Record({"working_dir": f"http://127.0.0.1:{silent.getsockname()[1]}/code.zip"})


def test_what_the_cache_has_is_ready_at_once(around: Environs) -> None:
    around.records[CODE[1:]] = IN_PLACE
    packed = around.environments.setup(KEY)
    assert packed is not None
    setup = Setup.unpack(packed)
    assert (setup.cwd, setup.path, setup.variables) == ("/", ["/"], {"A": "1"})
    assert not setup.has_template and around.warmed == []
    del around.records[CODE[1:]]
    assert around.environments.setup(KEY) == packed, "the record is read once"


def test_while_its_template_begins_nothing_is_held_for_an_environment(around: Environs) -> None:
    around.records[CODE[1:]] = Record({"preload": ["json"]})
    around.warms = True
    lane = around.lanes.of(around.wait(1, env=CODE, job=JOB).header)
    assert around.environments.setup(KEY) is None
    around.loop.run_once(0.0)
    assert (around.warmed, around.served) == ([KEY], [])
    assert around.environments.is_making(lane)
    around.environments.run_once()
    assert around.more == [lane.key[0]], "what stands behind it in the queue is others' work"
    around.environments.is_up(KEY)
    around.until(lambda: around.served)
    assert around.environments.setup(KEY) is not None
    assert not around.environments.is_making(lane)


@pytest.mark.parametrize("end", ["broken", "job"])
def test_a_template_that_never_begins_is_given_up(around: Environs, end: str) -> None:
    around.records[CODE[1:]] = Record({"preload": ["json"]})
    around.warms = True
    around.environments.setup(KEY)
    if end == "broken":
        around.environments.broken(KEY, "it took too long")
        around.until(lambda: around.failed)
    else:
        around.environments.end_job(JOB)
        around.environments.run_once()
    assert around.cooled == [KEY]
    around.environments.is_up(KEY)  # too late
    assert not around.served


def test_what_is_missing_is_made_by_a_child(around: Environs, tmp_path: Path) -> None:
    (tmp_path / "code.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    around.records[CODE[1:]] = Record({"working_dir": f"file://{tmp_path}/code.zip", "preload": ["json"]})
    piece = around.wait(1, env=CODE, job=JOB)
    lane = around.lanes.of(piece.header)
    assert around.environments.setup(KEY) is None and around.environments.setup(KEY) is None
    assert around.environments.is_making(lane)
    around.until(lambda: around.served)
    assert around.served == [lane] and around.warmed == [KEY] and not around.environments.is_making(lane)
    setup = Setup.unpack(around.environments.setup(KEY) or b"")
    name = Path(setup.cwd).name
    cache = Cache.from_environment()
    assert not cache.remove(name), "the node holds it"
    around.executors[1] = executor = FakeExecutor(1)
    executor.key = KEY
    known = around.environments._known[KEY]
    known.since -= 1000
    around.environments.run_once()
    assert around.cooled == []
    del around.executors[1]
    lane.take_all()
    known.since -= 1000
    around.environments.run_once()
    assert around.cooled == [KEY]
    around.until(lambda: not cache.path(name).exists())


def test_what_cannot_be_is_remembered_for_a_while(around: Environs, tmp_path: Path) -> None:
    around.records[CODE[1:]] = Record({"working_dir": f"file://{tmp_path}/missing.zip"})
    assert around.environments.setup(KEY) is None
    around.until(lambda: around.failed)
    assert "missing.zip cannot be fetched" in around.failed[0][1] and "The end of its log" in around.failed[0][1]
    assert around.environments.setup(KEY) is None
    around.until(lambda: len(around.failed) == 2)
    around.environments._known[KEY].since -= module.REMEMBERED_SECONDS + 1
    around.environments.run_once()
    (tmp_path / "missing.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    around.wait(1, env=CODE, job=JOB)
    assert around.environments.setup(KEY) is None
    around.until(lambda: around.served)


@pytest.mark.parametrize(
    "record",
    [None, b"nonsense", b"[1, 2]", b"[{}, [7]]", Record({"env_vars": {"A": 1}}),
     Record({"working_dir": 7}), Record({"py_modules": {"a": 1}}), Record({"pip": "text"}), Record({"conda": 7}),
     Record({"working_dir": "local:///no/such/directory"}), Record({"config": 7, "pip": {"packages": [7]}}),
     Record({"py_executable": 7}), Record({"container": 7}),
     Record({"_libraries": 7})],
)  # fmt: skip
def test_nonsense_ends_no_node(around: Environs, record: Any) -> None:
    if record is not None:
        around.records[CODE[1:]] = record
    assert around.environments.setup(KEY) is None
    around.until(lambda: around.failed)
    assert around.failed[0][0] == KEY


def test_redis_that_is_away_is_no_failure(around: Environs) -> None:
    around.records[CODE[1:]] = ConnectionLost("away")
    with pytest.raises(ConnectionLost):
        around.environments.setup(KEY)
    around.environments.set_up(*KEY)
    around.records[CODE[1:]] = IN_PLACE
    assert around.environments.setup(KEY)
    around.environments.set_up(JOB, b"no hash")


def kill_child(around: Environs) -> None:
    (build,) = around.environments._builds
    os.kill(build.process.pid, signal.SIGKILL)
    around.until(lambda: build not in around.environments._builds)


def test_another_child_goes_on_for_one_that_was_killed(around: Environs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "code.zip")
    around.records[CODE[1:]] = Record({"working_dir": f"file://{tmp_path}/code.zip"})
    around.environments.set_up(*KEY)
    kill_child(around)
    (tmp_path / "code.zip").unlink()
    (tmp_path / "code.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    around.until(lambda: around.environments.setup(KEY))
    assert not around.failed


def test_where_every_child_is_killed_the_environment_cannot_be(around: Environs, hanging: Record) -> None:
    around.records[CODE[1:]] = hanging
    around.environments.set_up(*KEY)
    for _ in range(module.TRIES):
        assert not around.failed
        kill_child(around)
    around.until(lambda: around.failed)
    assert "was killed" in around.failed[0][1]


def test_what_takes_too_long_is_ended_with_all_that_it_started(around: Environs, hanging: Record) -> None:
    around.records[CODE[1:]] = Record({**hanging.env, "config": {"setup_timeout_seconds": 1}})
    around.environments.set_up(*KEY)
    (build,) = around.environments._builds
    around.until(lambda: around.failed)
    assert "not set up within 1 s" in around.failed[0][1]
    assert build.process.wait(10) == -signal.SIGKILL


def test_so_many_are_made_at_a_time_and_more_work_is_taken_meanwhile(around: Environs, hanging: Record) -> None:
    for number in range(module.AT_ONCE + 2):
        code = digest_code(bytes([number]) * 16)
        around.records[code[1:]] = hanging
        around.wait(1, env=code, job=JOB)
        assert around.environments.setup((JOB, code)) is None
    assert len(around.environments._builds) == module.AT_ONCE
    around.environments.run_once()
    assert around.more == ["CPU=1"]
    first = next(iter(around.environments._builds))
    around.environments.end_job(b"other")
    around.lanes.clear()  # what waited is dropped: nobody could read its results
    around.environments.run_once()
    assert first in around.environments._builds
    around.environments.end_job(JOB)
    around.environments.run_once()
    assert not around.environments._builds and not around.environments._known
    around.loop.run_once(0.0)
    assert not around.failed


def test_what_was_given_up_before_its_turn_and_asked_for_again_is_made_once(around: Environs, hanging: Record) -> None:
    for number in range(module.AT_ONCE + 1):
        around.records[digest_code(bytes([number]) * 16)[1:]] = hanging
    for number in range(module.AT_ONCE):
        around.environments.set_up(JOB, digest_code(bytes([number]) * 16))
    late = (b"late", digest_code(bytes([module.AT_ONCE]) * 16))
    around.environments.set_up(*late)
    around.environments.end_job(late[0])
    around.environments.run_once()
    around.environments.set_up(*late)
    around.environments.end_job(JOB)
    around.environments.run_once()
    assert [build.key for build in around.environments._builds] == [late]


@pytest.mark.parametrize("state", ["making", "warming"])
def test_work_that_outlives_its_driver_gets_its_environment(around: Environs, tmp_path: Path, state: str) -> None:
    (tmp_path / "code.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    made = {"working_dir": f"file://{tmp_path}/code.zip"} if state == "making" else {"preload": ["json"]}
    around.records[CODE[1:]] = Record(made)
    around.warms = True
    lane = around.lanes.of(around.wait(1, env=CODE, job=JOB, lifetime="detached").header)
    assert around.environments.setup(KEY) is None
    around.environments.end_job(JOB)
    around.environments.run_once()
    assert around.environments.is_making(lane)
    around.environments.is_up(KEY)
    around.until(lambda: around.served)
    assert around.environments.setup(KEY) is not None and not around.failed and not around.cooled


def test_what_nobody_waited_for_when_its_driver_left_is_made_when_somebody_does(
    around: Environs, hanging: Record
) -> None:
    around.records[CODE[1:]] = hanging
    around.environments.set_up(*KEY)
    around.environments.end_job(JOB)
    around.environments.run_once()
    around.records[CODE[1:]] = IN_PLACE
    assert around.environments.setup(KEY) is not None and not around.failed


def test_of_templates_that_nobody_uses_a_few_stay(around: Environs):
    for number in range(module.TEMPLATES_IDLE + 2):
        code = digest_code(bytes([number]) * 16)
        around.records[code[1:]] = Record({"preload": ["json"], "env_vars": {"A": str(number)}})
        assert around.environments.setup((JOB, code))
    around.environments.run_once()
    assert around.cooled == [(JOB, digest_code(bytes([number]) * 16)) for number in range(2)]


def test_processes_that_cannot_start_break_an_environment(around: Environs) -> None:
    around.records[CODE[1:]] = Record({"py_executable": "/bin/false"})
    assert around.environments.setup(KEY)
    assert around.warmed == [KEY]
    around.environments.broken(KEY, "they end")
    around.until(lambda: around.failed)
    assert around.failed[0][1].count("they end") == 1
    around.environments.broken((JOB, digest_code(secrets.token_bytes(16))), "nobody knows it")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(5, 5.0), (-1, None), (10**400, TIMEOUT_SECONDS_MAX), (float("nan"), TIMEOUT_SECONDS), ("x", TIMEOUT_SECONDS)],
)
def test_how_long_a_setup_may_take_is_a_time_that_the_loop_can_wait(said: Any, seconds: float | None) -> None:
    assert setup_seconds({"config": {"setup_timeout_seconds": said}}) == seconds


def test_a_template_that_reads_nothing_does_not_hold_the_loop_up() -> None:
    began = time.monotonic()
    child, ours = start_template(Setup({}, [], {}, [], command=["sleep", "60"]), b"x" * 3_000_000, None, ())
    try:
        assert time.monotonic() - began < 10
    finally:
        child.kill()
        child.wait()
    with ours:
        ours.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert ours.recv(1) == b""  # nobody else holds the other end


def test_what_is_sent_beside_the_loop_arrives_whole() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_beside(ours, bytes(range(256)) * 8192)
        theirs.settimeout(10)
        found = b""
        while len(found) < 256 * 8192:
            found += theirs.recv(1 << 20)
        assert found == bytes(range(256)) * 8192


def test_nothing_is_asked_of_a_template_that_is_not_ready() -> None:
    ours, theirs = socket.socketpair()
    loop = Loop()

    def never() -> Any:
        raise AssertionError

    with theirs:
        forker = Forker(loop, (0, ours), never, never, start=never, useless=never)
        forker.fork("tag", {"env": "x" * 3_000_000})  # returns
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        loop.remove_handler(ours.fileno())
        ours.close()
    loop.close()
