"""The event loop: descriptors, timers, callbacks, and threads that share it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from rabbitry_broker.loop import Loop

PATIENCE_S = 20.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(PATIENCE_S)
    yield ours, theirs
    ours.close()
    theirs.close()


def run_until(loop: Loop, done: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        loop.run_once(0.05)


def test_readable_descriptor_calls_its_handler(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    got = []
    loop.add_handler(ours.fileno(), lambda fd, events: got.append((ours.recv(10), events)), loop.READ)
    theirs.send(b"hello")
    run_until(loop, lambda: got)
    assert got == [(b"hello", loop.READ)]


def test_timers_run_in_order_and_cancelled_ones_do_not(loop: Loop) -> None:
    ran: list[int] = []
    loop.call_later(0.03, lambda: ran.append(3))
    cancelled = loop.call_later(0.02, lambda: ran.append(2))
    loop.call_later(0.01, lambda: ran.append(1))
    loop.call_later(0.01, lambda: ran.append(11))
    loop.remove_timeout(cancelled)
    loop.remove_timeout(cancelled)
    run_until(loop, lambda: 3 in ran)
    assert ran == [1, 11, 3]


def test_thousands_of_cancelled_timers_are_forgotten(loop: Loop) -> None:
    for _ in range(5000):
        loop.remove_timeout(loop.call_later(3600, lambda: None))
    assert len(loop._timers) < 1000


def test_callback_from_another_thread_wakes_the_loop(loop: Loop) -> None:
    thread = threading.Thread(target=loop.run)
    thread.start()
    for _ in range(200):
        done = threading.Event()
        loop.add_callback(done.set)
        assert done.wait(PATIENCE_S)
    loop.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_timer_from_another_thread_shortens_the_sleep(loop: Loop) -> None:
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.call_later(3600, lambda: None)
    for _ in range(50):
        done = threading.Event()
        loop.call_later(0.001, done.set)
        assert done.wait(PATIENCE_S)
    loop.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_stop_before_run_ends_it_at_once(loop: Loop) -> None:
    loop.stop()
    loop.run()


def test_failing_callbacks_are_logged_and_stop_nothing(
    loop: Loop, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = pair
    ran = []

    def failing(fd: int, events: int) -> None:
        ours.recv(10)
        raise ValueError("handler down")

    def failing_callback() -> None:
        raise ValueError("callback down")

    loop.add_handler(ours.fileno(), failing, loop.READ)
    theirs.send(b"x")
    loop.add_callback(failing_callback)
    loop.call_later(0, failing_callback)
    loop.call_later(0.01, lambda: ran.append(1))
    run_until(loop, lambda: ran and len(caplog.records) == 3)
    assert "handler down" in caplog.text
    assert "callback down" in caplog.text


def test_write_from_another_thread_needs_no_turn_of_the_loop(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    waiting: list[bytes] = []

    def handler(fd: int, events: int) -> None:
        if events & loop.WRITE:
            ours.send(waiting.pop())
            loop.update_handler(fd, loop.READ)

    def send() -> None:
        waiting.append(b"now")
        loop.update_handler(ours.fileno(), loop.READ | loop.WRITE)

    loop.add_handler(ours.fileno(), handler, loop.READ)
    loop.write_inline(send)  # Nobody runs the loop.
    assert theirs.recv(10) == b"now"


def test_what_the_socket_does_not_take_is_written_by_the_loop(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    data = bytearray(b"x" * 5_000_000)

    def handler(fd: int, events: int) -> None:
        if events & loop.WRITE:
            try:
                del data[: ours.send(data)]
            except BlockingIOError:
                return
            if not data:
                loop.update_handler(fd, loop.READ)

    loop.add_handler(ours.fileno(), handler, loop.READ)
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.write_inline(lambda: loop.update_handler(ours.fileno(), loop.READ | loop.WRITE))
    received = 0
    while received < 5_000_000:
        received += len(theirs.recv(1 << 20))
    loop.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not data


def test_hung_up_descriptor_is_reported_once_removed_and_paused_ones_stay_quiet(loop: Loop) -> None:
    reader, writer = os.pipe()
    calls: list[int] = []
    loop.add_handler(reader, lambda fd, events: calls.append(events), 0)
    os.close(writer)
    loop.run_once(0.01)
    assert calls == []
    loop.update_handler(reader, loop.READ)
    run_until(loop, lambda: calls)
    assert calls[0] == loop.READ
    loop.remove_handler(reader)
    os.close(reader)
    del calls[:]
    loop.run_once(0.01)
    assert calls == []


def test_a_reused_descriptor_number_gets_no_event_of_its_predecessor(loop: Loop) -> None:
    first, far = socket.socketpair()
    second, far_second = socket.socketpair()
    calls: list[str] = []
    reused: list[socket.socket] = []

    def replace(fd: int, events: int) -> None:
        # Both are ready in one round; whichever runs first takes the other's place.
        for sock in (first, second):
            loop.remove_handler(sock.fileno())
        second.close()
        first.close()
        while len(reused) < 4:
            reused.extend(socket.socketpair())
        for sock in reused:
            loop.add_handler(sock.fileno(), lambda fd, events: calls.append("wrong"), loop.READ)

    loop.add_handler(first.fileno(), replace, loop.READ)
    loop.add_handler(second.fileno(), replace, loop.READ)
    far.send(b"1")
    far_second.send(b"2")
    run_until(loop, lambda: reused)
    loop.run_once(0.01)
    assert calls == []
    for sock in (*reused, far, far_second):
        sock.close()


@pytest.fixture
def running(loop: Loop) -> Iterator[Loop]:
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield loop
    loop.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def rests(loop: Loop) -> bool:
    """Wait until the loop's thread lets events gather."""
    deadline = time.monotonic() + PATIENCE_S
    while not loop._resting:
        assert time.monotonic() < deadline
        loop.add_callback(lambda: None)  # a round, after which it may rest
        time.sleep(0.001)
    return True


def test_events_gather_while_a_loop_rests(running: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    got: list[bytes] = []
    running.add_handler(ours.fileno(), lambda fd, events: got.append(ours.recv(100)), running.READ)
    running.rest = 1000 * PATIENCE_S
    assert rests(running)
    for each in (b"a", b"b", b"c"):
        theirs.send(each)
    assert running._resting
    assert not got
    waited = threading.Condition(running.lock)
    with running.lock, running.no_rest():
        while not got:  # whoever waits gets all of it, at once
            waited.wait(0.01)
    assert got == [b"abc"]


@pytest.mark.parametrize("what", ["callback", "timer", "stop", "writing"])
def test_what_is_asked_of_a_resting_loop_is_done_at_once(
    running: Loop, pair: tuple[socket.socket, socket.socket], what: str
) -> None:
    running.rest = 1000 * PATIENCE_S
    assert rests(running)
    done = threading.Event()
    if what == "callback":
        running.add_callback(done.set)
    elif what == "timer":
        running.call_later(0.01, done.set)
    elif what == "writing":
        with running.lock:
            running.add_handler(pair[0].fileno(), lambda fd, events: done.set(), running.WRITE)
    else:
        running.stop()
        done.set()
    assert done.wait(PATIENCE_S)


def test_a_loop_that_has_to_write_does_not_rest(running: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    sent = 0

    def write(fd: int, events: int) -> None:
        nonlocal sent
        try:
            sent += ours.send(bytes(100_000))
        except BlockingIOError:
            return
        if sent >= 5_000_000:
            running.update_handler(fd, 0)

    running.rest = 1000 * PATIENCE_S
    assert rests(running)
    running.add_handler(ours.fileno(), write, running.WRITE)
    received = 0
    while received < 5_000_000:
        received += len(theirs.recv(1_000_000))
