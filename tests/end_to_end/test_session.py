"""Sessions: what starts, what ends, and what a program that dies leaves behind."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import warren
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


def test_init_twice_is_refused_unless_asked_for():
    with warren.init(num_cpus=1, log_to_driver=False) as context:
        assert warren.is_initialized()
        with pytest.raises(RuntimeError):
            warren.init()
        assert warren.init(ignore_reinit_error=True) is context
        assert warren.cluster_resources()["CPU"] == 1
    assert not warren.is_initialized()
    warren.shutdown()


def test_bad_arguments_of_init():
    with pytest.raises(RuntimeError, match="nonsense"):
        warren.init(nonsense=1)
    with pytest.raises(RuntimeError):
        warren.init(local_mode=True)
    with pytest.raises(ValueError, match="num_cpus"):
        warren.init(address="amqp://nobody@127.0.0.1:1", num_cpus=1)
    assert not warren.is_initialized()


def test_a_program_starts_a_session_by_itself_and_leaves_nothing(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 42\n")
    done = run_program(
        """
        import os
        import warren

        class Point:
            def __init__(self, x):
                self.x = x

        @warren.remote
        def look(point):
            import beside
            return beside.VALUE + point.x, os.getcwd(), __name__

        value, directory, name = warren.get(look.remote(Point(1)))
        assert value == 43, value
        assert directory == os.getcwd(), directory
        print("ok", warren.nodes()[0]["NodeID"])
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
            import warren

            @warren.remote
            def sleep():
                time.sleep(600)

            context = warren.init(num_cpus=2)
            refs = [sleep.remote() for _ in range(4)]
            warren.wait(refs, timeout=1)
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
        import warren

        @warren.remote
        def sleep(seconds):
            time.sleep(seconds)
            return seconds

        warren.init(num_cpus=2)
        ref = sleep.remote(60)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            warren.get(ref)
        except KeyboardInterrupt:
            print("interrupted")
        warren.cancel(ref, force=True)
        assert warren.get(sleep.remote(0)) == 0
        print("usable")
        """,
        directory=tmp_path,
    )
    assert done.stdout.split() == ["interrupted", "usable"], done.stderr


def test_a_detached_chain_outlives_its_driver(tmp_path, redis_server, rabbitmq_server, monkeypatch):
    vhost = f"chain-{secrets.token_hex(4)}"
    prefix = f"chain-{secrets.token_hex(4)}:"
    variables = {
        "WARREN_BROKER_URL": rabbitmq_server.add_vhost(vhost),
        "WARREN_STORE_URL": redis_server.url,
        "WARREN_SECRET": secrets.token_hex(16),
        "WARREN_PREFIX": prefix,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    node = start_node("--num-cpus", "2")
    try:
        done = run_program(
            """
            import os, signal
            import warren

            warren.init(address="auto")

            @warren.remote(lifetime="detached")
            def step(value):
                return value + 1

            ref = step.remote(0)
            for _ in range(999):
                ref = step.remote(ref)
            client = warren.current.client()
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
        warren.init(address="auto", log_to_driver=False)
        wait_for_cpus(2)
        assert warren.get(warren.ObjectRef.from_hex(match[0]), timeout=40) == 1000
    finally:
        warren.shutdown()
        stop_node(node)
        client = redis_server.client()
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)
        client.close()
        rabbitmq_server.delete_vhost(vhost)


def test_wrong_addresses_are_told_at_once(monkeypatch):
    monkeypatch.setenv("WARREN_SECRET", "0123456789abcdef")
    started = time.monotonic()
    with pytest.raises(ConnectionError, match="nothing is listening"):
        warren.init(address="amqp://user:hidden@127.0.0.1:1/v", store="redis://127.0.0.1:1")
    assert time.monotonic() - started < 5
    assert not warren.is_initialized()
