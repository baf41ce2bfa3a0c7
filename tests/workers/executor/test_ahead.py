"""An executor that a template has made ahead is the child's own in everything in the end, and costs it less."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rabbitry_broker.ids import JOB_BYTES, NODE_BYTES
from rabbitry_workers.executor import process
from rabbitry_workers.executor.ahead import NOBODY, Ahead

CLIENT = b"\x11" * len(NOBODY)


def config(**changes: Any) -> dict[str, Any]:
    """Return what a node says of an executor; nothing of it is there."""
    return {
        "store_url": "redis://127.0.0.1:1/0",
        "broker_url": "amqp://nowhere",
        "secrets": [bytes(32)],
        "prefix": "none:",
        "client_id": CLIENT,
        "job": bytes(JOB_BYTES),
        "detached_id": b"\xff" * len(NOBODY),
        "namespace": "",
        "priority": 0,
        "process": b"",
        "env": b"",
        "setup": b"",
        "as_ray": False,
        "tracing": "",
        "node_id": bytes(NODE_BYTES),
        "address": "127.0.0.1",
        "slots": 1,
        "object_ttl": 0.0,
        "spill_url": "",
        "memory_limit": None,
        "client_lease": 60.0,
        "session": "madeahead",
        "host": bytes(16),
        "events": True,
        "files": "",
    } | changes


def made(*requests: dict[str, Any]) -> Any:
    """Return the executor that is there for the last of these requests to a template."""
    ahead = Ahead()
    for each in requests:
        ahead.prepare(each)
    return ahead.take(requests[-1])[0]


@pytest.fixture(autouse=True)
def collected_again() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.collect()


def reachable(start: object) -> Iterator[object]:
    """Yield all that an object refers to, but for what belongs to modules and classes."""
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, (type, type(os))):
            continue
        seen.add(id(each))
        yield each
        if callable(each) and hasattr(each, "__globals__"):
            waiting += [each.__closure__, each.__defaults__, each.__kwdefaults__]  # type: ignore[attr-defined]
        else:
            waiting += gc.get_referents(each)


def bytes_of_nobody(start: object) -> list[object]:
    """Return what still names nobody."""
    written = (NOBODY, NOBODY.hex().encode())
    found: list[object] = [
        each for each in reachable(start) if isinstance(each, bytes) and any(name in each for name in written)
    ]
    return found + [each for each in reachable(start) if isinstance(each, str) and NOBODY.hex() in each]


def test_nothing_of_it_is_nobodys_once_it_has_become_somebodys() -> None:
    executor = made(config(session=""), config(session=""))
    assert bytes_of_nobody(executor)  # what is looked for would be found
    executor.become(CLIENT)
    assert not bytes_of_nobody(executor)
    assert executor.client.task_ids.next().startswith(CLIENT)
    assert executor.client.references.owns(CLIENT + bytes(16))


def test_it_is_made_at_the_second_request_of_a_job_in_a_row() -> None:
    other = config(job=b"\1" * JOB_BYTES)
    assert made(config()) is None
    assert made(config(), other, config(), other) is None
    assert made(config(), config(client_id=b"\x12" * len(CLIENT))) is not None
    executor = made(config(), config(), other, other)
    assert executor.client.job == other["job"]


def test_whoever_is_of_another_job_does_not_begin_as_it() -> None:
    ahead = Ahead()
    ahead.prepare(config())
    ahead.prepare(config())
    assert ahead.take(config(namespace="other")) == (None, None)


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({"env": b'{"RABBITRY_VALUE_COPIES": "eager"}'}, id="variables count when a client is made"),
        pytest.param({"tracing": "module:function"}, id="what users trace with is loaded first"),
        pytest.param({"prefix": 5}, id="nonsense is found out where it is heard"),
        pytest.param({"process": b"{"}, id="nonsense of users, too"),
    ],
)
def test_some_are_made_where_they_run(own: dict[str, Any]) -> None:
    assert made(config(**own), config(**own), config(**own)) is None


def test_on_the_embedded_engine_it_connects_to_queues_only_when_it_publishes() -> None:
    embedded = config(broker_url=None)
    assert made(embedded, embedded) is not None


def test_the_template_of_an_environment_has_its_variables_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_entered", True)
    own = config(env=b'{"A": "b"}')
    assert made(own, own) is not None


def test_a_template_has_no_more_files_threads_and_sessions_for_it() -> None:
    def files() -> set[str]:
        return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()

    before, threads = files(), threading.active_count()
    executor = made(config(), config())
    assert files() == before
    assert threading.active_count() == threads
    memory = executor.client.store.large.shared
    assert memory is not None and not os.path.exists(f"{memory.directory}/rabbitry-madeahead-lock")
    executor.become(CLIENT)
    assert os.path.exists(f"{memory.directory}/rabbitry-madeahead-lock")
    memory.clear()


def test_one_that_is_forked_afterwards_has_less_to_do() -> None:
    """Pages that a child copies until it has a client, which the kernel counts: one made ahead, and one made there."""
    program = """
import gc, os, resource, sys
from rabbitry_workers.executor import template, process, run
from rabbitry_workers.executor.ahead import ahead
from rabbitry_workers.channel import BlockingChannel
from tests.workers.executor.test_ahead import config
template.preload()
for _ in range(int(sys.argv[1])):
    ahead.prepare(config(session=""))
gc.collect()
gc.freeze()
if not os.fork():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    executor, entry = ahead.take(config(session=""))
    process.enter(config(), entry=entry)
    if executor is None:
        executor = run.Executor(BlockingChannel(), config(session=""))
    else:
        executor.become(config()["client_id"])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
    os._exit(0)
os.wait()
"""
    there, ahead = (
        int(subprocess.run([sys.executable, "-c", program, times], check=True, stdout=subprocess.PIPE).stdout)
        for times in ("1", "2")
    )
    assert ahead < there / 2
