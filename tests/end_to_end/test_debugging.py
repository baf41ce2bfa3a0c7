"""A task that stops at a breakpoint waits for `rabbitry debug`, and goes on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

import rabbitry
from rabbitry.exceptions import TaskError
from rabbitry_broker.store.keys import Keys
from rabbitry_workers.cli import main
from tests.end_to_end.conftest import node_environment
from tests.servers import wait_until

TIMEOUT = 30


@rabbitry.remote(max_retries=0)
def stops(value):
    secret = value * 2
    breakpoint()  # noqa: T100
    return secret


@rabbitry.remote(max_retries=0, runtime_env={"env_vars": {"RABBITRY_DEBUG_POST_MORTEM": "1"}})
def fails(value):
    inner = value + 1
    return inner / 0


@rabbitry.remote(max_retries=0, runtime_env={"env_vars": {"RABBITRY_DEBUG_POST_MORTEM": "1"}})
def fails_with(text):
    raise ValueError(text)


@rabbitry.remote(num_cpus=0)
class Stops:
    def stop(self):
        from rabbitry.util import rpdb

        here = "in an actor"
        rpdb.set_trace()
        return here


@pytest.fixture
def waiting(start_cluster, capfd):
    cluster = start_cluster({"num_cpus": 2})

    def places(count):
        found = []

        def there():
            capfd.readouterr()
            assert main(["debug", "--list", "--format", "json", "--address", cluster.address]) == 0
            found[:] = json.loads(capfd.readouterr().out)
            return len(found) == count

        wait_until(there, f"{count} wait at a breakpoint")
        return found

    places.address = cluster.address
    return places


def debug(address, place, commands):
    return subprocess.run(
        [sys.executable, "-m", "rabbitry_workers", "debug", "--id", place["id"], "--address", address],
        env=node_environment(), input=commands, capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip


def test_variables_are_looked_at_and_the_task_goes_on(waiting):
    ref = stops.remote(21)
    (place,) = waiting(1)
    assert (place["name"], place["error"]) == ("stops", "")
    assert place["file"] == __file__
    assert place["host"] == "127.0.0.1"
    assert "token" not in place
    shown = debug(waiting.address, place, "p secret\nsecret = 7\nc\n")
    assert "(rabbitry-pdb) 42" in shown
    assert "test_debugging.py" in shown
    assert rabbitry.get(ref, timeout=TIMEOUT) == 7
    waiting(0)


def test_the_end_of_the_input_ends_the_choice(waiting):
    ref = stops.remote(1)
    (place,) = waiting(1)
    done = subprocess.run(
        [sys.executable, "-m", "rabbitry_workers", "debug", "--address", waiting.address],
        env=node_environment(), input="", capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert place["id"] in done.stdout
    debug(waiting.address, place, "c\n")
    assert rabbitry.get(ref, timeout=TIMEOUT) == 2


def test_who_is_gone_leaves_the_task_to_go_on_and_quit_fails_it(waiting):
    ref = stops.remote(1)
    (place,) = waiting(1)
    debug(waiting.address, place, "p secret\n")  # and no more
    assert rabbitry.get(ref, timeout=TIMEOUT) == 2
    ref = stops.remote(1)
    (place,) = waiting(1)
    debug(waiting.address, place, "q\n")
    with pytest.raises(TaskError, match="BdbQuit"):
        rabbitry.get(ref, timeout=TIMEOUT)


def test_what_failed_is_looked_at_before_it_fails(waiting):
    ref = fails.remote(4)
    (place,) = waiting(1)
    assert place["error"] == "ZeroDivisionError: division by zero"
    assert "\n5\n" in debug(waiting.address, place, "p inner\nc\n").replace("(rabbitry-pdb) ", "\n")
    with pytest.raises(ZeroDivisionError):
        rabbitry.get(ref, timeout=TIMEOUT)


def test_an_error_whose_text_is_no_text_is_looked_at_too(waiting):
    ref = fails_with.remote("name \udcff")
    (place,) = waiting(1)
    assert place["error"] == "ValueError: name \\udcff"
    debug(waiting.address, place, "c\n")
    with pytest.raises(ValueError, match="name"):
        rabbitry.get(ref, timeout=TIMEOUT)


def test_without_the_token_nobody_is_let_in_and_actors_stop_too(waiting):
    from rabbitry import current
    from rabbitry.debugging import waiting as read

    actor = Stops.remote()
    ref = actor.stop.remote()
    (place,) = waiting(1)
    client = current.client()
    (facts,) = read(client.store, client.keys, client.signer)
    for said in (b"x" * 64, b"", facts["token"].encode()[:63]):
        with socket.create_connection((facts["host"], facts["port"]), 5) as connection:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(10) == b""
    assert "in an actor" in debug(waiting.address, place, "p here\nc\n")
    assert rabbitry.get(ref, timeout=TIMEOUT) == "in an actor"


def test_entries_of_processes_that_are_gone_and_forged_ones_are_forgotten(waiting):
    from rabbitry import current
    from rabbitry.debugging import waiting as read
    from rabbitry_broker.messages import encode

    client = current.client()
    keys: Keys = client.keys
    old = client.signer.seal(b"breakpoint" + b"old", encode({"seen": 0.0, "since": 0.0}))
    for name, record in (
        (b"old", old),
        (b"forged", b"nonsense"),
        (b"empty", client.signer.seal(b"breakpointempty", b"")),
    ):
        client.store.call(b"HSET", keys.breakpoints, name, record)
    assert read(client.store, keys, client.signer) == []
    assert client.store.call(b"EXISTS", keys.breakpoints) == 0
