"""Runs programs on an engine, judges what they report, and makes small what failed.

    python -m tests.fuzz.run embedded --seeds 0-200
    python -m tests.fuzz.run rabbitmq --minutes 10
    python -m tests.fuzz.run rabbitmq --minutes 10 --faults 1 --restarts 20
    python -m tests.fuzz.run ray --seeds 0-50            # RABBITRY_ORACLE_PYTHON names a Python that has Ray
    python -m tests.fuzz.run embedded --program tests/fuzz/failed/NAME.json --times 20 --shrink
    python -m tests.fuzz.run embedded --script 17        # print the script of a seed, run nothing

Failures go to `--keep` (`.fuzz/`): the program as JSON, its script, and what was wrong.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.engines import ENGINES, RESTARTS, Engine, errors_in
from tests.fuzz.generate import generate
from tests.fuzz.known import known
from tests.fuzz.model import disturbances, judge
from tests.fuzz.programs import Program, without
from tests.fuzz.restarts import LATE
from tests.fuzz.script import render

ROOT = Path(__file__).resolve().parents[2]
BATCH = 50
"""Programs in one session."""

LOSING = frozenset(("connections", "broker", "store"))
"""What breaks connections, when it is struck."""

SESSION_SECONDS = 60.0
"""That starting and ending a session may take, beside its programs."""


@dataclass(frozen=True)
class Failure:
    """A program that did what it may not.

    Attributes:
        program: the program.
        wrong: what was wrong, a line each.
        output: what its session wrote to standard error meanwhile, with all stacks if it hung, and what nodes did.
    """

    program: Program
    wrong: list[str]
    output: str = ""

    def __str__(self) -> str:
        lines = [f"program {self.program.name}:", *(f"  {each}" for each in self.wrong)]
        if self.output:
            lines += ["  its session wrote:", *(f"    {line}" for line in self.output.splitlines()[-80:])]
        return "\n".join(lines)


def run_programs(engine: Engine, programs: Sequence[Program]) -> list[Failure]:
    """Run programs; return what failed."""
    return list(failing(engine, programs))


def failing(engine: Engine, programs: Sequence[Program]) -> Iterator[Failure]:
    """Run programs, in as many sessions as it takes: one that fails ends its session. Give each failure as it comes."""
    waiting = list(programs)
    while waiting:
        done = 0
        for failure in _run_session(engine, waiting[:BATCH]):
            done += 1
            if failure is not None:
                yield failure
        waiting = waiting[max(1, done) :]


def _run_session(engine: Engine, programs: Sequence[Program]) -> Iterator[Failure | None]:
    """Run programs in one session; give one result for each that ran. It ends with the first that fails."""
    with tempfile.TemporaryDirectory(prefix="fuzz-session-") as directory:
        path = Path(directory, "programs.json")
        path.write_text(json.dumps([[each.name, render(each)] for each in programs]))
        errors = Path(directory, "stderr")
        with errors.open("wb") as stderr:
            session = subprocess.Popen(
                engine.command(str(path)),
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=engine.environment(),
                cwd=ROOT,
                start_new_session=True,
            )
        heard = 0  # of what an embedded node says
        at, at_once = 0, int(os.environ.get("FUZZ_AT_ONCE", "1"))
        try:
            assert session.stdout is not None
            for line in session.stdout:
                if not line.startswith(b"{"):
                    continue
                program, report = programs[at], json.loads(line)
                beside = programs[at // at_once * at_once : (at // at_once + 1) * at_once]
                report["struck"] = report.get("struck", []) + engine.struck()
                report["neighbours"] = sum(disturbances(each) for each in beside if each is not program)
                at += 1
                wrong = judge_report(program, report)
                written = errors.read_bytes()
                said = written[heard:] + engine.said()
                heard = len(written)
                wrong += [f"a node says: {each}" for each in errors_in(said)]
                if wrong:
                    yield Failure(program, wrong, said.decode(errors="replace"))
                    if engine.forgives:
                        continue
                    engine.renew()
                    return
                yield None
            try:
                code = session.wait(SESSION_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            if at < len(programs) or code != 0:
                # It hung, or the end of the session did: the last one that ran is the one to look at.
                ended = f"the session ended with {code} {'in this program' if at < len(programs) else 'at its end'}"
                written = errors.read_bytes() + engine.said()
                yield Failure(programs[min(at, len(programs) - 1)], [ended], written.decode(errors="replace"))
                engine.renew()
        finally:
            if session.poll() is None:
                os.killpg(session.pid, signal.SIGTERM)
                try:
                    session.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(session.pid, signal.SIGKILL)
                    session.wait()
            assert session.stdout is not None
            session.stdout.close()


def judge_report(program: Program, report: dict[str, Any]) -> list[str]:
    """Return what is wrong with a report."""
    wrong = judge(program, report)
    if "broken" in report:
        wrong = [f"the program broke: {report['broken']}"]
    left, struck = dict(report.get("left", {})), report.get("struck", [])
    if LATE in struck:
        return []  # the machine had too much to do: its servers were away for longer than programs wait
    if LOSING.intersection(struck):
        left.pop("in flight", None)  # what tells of the end of a task without handles may have got lost: nobody asks
    if left:
        wrong.append(f"left behind: {left}")
    if wrong and struck:
        wrong.append(f"meanwhile these were struck: {struck}")
    return wrong


def shrink(engine: Engine, program: Program, *, times: int = 3, seconds: float = 300.0) -> Program:
    """Return a smaller program that fails too: steps are left out as long as that is so.

    Args:
        engine: where it fails.
        program: it failed once.
        times: runs without a failure until a smaller program counts as sound.
        seconds: to take at most, about.
    """
    deadline = time.monotonic() + seconds
    best = program
    size = max(1, len(best.steps) // 2)
    while size and time.monotonic() < deadline:
        at = len(best.steps)
        while at > 0 and time.monotonic() < deadline:
            at -= size
            candidate = without(best, set(range(max(0, at), at + size)))
            if len(candidate.steps) < len(best.steps) and run_programs(engine, [candidate] * times):
                best = candidate
                at = min(at + size, len(best.steps))
        size //= 2
    return best


def keep(directory: Path, failure: Failure) -> None:
    """Write a failure down."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{failure.program.name}.json").write_text(failure.program.to_json())
    (directory / f"{failure.program.name}.py").write_text(render(failure.program))
    (directory / f"{failure.program.name}.txt").write_text(f"{failure}\n")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=[*sorted(ENGINES), "all"], help="all: both engines, half of the time each")
    parser.add_argument("--seeds", help="FIRST-END, without END")
    parser.add_argument("--minutes", type=float, default=1.0, help="run new seeds for so long (default 1)")
    parser.add_argument("--program", help="run this one: a file")
    parser.add_argument("--times", type=int, default=1, help="run each program so many times")
    parser.add_argument("--large", action="store_true", help="values of 64 MiB too")
    parser.add_argument("--known", action="store_true", help="also programs that may meet faults known already")
    parser.add_argument("--faults", type=int, help="kill processes meanwhile, at moments that this seed decides")
    parser.add_argument("--restarts", type=float, help="restart servers of the cluster, each so many seconds or so")
    parser.add_argument("--at-once", type=int, default=1, help="programs at the same time on threads of a driver")
    parser.add_argument("--drivers", type=int, default=1, help="drivers at the same time (on a cluster)")
    parser.add_argument("--shrink", action="store_true", help="make small what failed")
    parser.add_argument("--script", type=int, help="print the script of this seed")
    parser.add_argument("--keep", type=Path, default=ROOT / ".fuzz", help="directory for what failed (default .fuzz)")
    arguments = parser.parse_args()
    if arguments.script is not None:
        print(render(generate(arguments.script, large=arguments.large)))
        return 0
    if arguments.faults is not None:
        os.environ["FUZZ_FAULTS"] = str(arguments.faults)
    if arguments.restarts is not None:
        os.environ[RESTARTS] = str(arguments.restarts)
    os.environ["FUZZ_AT_ONCE"] = str(arguments.at_once)
    if arguments.drivers > 1:
        os.environ.update(FUZZ_DRIVERS=str(arguments.drivers), FUZZ_SHARED="1")
    if arguments.engine != "all":
        return _fuzz(arguments.engine, arguments)
    arguments.minutes /= 2
    return max(_fuzz(name, arguments) for name in ("embedded", "rabbitmq"))


def _fuzz(name: str, arguments: argparse.Namespace) -> int:
    """Run what the arguments ask for on an engine; return the exit code."""
    failures = []
    with ENGINES[name]() as engine:
        started = time.monotonic()
        count = 0
        for programs in _batches(arguments, started):
            if not (arguments.known or arguments.program):
                programs = [each for each in programs if not known(each)]
            if name == "ray":
                programs = [as_ray_has_it(each) for each in programs]
            count += len(programs)
            for failure in _by_drivers(engine, programs * arguments.times, arguments.drivers):
                if arguments.shrink:
                    small = shrink(engine, failure.program)
                    failure = (run_programs(engine, [small] * 5) or [failure])[0]
                keep(arguments.keep, failure)
                print(failure, flush=True)
                failures.append(failure)
            print(f"{name}: {count} programs, {len(failures)} failed, {time.monotonic() - started:.0f} s", flush=True)
    return 1 if failures else 0


def as_ray_has_it(program: Program) -> Program:
    """Return the program without what Ray cannot do.

    Its actors forget their state when they are restarted. A task that waits keeps what it has of its bundle.
    """
    steps = []
    for step in program.steps:
        if step["op"] == "actor":
            options = {name: value for name, value in step["options"].items() if name != "durable"}
            step = {**step, "options": options}
        if step["op"] == "task" and "place" in step:
            place = {**step["place"], "capture": False}
            step = {**step, "options": {**step["options"], "num_cpus": 0}, "place": place}
        steps.append(step)
    return Program(program.name, steps)


def _by_drivers(engine: Engine, programs: list[Program], drivers: int) -> Iterator[Failure]:
    """Run programs by several drivers at the same time."""
    if drivers == 1:
        yield from failing(engine, programs)
        return
    with ThreadPoolExecutor(drivers) as threads:
        for failures in threads.map(lambda at: run_programs(engine, programs[at::drivers]), range(drivers)):
            yield from failures


def _batches(arguments: argparse.Namespace, started: float) -> Iterator[list[Program]]:
    if arguments.program:
        yield [Program.from_json(Path(arguments.program).read_text())]
        return
    if arguments.seeds:
        first, _, end = arguments.seeds.partition("-")
        seeds = range(int(first), int(end or int(first) + 1))
        for at in range(0, len(seeds), BATCH):
            yield [generate(seed, large=arguments.large) for seed in seeds[at : at + BATCH]]
        return
    while time.monotonic() - started < 60 * arguments.minutes:
        first = random.randrange(10**9)
        yield [generate(seed, large=arguments.large) for seed in range(first, first + BATCH)]


if __name__ == "__main__":
    sys.exit(main())
