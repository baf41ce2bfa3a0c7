"""Run the programs in `snippets/` on Ray and on rabbitry and compare what they print.

    RABBITRY_ORACLE_PYTHON=/path/to/python python -m tests.oracle.run_on_both             # compare, all of them
    RABBITRY_ORACLE_PYTHON=/path/to/python python -m tests.oracle.run_on_both get wait    # some
    RABBITRY_ORACLE_PYTHON=/path/to/python python -m tests.oracle.run_on_both --record    # write recorded/*.json

The named Python is one that has Ray 2.60; without it, rabbitry is compared with what was recorded. A snippet is a
program for Ray that prints one JSON line a fact, `[label, value, why rabbitry differs]`; see `snippets/_report.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
TOP = HERE.parents[1]
SNIPPETS = HERE / "snippets"
RECORDED = HERE / "recorded"
ROOTS = [str(TOP / root) for root in ("broker", "api", "workers")]

PYTHON_VARIABLE = "RABBITRY_ORACLE_PYTHON"
"""Names the Python that has Ray."""

RABBITRY_SECONDS = 30.0
RAY_SECONDS = 180.0  # its sessions take seconds to start, its crashed workers to be replaced


class Fact(NamedTuple):
    """One line of a snippet.

    Attributes:
        label: what it is about.
        value: what came of it.
        differs: why the two values differ on purpose; "" if they should not.
    """

    label: str
    value: Any
    differs: str = ""


class SnippetError(RuntimeError):
    """A snippet ended with an error or not at all."""


def all_snippets() -> list[str]:
    """Return the names of the snippets."""
    return sorted(path.stem for path in SNIPPETS.glob("*.py") if path.stem[0] != "_")


def on_rabbitry(name: str) -> list[Fact]:
    """Run a snippet on rabbitry, in this Python.

    Raises:
        SnippetError: it failed.
    """
    path = os.pathsep.join([*ROOTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "rabbitry.as_ray", str(SNIPPETS / f"{name}.py")]
    return _run(command, {**os.environ, "PYTHONPATH": path}, RABBITRY_SECONDS)


def on_ray(name: str, python: str) -> list[Fact]:
    """Run a snippet on Ray.

    Args:
        name: the snippet.
        python: path of a Python that has Ray.

    Raises:
        SnippetError: it failed.
    """
    # Ray leaves its session's files behind.
    with tempfile.TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True) as temporary:
        # Without this environment's own paths: the other Python may be of another version.
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
        return _run([python, str(SNIPPETS / f"{name}.py")], {**environment, "RAY_TMPDIR": temporary}, RAY_SECONDS)


def _run(command: list[str], environment: dict[str, str], timeout: float) -> list[Fact]:
    with tempfile.TemporaryDirectory() as elsewhere:
        process = subprocess.Popen(
            command,
            cwd=elsewhere,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, complaints = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, complaints = process.communicate()
            complaints += f"\nnot done after {timeout:g} s"
            process.returncode = 1
    facts = [Fact(*json.loads(line)) for line in output.splitlines() if line.startswith('["')]
    if process.returncode != 0:
        last = facts[-1].label if facts else "nothing"
        raise SnippetError(f"{Path(command[-1]).name} failed after {last!r}:\n{complaints[-3000:]}")
    return facts


def recorded(name: str) -> list[Fact]:
    """Return what Ray printed when it was last asked."""
    return [Fact(label, value) for label, value in json.loads((RECORDED / f"{name}.json").read_text())]


def record(name: str, facts: list[Fact]) -> None:
    """Keep what Ray printed."""
    # A line each, so that a change shows as one.
    lines = ",\n".join(json.dumps([fact.label, fact.value]) for fact in facts)
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{name}.json").write_text(f"[\n{lines}\n]\n")


def differences(rays: list[Fact], ours: list[Fact]) -> list[str]:
    """Return a line for each fact in which the two differ without a reason, or agree in spite of one."""
    found = []
    for ray, our in zip(rays, ours, strict=False):
        if ray.label != our.label:
            return [*found, f"Ray went on with {ray.label!r}, rabbitry with {our.label!r}"]
        if our.differs and ray.value == our.value:
            found.append(f"{our.label}: said to differ ({our.differs}), but does not")
        elif ray.value != our.value and not our.differs:
            found.append(f"{our.label}: Ray {json.dumps(ray.value)}, rabbitry {json.dumps(our.value)}")
    if len(rays) != len(ours):
        found.append(f"Ray printed {len(rays)} facts, rabbitry {len(ours)}")
    return found


def main() -> int:
    """Compare or record; return 1 if anything differs or fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.run_on_both", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="snippet", help=f"default: all ({', '.join(all_snippets())})")
    parser.add_argument("--record", action="store_true", help="write what Ray prints, run nothing on rabbitry")
    options = parser.parse_args()
    python = os.environ.get(PYTHON_VARIABLE)
    if options.record and not python:
        parser.error(f"{PYTHON_VARIABLE} must name a Python that has Ray")
    trouble = 0
    for name in options.names or all_snippets():
        try:
            rays = on_ray(name, python) if python else recorded(name)
            if options.record:
                record(name, rays)
                print(f"{name}: {len(rays)} facts recorded", flush=True)
                continue
            found = differences(rays, on_rabbitry(name))
        except SnippetError as error:
            found = [str(error)]
        trouble += len(found)
        print(f"{name}: {'as Ray' if not found else ''}", *found, sep="\n    " if found else "", flush=True)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
