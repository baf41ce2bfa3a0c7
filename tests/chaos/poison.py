"""Tasks that harm the process they run in."""

from __future__ import annotations

import os
import signal
import sys
import time

import rabbitry
from tests.chaos.ledger import note

RETRIES = 2
CHILD_SECONDS = 20
LINE_BYTES = 1 << 16
PAGE_BYTES = 4096


@rabbitry.remote(max_retries=RETRIES)
def suicide(path: str, key: str) -> None:
    """Kill the executor, each time."""
    note(path, key)
    os.kill(os.getpid(), signal.SIGKILL)


@rabbitry.remote(max_retries=0)
def leave_a_child_and_exit(path: str, key: str) -> None:
    """End the executor while a child of it holds all that it had open."""
    note(path, key)
    if os.fork() == 0:
        end = time.monotonic() + CHILD_SECONDS
        while time.monotonic() < end and os.path.exists(path):  # it must not outlive the test
            time.sleep(0.1)
        os._exit(0)
    os._exit(1)


@rabbitry.remote(max_retries=0)
def return_twice(path: str, key: str) -> str:
    """Fork, and let the child return from the task as well."""
    note(path, key)
    return "child" if os.fork() == 0 else "parent"


@rabbitry.remote(max_retries=0)
def return_later(path: str, key: str) -> str:
    """Fork, and let the child return from the task first: the parent waits for it."""
    note(path, key)
    child = os.fork()
    if child == 0:
        return "child"
    os.waitpid(child, 0)
    time.sleep(0.1)
    return "parent"


@rabbitry.remote(max_retries=0)
def raise_in_a_child(path: str, key: str) -> str:
    """Fork a child that ends by an exception."""
    note(path, key)
    child = os.fork()
    if child == 0:
        raise ValueError("raised in a child")
    return f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


@rabbitry.remote(max_retries=0)
def exit_in_a_child(path: str, key: str) -> str:
    """Fork a child that ends by sys.exit, through all that the executor has on its stack."""
    note(path, key)
    child = os.fork()
    if child == 0:
        sys.exit(3)
    return f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


@rabbitry.remote(max_retries=0)
def close_everything(path: str, key: str) -> str:
    """Close all file descriptors but the three standard ones."""
    note(path, key)
    os.closerange(3, 4096)
    return "closed"


@rabbitry.remote(max_retries=0)
def size_of(path: str, key: str, data: bytes) -> int:
    """Return the size of an argument."""
    note(path, key)
    return len(data)


@rabbitry.remote(max_retries=0)
def shout(path: str, key: str, size: int) -> int:
    """Print very much."""
    note(path, key)
    line = "x" * (LINE_BYTES - 1)
    for _ in range(size // LINE_BYTES):
        print(line)
    return size


@rabbitry.remote(max_retries=0)
def take_all_memory(path: str, key: str, size: int) -> None:
    """Take more memory than it may, and keep it."""
    note(path, key)
    taken = bytearray(size)
    taken[::PAGE_BYTES] = b"x" * len(taken[::PAGE_BYTES])
    time.sleep(CHILD_SECONDS)
