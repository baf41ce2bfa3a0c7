"""What snippets say: one JSON line a fact. Imported by them on Ray and on rabbitry alike."""

from __future__ import annotations

import builtins
import json
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

TIMEOUT = 20.0
"""Seconds until what should happen has not happened."""

ERRORS = [
    "ActorDiedError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "GetTimeoutError",
    "NodeDiedError",
    "ObjectLostError",
    "ObjectStoreFullError",
    "OwnerDiedError",
    "RayActorError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnserializableException",
    "UserCodeException",
    "WorkerCrashedError",
]
"""Ray's exceptions that a snippet may meet."""


def start(num_cpus: int = 2, **options: Any) -> None:
    """Start a session of its own, without chatter; on Ray with `include_dashboard=True` if its state is asked for."""
    warnings.simplefilter("ignore")
    options = {"include_dashboard": False, **options}
    ray.init(num_cpus=num_cpus, log_to_driver=False, logging_level="CRITICAL", **options)


def show(label: str, value: Any, *, differs: str = "") -> None:
    """Print a fact.

    Args:
        label: what it is about.
        value: what JSON can hold.
        differs: why rabbitry's value is another one: on purpose, or "open: what it is" if it is yet to be repaired. The
            test fails when the values agree after all.
    """
    print(json.dumps([label, value, differs]), flush=True)


def attempt(label: str, action: Callable[[], Any], *, differs: str = "") -> None:
    """Print what an action returns, or the names of the classes by which its error can be caught."""
    try:
        outcome = {"returned": action()}
    except BaseException as error:
        outcome = {"raised": names(error)}
    show(label, outcome, differs=differs)


def names(error: BaseException) -> list[str]:
    """Return the classes that catch an error: Ray's by Ray's names, Python's, and the snippet's own."""
    rays = [name for name in ERRORS if isinstance(error, getattr(ray.exceptions, name))]
    others = [each.__name__ for each in type(error).__mro__ if _counts(each)]
    return sorted({*rays, *others})


def _counts(cls: type) -> bool:
    if cls in (object, BaseException, Exception):
        return False
    return cls.__module__ == "__main__" or getattr(builtins, cls.__name__, None) is cls


def wait_for(path: Path) -> None:
    """Return when a file exists."""
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        if time.monotonic() > deadline:
            raise AssertionError(f"{path} did not appear within {TIMEOUT} s")
        time.sleep(0.01)


def caught(ref: Any) -> Exception | None:
    """Return the error that a result turns out to be; None if it is none."""
    try:
        get(ref)
    except Exception as error:
        return error
    return None


def lines(text: str) -> list[str]:
    """Return the lines of an error without what differs from run to run, colours, and lines that only underline."""
    text = re.sub(r"\x1b\[\d+m", "", text)
    text = re.sub(r'File "[^"]*", line \d+', "File N", text)
    return [line for line in text.splitlines() if line.strip(" ^~")]


def get(refs: Any) -> Any:
    """As `ray.get`, but not for ever."""
    return ray.get(refs, timeout=TIMEOUT)
