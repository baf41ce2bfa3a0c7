"""Runs the programs beside this file on rabbitry (embedded, RabbitMQ + Redis) and on Ray, and compares what they print.

    python -m compat.run [NAME ...] [--engines ray,embedded,rabbitmq] [--ray 2.60.0]

`programs/` are Ray's own libraries, `libraries/` those of others. Each runs in an environment of its own in .compat/,
which is made when it is first wanted. The table has seconds on the clock, and of processor time of all processes: of
the program, nodes and Redis, but not of RabbitMQ and the Redis of the cluster, and with Ray those of its own servers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from compat.control_group import ControlGroup, control_group
from compat.environments import ROOT, Environments, variables
from compat.servers import cluster
from compat.signals import leave_by_exception

HERE = Path(__file__).parent
PROGRAMS = {
    path.stem: path for folder in ("programs", "libraries") for path in sorted((HERE / folder).glob("[a-z]*.py"))
}
ENGINES = ("ray", "embedded", "rabbitmq")
SHOWN_OF_AN_ERROR = 4000


@dataclass(frozen=True)
class Outcome:
    """What a run of a program came to."""

    values: list[str]
    timed: str
    seconds: float
    processor_seconds: float | None
    error: str


def run(
    python: Path, program: Path, engine: str, named: dict[str, str], group: ControlGroup, timeout: float
) -> Outcome:
    """Run a program on one engine."""
    command = [str(python), str(program)] if engine == "ray" else [str(python), "-m", "rabbitry.as_ray", str(program)]
    roots = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    # Without compiled files each process of a program would compile torch for itself.
    dropped = ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if name not in dropped}
    # Ray's own workers are started by its environment's interpreter, and so are the programs' child processes.
    path = os.pathsep.join((str(python.parent), os.environ.get("PATH", "")))
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            group.command(command),
            env={**inherited, **named, "PYTHONPATH": roots, "PATH": path},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired as late:
        said = b"".join(filter(None, (late.stdout, late.stderr))).decode(errors="replace")
        return Outcome([], "", timeout, None, f"{said[-SHOWN_OF_AN_ERROR:]}\ndid not end within {timeout:g} s")
    seconds = time.perf_counter() - begin
    lines = done.stdout.splitlines()
    return Outcome(
        values=[line for line in lines if line.startswith("RESULT")],
        timed="".join(line.removeprefix("TIMED") for line in lines if line.startswith("TIMED")),
        seconds=seconds,
        processor_seconds=group.processor_seconds(),
        error="" if done.returncode == 0 else (done.stdout + done.stderr)[-SHOWN_OF_AN_ERROR:],
    )


def run_on(engine: str, python: Path, program: Path, timeout: float) -> Outcome:
    """Run a program on one engine, with the servers that this engine needs."""
    # Not in /tmp: that may be in memory, and what is put here may be what has no room there.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, control_group("compat") as group:
        wanted = variables(program, Path(folder))
        if engine != "rabbitmq":
            return run(python, program, engine, wanted, group, timeout)
        with cluster(python, group, wanted, program.stem) as servers:
            return run(python, program, engine, {**wanted, **servers}, group, timeout)


def verdict(engine: str, outcome: Outcome, expected: list[str] | None) -> str:
    """Return in words what an outcome is, beside the values that Ray gave (None if it never ran there)."""
    if outcome.error:
        return "failed"
    if engine == "ray" or expected is None:
        return "ran"
    return "as Ray" if outcome.values == expected else f"differs: {outcome.values}"


def remembered(program: Path, folder: Path, outcome: Outcome | None = None) -> list[str] | None:
    """Return what this program gave on Ray when it last ran there, after noting a new outcome if there is one."""
    digest = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
    note = folder / f"{program.stem}-{digest}.txt"
    if outcome is not None and not outcome.error:
        folder.mkdir(exist_ok=True)
        note.write_text("\n".join(outcome.values))
    return note.read_text().splitlines() if note.exists() else None


def main() -> int:
    """Run them, print a table, return 1 if one failed or gave another result than on Ray."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", metavar="NAME", help=f"of: {', '.join(PROGRAMS)}; all by default")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="how long a program may take")
    parser.add_argument("--ray", default="2.60.0", metavar="VERSION")
    parser.add_argument("--uv", default=shutil.which("uv") or "uv", help="the uv that makes the environments")
    parser.add_argument("--python", default=sys.executable, help="the Python that they are made of")
    options = parser.parse_args()
    engines = options.engines.split(",")
    for what, given, there in (("program", options.programs, PROGRAMS), ("engine", engines, ENGINES)):
        if unknown := [each for each in given if each not in there]:
            parser.error(f"there is no {what} {', '.join(unknown)}: there are {', '.join(there)}")
    leave_by_exception()
    environments = Environments(options.ray, options.uv, options.python)
    wrong = 0
    print(f"{'program':16}{'engine':10}{'seconds':>8}{'cpu':>8}  result")
    for name in options.programs or PROGRAMS:
        program = PROGRAMS[name]
        python = environments.python(program)
        for engine in engines:
            outcome = run_on(engine, python, program, options.timeout)
            expected = remembered(program, environments.folder / "results", outcome if engine == "ray" else None)
            said = verdict(engine, outcome, expected)
            wrong += said not in ("ran", "as Ray")
            used = "-" if outcome.processor_seconds is None else f"{outcome.processor_seconds:.1f}"
            print(f"{name:16}{engine:10}{outcome.seconds:8.1f}{used:>8}  {said}{outcome.timed}", flush=True)
            if outcome.error:
                print(outcome.error, file=sys.stderr, flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
