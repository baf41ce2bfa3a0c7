"""What the template does once leaves nothing behind that its children would share."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rabbitry_workers.executor import warming

PROGRAM = """
import gc, os, threading
from rabbitry.client import Client
from rabbitry_workers.executor import warming
made = []
make = warming._client
warming._client = lambda: made.append(1) or make()
files = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
warming.warm()
assert len(made) == warming.TIMES
assert threading.active_count() == 1, threading.enumerate()
assert files == (sorted(os.listdir("/proc/self/fd")) if files else [])
"""


def test_it_starts_no_thread_and_opens_nothing() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_it_connects_to_nothing_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(socket, "socket", None)
    warming.warm()


def test_an_executor_that_is_forked_afterwards_has_less_to_do() -> None:
    """Pages that a child has to copy for its client, without and with warming: both are counted by the kernel."""
    counted = []
    for times in (0, warming.TIMES):
        program = f"""
import os, resource, gc
from rabbitry_workers.executor import warming
warming.TIMES = {times}
warming.warm()
gc.collect()
gc.freeze()
if not os.fork():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    warming._client()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
    os._exit(0)
os.wait()
"""
        done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
        counted.append(int(done.stdout))
    assert counted[1] < counted[0]
