"""The agent's end of the template: one request at a time, exits are told, a template that died is replaced."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.loop import Loop
from rabbitry_workers.channel import Splitter, pack_message
from rabbitry_workers.environments.making import Setup
from rabbitry_workers.executor import template
from rabbitry_workers.node.dispatch import forker as forkers
from rabbitry_workers.node.dispatch.forker import Forker
from rabbitry_workers.node.dispatch.templates import Templates


class Template:
    """The other end of the control socket, answered by hand."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.forked: list[Any] = []
        self.exited: list[Any] = []
        ours, self.theirs = socket.socketpair()
        self.splitter = Splitter()
        self.forker = Forker(self.loop, (0, ours), self.on_forked, lambda *what: self.exited.append(what))

    def on_forked(self, pid: int, tag: Any, fds: list[int]) -> None:
        self.forked.append((pid, tag, len(fds)))
        for fd in fds:
            os.close(fd)

    def asked(self) -> list[Any]:
        self.theirs.setblocking(False)
        try:
            return [message[2] for message in self.splitter.feed(self.theirs.recv(65536))]
        except BlockingIOError:
            return []

    def answer(self, pid: int) -> None:
        fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
        socket.send_fds(self.theirs, [pack_message([template.FORKED, pid])], fds)
        for fd in fds:
            os.close(fd)
        self.loop.run_once(0.1)

    def tell_exit(self, pid: int, status: int) -> None:
        self.theirs.sendall(pack_message(["exited", pid, status]))
        self.loop.run_once(0.1)


@pytest.fixture
def made() -> Iterator[Template]:
    made = Template()
    yield made
    made.theirs.close()
    made.loop.close()


def test_one_is_asked_for_at_a_time_and_comes_with_its_tag_and_descriptors(made: Template):
    made.forker.fork("first", {"n": 1})
    made.forker.fork("second", {"n": 2})
    assert made.asked() == [{"n": 1}]
    made.answer(2**30)
    assert made.forked == [(2**30, "first", 4)]
    assert made.asked() == [{"n": 2}]
    made.answer(2**30 + 1)
    made.tell_exit(2**30, 9)
    assert made.exited == [(2**30, 9)]
    assert made.forker._pids == {2**30 + 1}


def test_what_cannot_be_sent_is_not_asked_for(made: Template):
    with pytest.raises(TypeError):
        made.forker.fork("tag", {"n": object()})
    made.forker.fork("good", {})
    assert len(made.asked()) == 1


def test_a_template_that_died_is_replaced_and_asked_again(made: Template, monkeypatch: pytest.MonkeyPatch):
    ended: list[int] = []
    started: list[Any] = []
    monkeypatch.setattr(forkers.children, "end_group", ended.append)

    def start(command: Any, stdin: int, close_fds: bool) -> Any:
        started.append(socket.socket(fileno=os.dup(stdin)))
        return SimpleNamespace(pid=7, wait=lambda: 0)

    monkeypatch.setattr(forkers.subprocess, "Popen", start)
    made.forker.fork("first", {})
    made.answer(2**30)
    made.forker.fork("second", {"n": 2})
    made.theirs.close()
    made.loop.run_once(0.1)
    assert ended == [2**30]
    (made.theirs,) = started
    made.splitter = Splitter()
    assert made.asked() == [{"n": 2}]
    made.forker.close()


def test_what_a_dead_template_cannot_tell_any_more_is_told_for_it(made: Template, monkeypatch: pytest.MonkeyPatch):
    """A child of an executor may hold its channel open: nothing else would say that the executor has ended."""
    monkeypatch.setattr(forkers, "END_SECONDS", 0.0)
    monkeypatch.setattr(forkers.children, "end_group", lambda _: None)
    other, theirs = socket.socketpair()
    monkeypatch.setattr(forkers, "start_template", lambda: (SimpleNamespace(pid=7, wait=lambda: 0), other))
    made.forker.fork("first", {})
    made.answer(2**30)
    made.theirs.close()
    made.loop.run_once(0.1)
    made.loop.run_once(0.1)
    assert made.exited == [(2**30, signal.SIGKILL)]
    theirs.close()


def test_a_template_that_cannot_be_started_now_is_started_later(made: Template, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forkers, "AGAIN_SECONDS", 0.0)
    other, theirs = socket.socketpair()
    starts: list[Any] = [OSError("too many processes"), (SimpleNamespace(pid=7, wait=lambda: 0), other)]

    def start() -> Any:
        started = starts.pop(0)
        if isinstance(started, OSError):
            raise started
        return started

    monkeypatch.setattr(forkers, "start_template", start)
    made.forker.fork("first", {"n": 1})
    made.theirs.close()
    made.loop.run_once(0.1)
    made.forker.fork("second", {"n": 2})
    while starts:
        made.loop.run_once(0.1)
    made.theirs, made.splitter = theirs, Splitter()
    assert made.asked() == [{"n": 1}]
    made.answer(2**30)
    assert made.asked() == [{"n": 2}]


def test_one_that_cannot_be_taken_on_keeps_nobody_behind_it(made: Template, monkeypatch: pytest.MonkeyPatch):
    taken = made.on_forked

    def refuse(pid: int, tag: Any, fds: list[int]) -> None:
        taken(pid, tag, fds)
        raise OSError("too many open files")

    monkeypatch.setattr(made.forker, "_on_forked", refuse)
    made.forker.fork("first", {"n": 1})
    made.forker.fork("second", {"n": 2})
    made.asked()
    made.answer(2**30)
    assert made.asked() == [{"n": 2}]


def test_who_waits_when_it_ends_is_named(made: Template):
    made.forker.fork("first", {})
    made.forker.fork("second", {})
    assert made.forker.close() == ["first", "second"]
    assert made.forker.close() == []


def test_what_waits_for_the_template_of_an_environment_that_is_given_up_gets_nothing():
    told: list[Any] = []
    nothing: Any = lambda *_: None  # noqa: E731
    templates = Templates(nothing, nothing, nothing, nothing, told.append, nothing, nothing, nothing, nothing)
    templates._homes[b"jobs", b"env"] = (b"jobs", b"env")
    templates._forkers[b"jobs", b"env"] = SimpleNamespace(close=lambda: ["first", "second"])  # type: ignore[assignment]
    templates.cool((b"jobs", b"env"))
    templates.cool((b"jobs", b"env"))
    assert told == ["first", "second"]


def test_an_environment_that_can_do_without_a_template_has_one_for_its_second_executor(
    monkeypatch: pytest.MonkeyPatch,
):
    """And what waits for one that comes to nothing is forked from the node's, as the first was."""
    nothing: Any = lambda *_: None  # noqa: E731
    asked: list[tuple[str, Any, Any]] = []

    def forker(name: str) -> Any:
        return SimpleNamespace(fork=lambda tag, config: asked.append((name, tag, config)), close=list)

    templates = Templates(nothing, forker("node"), nothing, nothing, nothing, nothing, nothing, nothing, nothing)

    def start(key: Any, setup: Setup, config: dict[str, Any]) -> Any:
        templates._forkers[templates._home(key, setup)] = own = forker("own")
        return own

    monkeypatch.setattr(templates, "_start", start)
    key = (b"jobs", b"\x01env")
    lane = SimpleNamespace(key=("CPU=1", *key))
    packed = Setup({}, [], {}, [], libraries=["json"]).pack()
    tags: list[Any] = [(lane, None, b"%d" % number) for number in range(4)]
    configs = [{"setup": packed, "client_id": tag[2]} for tag in tags]
    for at in range(3):
        templates.fork(tags[at], configs[at])
    assert asked == [("node", tags[0], configs[0]), ("own", tags[1], configs[1]), ("own", tags[2], configs[2])]
    templates._useless(templates._homes[key], "it cannot be", tags[1:3])
    templates.fork(tags[3], configs[3])
    assert asked[3:] == [("node", tags[at], configs[at]) for at in (1, 2, 3)]
    templates.cool(key)
    assert not templates._told and not templates._useless_ones and not templates._homes


def test_environments_that_differ_in_marks_share_a_template(monkeypatch: pytest.MonkeyPatch):
    nothing: Any = lambda *_: None  # noqa: E731
    asked: list[tuple[str, bytes]] = []
    started: list[dict[str, Any]] = []
    closed: list[str] = []
    not_forked: list[Any] = []

    def forker(name: str) -> Any:
        def close() -> list[Any]:
            closed.append(name)
            return ["a tag"]

        return SimpleNamespace(fork=lambda tag, config: asked.append((name, tag[0].key[2])), close=close)

    def start(setup: Setup, told: bytes, *_: Any) -> Any:
        started.append(setup.variables)
        return SimpleNamespace(pid=1), None

    monkeypatch.setattr("rabbitry_workers.node.dispatch.templates.start_template", start)
    monkeypatch.setattr(
        "rabbitry_workers.node.dispatch.templates.Forker", lambda *_, **options: forker(f"own {len(started)}")
    )
    loop: Any = SimpleNamespace(call_later=nothing)
    templates = Templates(loop, forker("node"), nothing, nothing, not_forked.append, nothing, nothing, nothing, nothing)

    def fork(env: bytes, **variables: str) -> None:
        lane = SimpleNamespace(key=("CPU=1", b"jobs", env))
        setup = Setup({"env_vars": variables} if variables else {}, [], variables, [], libraries=["json"])
        config = {"setup": setup.pack(), "client_id": b"1", "process": b"", "env": b"", "as_ray": False}
        templates.fork((lane, None, b"1"), config)  # type: ignore[arg-type]

    fork(b"\x01plain")
    fork(b"\x01map", RAY_DATA_SHUFFLE_MAP_WORKER="1")
    fork(b"\x01reduce", RAY_DATA_SHUFFLE_REDUCE_WORKER="1")
    fork(b"\x01plain")
    assert asked == [("node", b"\x01plain"), *(("own 1", each) for each in (b"\x01map", b"\x01reduce", b"\x01plain"))]
    assert started == [{}], "the template has no marks"
    fork(b"\x01other", OMP_NUM_THREADS="3")
    fork(b"\x01other", OMP_NUM_THREADS="3")
    assert asked[4:] == [("node", b"\x01other"), ("own 2", b"\x01other")]
    for env in (b"\x01plain", b"\x01map"):
        templates.cool((b"jobs", env))
    assert not closed, "it is somebody's still"
    templates.cool((b"jobs", b"\x01reduce"))
    assert closed == ["own 1"] and not_forked == ["a tag"]
    templates.close()
    assert closed == ["own 1", "own 2"]


def test_the_end_waits_for_executors_and_says_when_they_stay(
    made: Template, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    monkeypatch.setattr(forkers, "ORDERLY_SECONDS", 0.0)
    monkeypatch.setattr(forkers, "END_SECONDS", 0.0)
    made.forker._pids = {os.getpid(), 2**30}
    made.forker.close()
    assert "still there" in caplog.text
