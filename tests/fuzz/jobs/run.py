"""Runs programs that submit jobs on an engine, and judges what they report.

python -m tests.fuzz.jobs.run embedded --seeds 0-20
python -m tests.fuzz.jobs.run rabbitmq --minutes 10 --faults 1
python -m tests.fuzz.jobs.run ray --seeds 0-20       # RABBITRY_ORACLE_PYTHON names a Python that has Ray
python -m tests.fuzz.jobs.run embedded --program .fuzz/jobs-17.json --times 10
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz.engines import ENGINES, RAY_VARIABLE, ROOT, Engine, errors_in
from tests.fuzz.jobs.model import judge
from tests.fuzz.jobs.programs import Program, generate

AT_ONCE = 4
"""Programs at the same time, on threads of one session."""

SESSION_SECONDS = 900.0


def run_programs(engine: Engine, programs: Sequence[Program], at_once: int = AT_ONCE) -> list[str]:
    """Run programs, some at a time; return what is wrong, a text for each that failed."""
    wrong: list[str] = []
    for at in range(0, len(programs), at_once):
        wrong += _run_session(engine, programs[at : at + at_once])
    return wrong


def _run_session(engine: Engine, programs: Sequence[Program]) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="fuzz-jobs-run-") as directory:
        path, errors = Path(directory, "programs.json"), Path(directory, "stderr")
        path.write_text(json.dumps([json.loads(each.to_json()) for each in programs]))
        with errors.open("wb") as stderr:
            session = subprocess.Popen(
                command(engine, str(path)),
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**engine.environment(), "FUZZ_PATIENCE": str(2 * engine.patience)},
                cwd=ROOT,
                start_new_session=True,
            )
        try:
            output, _ = session.communicate(timeout=SESSION_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(session.pid, signal.SIGKILL)
            output, _ = session.communicate()
        written = errors.read_bytes()
    reports = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    said = written + engine.said()
    wrong = [f"a node says: {each}" for each in errors_in(said)]
    wrong += [f"threads are left: {each['threads']}" for each in reports if "threads" in each]
    reports = [each for each in reports if "threads" not in each]
    names = ", ".join(each.name for each in programs)
    if session.returncode or len(reports) != len(programs):
        wrong.append(f"the session of {names} ended with {session.returncode} and {len(reports)} reports")
    if wrong:
        wrong[-1] += f"\n{said[-6000:].decode(errors='replace')}"
        engine.renew()
    for at, (program, report) in enumerate(zip(programs, reports, strict=False)):
        if at:
            report.pop("left", None)  # it is that of all
        if found := judge(program, report):
            wrong.append("\n  ".join([f"program {program.name}:", *found]))
    return wrong


def command(engine: Engine, path: str) -> list[str]:
    """Return the command of a session of that engine."""
    given = engine.command(path)
    if given[0] == os.environ.get(RAY_VARIABLE):
        return [given[0], str(ROOT / "tests" / "fuzz" / "jobs" / "session.py"), *given[2:]]
    return [given[0], "-m", "tests.fuzz.jobs.session", *given[3:]]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=[*sorted(ENGINES), "all"], help="all: both engines, half of the time each")
    parser.add_argument("--seeds", help="FIRST-END, without END")
    parser.add_argument("--minutes", type=float, default=1.0, help="run new seeds for so long (default 1)")
    parser.add_argument("--program", type=Path, help="run this one: a file")
    parser.add_argument("--times", type=int, default=1, help="run each program so many times")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"programs in one session (default {AT_ONCE})")
    parser.add_argument("--faults", type=int, help="kill processes meanwhile, at moments that this seed decides")
    parser.add_argument("--keep", type=Path, default=ROOT / ".fuzz", help="directory for what failed (default .fuzz)")
    arguments = parser.parse_args()
    if arguments.faults is not None:
        os.environ["FUZZ_FAULTS"] = str(arguments.faults)
    names = ["embedded", "rabbitmq"] if arguments.engine == "all" else [arguments.engine]
    return max(_fuzz(name, arguments, 60 * arguments.minutes / len(names)) for name in names)


def _fuzz(name: str, arguments: argparse.Namespace, seconds: float) -> int:
    started, count, failed = time.monotonic(), 0, 0
    with ENGINES[name]() as engine:
        for programs in _batches(arguments, started + seconds):
            count += len(programs)
            if wrong := run_programs(engine, programs, arguments.at_once):
                failed += 1
                arguments.keep.mkdir(parents=True, exist_ok=True)
                for each in programs:
                    (arguments.keep / f"jobs-{each.name}.json").write_text(each.to_json())
                print("\n".join(wrong), flush=True)
            print(f"jobs on {name}: {count} programs, {failed} failed, {time.monotonic() - started:.0f} s", flush=True)
    return int(bool(failed))


def _batches(arguments: argparse.Namespace, deadline: float) -> Iterator[list[Program]]:
    if arguments.program:
        yield [Program.from_json(arguments.program.read_text())] * arguments.times
        return
    if arguments.seeds:
        first, _, end = arguments.seeds.partition("-")
        seeds = range(int(first), int(end or int(first) + 1))
        for at in range(0, len(seeds), arguments.at_once):
            yield [generate(seed) for seed in seeds[at : at + arguments.at_once]] * arguments.times
        return
    while time.monotonic() < deadline:
        first = random.randrange(10**9)
        yield [generate(seed) for seed in range(first, first + arguments.at_once)]


if __name__ == "__main__":
    sys.exit(main())
