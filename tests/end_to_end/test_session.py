"""Sessions: what starts, what ends, and what a program that dies leaves behind."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import rabbitry
from rabbitry import current
from rabbitry_workers.stop import stop_nodes
from tests.end_to_end.conftest import node_environment, start_node, stop_node, wait_for_cpus
from tests.servers import wait_until


def run_program(source: str, *, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a file in `directory`."""
    path = directory / "program.py"
    path.write_text(textwrap.dedent(source))
    return subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**node_environment(), **variables},
        cwd=directory,
    )


def descendants(pid: int) -> set[int]:
    """Return the processes that come from `pid`."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_init_twice_is_refused_unless_asked_for():
    with rabbitry.init(num_cpus=1, log_to_driver=False) as context:
        assert rabbitry.is_initialized()
        with pytest.raises(RuntimeError):
            rabbitry.init()
        assert rabbitry.init(ignore_reinit_error=True) is context
        assert rabbitry.cluster_resources()["CPU"] == 1
    assert not rabbitry.is_initialized()
    rabbitry.shutdown()


def test_bad_arguments_of_init():
    with pytest.raises(RuntimeError, match="nonsense"):
        rabbitry.init(nonsense=1)
    with pytest.raises(RuntimeError):
        rabbitry.init(local_mode=True)
    with pytest.raises(ValueError, match="num_cpus"):
        rabbitry.init(address="amqp://nobody@127.0.0.1:1", num_cpus=1)
    assert not rabbitry.is_initialized()


def test_a_program_starts_a_session_by_itself_and_leaves_nothing(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 42\n")
    done = run_program(
        """
        import os
        import rabbitry

        class Point:
            def __init__(self, x):
                self.x = x

        @rabbitry.remote
        def look(point):
            import beside
            return beside.VALUE + point.x, os.getcwd(), __name__

        value, directory, name = rabbitry.get(look.remote(Point(1)))
        assert value == 43, value
        assert directory == os.getcwd(), directory
        print("ok", rabbitry.nodes()[0]["NodeID"])
        """,
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok")


def test_nothing_is_left_of_a_driver_that_was_killed(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        textwrap.dedent(
            """
            import time
            import rabbitry

            @rabbitry.remote
            def sleep():
                time.sleep(600)

            context = rabbitry.init(num_cpus=2)
            refs = [sleep.remote() for _ in range(4)]
            rabbitry.wait(refs, timeout=1)
            print(context.address_info["session_dir"], flush=True)
            time.sleep(600)
            """
        )
    )
    driver = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=node_environment())
    assert driver.stdout is not None
    directory = driver.stdout.readline().strip()
    family = descendants(driver.pid)
    assert len(family) >= 4
    driver.kill()
    driver.wait()
    driver.stdout.close()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family), "all processes to end", timeout=20)
    wait_until(lambda: not os.path.exists(directory), "the run directory to go", timeout=20)


def test_ctrl_c_in_get_leaves_the_session_usable(tmp_path):
    done = run_program(
        """
        import os, signal, threading, time
        import rabbitry

        @rabbitry.remote
        def sleep(seconds):
            time.sleep(seconds)
            return seconds

        rabbitry.init(num_cpus=2)
        ref = sleep.remote(60)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            rabbitry.get(ref)
        except KeyboardInterrupt:
            print("interrupted")
        rabbitry.cancel(ref, force=True)
        assert rabbitry.get(sleep.remote(0)) == 0
        print("usable")
        """,
        directory=tmp_path,
    )
    assert done.stdout.split() == ["interrupted", "usable"], done.stderr


def test_a_detached_chain_outlives_its_driver(tmp_path, redis_server, rabbitmq_server, monkeypatch):
    vhost = f"chain-{secrets.token_hex(4)}"
    prefix = f"chain-{secrets.token_hex(4)}:"
    variables = {
        "RABBITRY_BROKER_URL": rabbitmq_server.add_vhost(vhost),
        "RABBITRY_STORE_URL": redis_server.url,
        "RABBITRY_SECRET": secrets.token_hex(16),
        "RABBITRY_PREFIX": prefix,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    node = start_node("--num-cpus", "2")
    try:
        done = run_program(
            """
            import os, signal
            import rabbitry

            rabbitry.init(address="auto")

            @rabbitry.remote(lifetime="detached")
            def step(value):
                return value + 1

            ref = step.remote(0)
            for _ in range(999):
                ref = step.remote(ref)
            client = rabbitry.current.client()
            client.outbox.flush()
            client.publisher.flush(10)
            print(ref.hex(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            directory=tmp_path,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        match = re.search(r"[0-9a-f]{56}", done.stdout)
        assert match is not None
        rabbitry.init(address="auto", log_to_driver=False)
        wait_for_cpus(2)
        assert rabbitry.get(rabbitry.ObjectRef.from_hex(match[0]), timeout=40) == 1000
    finally:
        rabbitry.shutdown()
        stop_node(node)
        client = redis_server.client()
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)
        client.close()
        rabbitmq_server.delete_vhost(vhost)


def test_wrong_addresses_are_told_at_once(monkeypatch):
    monkeypatch.setenv("RABBITRY_SECRET", "0123456789abcdef")
    started = time.monotonic()
    with pytest.raises(ConnectionError, match="nothing is listening"):
        rabbitry.init(address="amqp://user:hidden@127.0.0.1:1/v", store="redis://127.0.0.1:1")
    assert time.monotonic() - started < 5
    assert not rabbitry.is_initialized()


def test_what_is_left_of_a_session_that_was_shut_down():
    """Its refs are refused at once, whatever they are used for; who waits while it ends is told so."""

    @rabbitry.remote
    def same(x):
        return x

    @rabbitry.remote(resources={"nowhere": 1})
    def never():
        return None

    @rabbitry.remote
    class Actor:
        def take(self, x=None):
            return x

    rabbitry.init(num_cpus=1, log_to_driver=False)
    try:
        result, put, waiting, actor = same.remote(1), rabbitry.put(2), never.remote(), Actor.remote()
        rabbitry.get([result, actor.take.remote()])
        outcomes: list[BaseException | None] = []

        def note(call):
            try:
                call()
            except BaseException as error:
                outcomes.append(error)

        future = waiting.future()
        told: list[object] = []
        waiting._on_completed(told.append)
        waits = [
            lambda: rabbitry.get(waiting),
            lambda: rabbitry.wait([waiting]),
            lambda: rabbitry.get(waiting, timeout=40),
        ]
        threads = [threading.Thread(target=note, args=(wait,), daemon=True) for wait in waits]
        for thread in threads:
            thread.start()
        inbox = rabbitry.current.client().inbox
        wait_until(lambda: inbox._leader.locked() and inbox._followers, 20)
    finally:
        rabbitry.shutdown()
    for thread in threads:
        thread.join(20)
    assert [type(error) for error in outcomes] == [rabbitry.exceptions.RabbitrySystemError] * 3
    assert "shut down" in str(outcomes[0])
    assert isinstance(future.exception(20), rabbitry.exceptions.RabbitrySystemError)
    assert not told, "nobody asked for it: Serve's long polls take whatever comes for an answer"

    rabbitry.init(num_cpus=1, log_to_driver=False)
    try:
        fresh, other = rabbitry.put(3), Actor.remote()
        for use in (
            lambda: rabbitry.get(result),
            lambda: rabbitry.get([fresh, put]),
            lambda: rabbitry.wait([fresh, result]),
            lambda: rabbitry.put([put]),
            lambda: same.remote(result),
            lambda: same.remote([put]),
            lambda: same.remote(actor),
            lambda: other.take.remote(result),
        ):
            with pytest.raises(ValueError, match="shut down"):
                use()
        with pytest.raises(TypeError, match="shut down"):
            rabbitry.cancel(waiting)
        with pytest.raises(rabbitry.exceptions.ActorHandleNotFoundError):
            actor.take.remote()
        assert rabbitry.get(other.take.remote(fresh)) == 3
    finally:
        rabbitry.shutdown()


def test_calls_after_the_session_was_killed_say_so():
    @rabbitry.remote
    def double(x: int) -> int:
        return 2 * x

    @rabbitry.remote
    class Doubler:
        def double(self, x: int) -> int:
            return 2 * x

    before = descendants(os.getpid())
    rabbitry.init(num_cpus=1, log_to_driver=False)
    actor = Doubler.remote()
    assert rabbitry.get([double.remote(1), actor.double.remote(2)]) == [2, 4]
    never = double.options(resources={"none": 1}).remote(1)
    (supervisor,) = [each for each in descendants(os.getpid()) - before if parent_of(each) == os.getpid()]
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: descendants(os.getpid()) <= before | {supervisor}, "the session is gone")
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: rabbitry.get(never),
        "get of many": lambda: rabbitry.get([never, double.remote(1)]),
        "wait": lambda: rabbitry.wait([never]),
        "put": lambda: rabbitry.put(b"x" * 1_000_000),
        "task": lambda: rabbitry.get(double.remote(1)),
        "call": lambda: rabbitry.get(actor.double.remote(1)),
        "new function": lambda: rabbitry.remote(lambda: 1).remote(),
        "new actor": Doubler.remote,
        "named": lambda: Doubler.options(name="one").remote(),
        "get_actor": lambda: rabbitry.get_actor("one"),
        "kill": lambda: rabbitry.kill(actor),
        "cancel": lambda: rabbitry.cancel(never),
        "nodes": rabbitry.nodes,
        "resources": rabbitry.available_resources,
    }
    outcomes: dict[str, str] = {}
    for name, call in calls.items():
        try:
            outcomes[name] = repr(call())
        except Exception as error:
            outcomes[name] = type(error).__name__
    rabbitry.shutdown()
    assert outcomes == dict.fromkeys(calls, "RabbitrySystemError")


def test_the_only_node_of_a_session_that_is_asked_to_leave_is_replaced(tmp_path: Path) -> None:
    go = tmp_path / "go"

    @rabbitry.remote
    def begin_and_wait() -> str:
        (tmp_path / "begun").touch()
        while not go.exists():
            time.sleep(0.01)
        return rabbitry.get_runtime_context().get_node_id()

    with rabbitry.init(num_cpus=1):
        running = begin_and_wait.remote()
        wait_until((tmp_path / "begun").exists, "it runs")
        (left,) = stop_nodes(current.client().endpoint, None)
        wait_until(lambda: current.client().node_records()[0]["draining"], "the node drains")
        later = begin_and_wait.remote()
        go.touch()
        first, second = rabbitry.get([running, later], timeout=40)
        assert first.startswith(left.split()[0]) and second != first
        assert [node["NodeID"] for node in rabbitry.nodes() if node["Alive"]] == [second]
