"""A process that runs programs in one session: `python -m tests.fuzz.session ENGINE FILE`, or `python session.py`.

FILE holds a JSON list of [name, script]. For each, one line of JSON goes to standard output: what `prelude.finish`
returned, and what is left behind. A program that does not end has all stacks written to standard error, and ends the
process. It imports nothing of this checkout at its head, so that it runs where only Ray is installed.

ENGINE is "embedded", "ray", or the address of a cluster.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

LIMIT = float(os.environ.get("FUZZ_PATIENCE", "30")) + 90
"""Seconds until a program that does not end is given up, with its process."""

FAULTS = os.environ.get("FUZZ_FAULTS", "")
"""Seed of faults; "" for none."""

LATE = bool(FAULTS) or "FUZZ_RESTARTS" in os.environ
"""What is left behind may be cleared away later than at once."""

LEFTOVERS_SECONDS = 60.0 if LATE else 15.0
"""A process looks every ten for what came late. What was asked of a template that was killed is held until there is
another one: that takes ten more on a busy machine, and twice that if two were killed."""

AT_ONCE = int(os.environ.get("FUZZ_AT_ONCE", "1"))
"""Programs that run at the same time, on threads of one driver."""

INIT_SECONDS = 30.0

QUIET_SECONDS = 0.3
"""Nothing has to be left for so long: what a task has submitted may be on its way from a queue to a node."""

LEASE_SECONDS = 60.0
"""Until what killed processes left in the store is cleared away."""


def main(engine: str, path: str) -> None:
    """Run the programs of a file."""
    if engine == "ray":
        import ray
    else:
        import rabbitry as ray
    where: dict[str, Any] = {"address": engine}
    if engine in ("embedded", "ray"):  # "local": not one that somebody else runs here
        where = {"address": "local", "num_cpus": 4 * AT_ONCE, "resources": {"x": 2}}
    _begin(ray, where)
    with open(path) as file:
        programs = json.load(file)
    look: Callable[..., dict[str, Any]] = _nothing
    if engine != "ray":
        from tests.fuzz import leftovers

        look = leftovers.Look(alone="FUZZ_SHARED" not in os.environ)
    for at in range(0, len(programs), AT_ONCE):
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        _run_together(ray, programs[at : at + AT_ONCE], look, last=at + AT_ONCE >= len(programs))
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    ray.shutdown()
    faulthandler.cancel_dump_traceback_later()


def _begin(ray: Any, where: dict[str, Any]) -> None:
    """Call `init`, which does not wait for servers that are away: here they may be, for a moment."""
    patience = time.monotonic() + INIT_SECONDS
    while True:
        try:
            ray.init(**where, log_to_driver=False)
        except ConnectionError:
            if "FUZZ_RESTARTS" not in os.environ or time.monotonic() > patience:
                raise
            time.sleep(0.2)
        else:
            return


def _run_together(ray: Any, programs: list[Any], look: Callable[..., dict[str, Any]], *, last: bool) -> None:
    """Run programs at the same time, each on a thread of its own; print their reports."""
    names = [name for name, _ in programs]
    faults = _faults(" ".join(names)) if FAULTS else contextlib.nullcontext()
    with faults, ThreadPoolExecutor(len(programs)) as threads:
        results = list(threads.map(lambda each: run(ray, *each), programs))
    hung = any(entry.get("error") == "timeout" for report, _ in results for entry in report["seen"])
    deadline = time.monotonic() + (0.0 if hung else LEASE_SECONDS if LATE and last else LEFTOVERS_SECONDS)
    quiet_since = time.monotonic()
    while True:
        if left := look(keys=last or not LATE):
            quiet_since = time.monotonic()
        if quiet_since > deadline or time.monotonic() - quiet_since >= QUIET_SECONDS:
            break
        time.sleep(0.01)
        gc.collect()
    for name, (report, space) in zip(names, results, strict=True):
        report["runs"] = space["count_runs"]() if "count_runs" in space else {}
        space.clear()
        if FAULTS:
            report.update(crashes=faults.crashes, struck=faults.struck)
        # Beside other drivers nobody can see whether what tasks have submitted still runs.
        waited = look is not _nothing and "FUZZ_SHARED" not in os.environ
        print(json.dumps({**report, "name": name, "left": left, "waited": waited}), flush=True)


def _nothing(**_: Any) -> dict[str, Any]:
    return {}


def _faults(name: str) -> Any:
    """Return what strikes while a program runs."""
    from tests.fuzz.faults import Faults

    agents = [int(each) for each in os.environ.get("FUZZ_AGENTS", "").split(",") if each]
    return Faults(random.Random(f"{FAULTS}-{name}"), agents)


def run(ray: Any, name: str, script: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a program; return its report, or how it broke, and its namespace."""
    space: dict[str, Any] = {"ray": ray, "FUZZ_SESSION": True, "__name__": "__main__"}
    try:
        exec(compile(script, f"<program {name}>", "exec"), space)
        report: dict[str, Any] = space["report"]
    except BaseException:
        report = {"seen": space.get("seen", []), "broken": traceback.format_exc()}
    for kind in ("refs", "streams", "actors", "strong"):
        space.get(kind, {}).clear()
    gc.collect()
    return report, space


if __name__ == "__main__":
    main(*sys.argv[1:])
