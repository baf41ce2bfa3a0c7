"""Drivers that end abruptly in the middle of a program: killed, by `os._exit`, by SIGTERM.

    python -m tests.fuzz.driver_ends embedded 0-20
    python -m tests.fuzz.driver_ends rabbitmq 0-60      # a cluster that all of them share

What may not be: a task that may run once only has run twice; something of the driver's is left (keys, resources,
processes, files) when others have had time to see that it is gone; nodes that do not work as before.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.engines import ENGINES, ROOT, Engine
from tests.fuzz.generate import generate
from tests.fuzz.model import expect
from tests.fuzz.programs import Program
from tests.fuzz.script import render

WAYS = ("kill", "exit", "term")
LATEST = 0.8
"""Seconds after the begin of a program until its driver ends."""

AT_ONCE = 4
DRIVER_SECONDS = 60.0
GONE_SECONDS = 30.0
"""Until nothing may be left of a driver: it is found silent, condemned, and cleared away."""

OBSERVER = """
import json, sys, time
import rabbitry as ray
from tests.fuzz import leftovers

names, namespace, seconds = json.loads(sys.argv[1])
ray.init(address="auto", namespace=namespace, log_to_driver=False)
for name in names:  # of detached actors: they are to outlive their drivers
    try:
        ray.kill(ray.get_actor(name))
    except ValueError:
        pass

@ray.remote(scheduling_strategy="SPREAD")
def same(value):
    return value

numbers = ray.get([same.remote(at) for at in range(100)], timeout=30)
look, deadline = leftovers.Look(alone=True), time.monotonic() + seconds
while (left := look()) and time.monotonic() < deadline:
    time.sleep(0.1)
print(json.dumps({"left": left, "works": numbers == list(range(100))}))
ray.shutdown()
"""


@dataclass
class Ended:
    """A driver that has ended.

    Attributes:
        program: what it ran.
        end: how it ended, and after how long.
        wrong: what was wrong with it.
        output: what it wrote.
    """

    program: Program
    end: tuple[str, float]
    wrong: list[str] = field(default_factory=list)
    output: str = ""

    def __str__(self) -> str:
        how, seconds = self.end
        told = "\n    ".join(self.output.splitlines()[-30:])
        return f"program {self.program.name}, {how} after {seconds:.2f} s: {self.wrong}\n    {told}"


def run_ends(engine: Engine, seeds: range) -> list[str]:
    """Run programs whose drivers end; return what was wrong."""
    chance = random.Random(f"ends-{seeds.start}")
    drivers = [Ended(generate(seed), (chance.choice(WAYS), chance.uniform(0.0, LATEST))) for seed in seeds]
    alone = engine.environment().get("FUZZ_AGENTS") is None  # each driver has a cluster of its own
    namespace = f"ends-{seeds.start}"
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda driver: _run(engine, driver, alone, namespace), drivers))
    wrong = [str(driver) for driver in drivers if driver.wrong]
    if not alone:
        wrong += _observe(engine, drivers, namespace)
    return wrong


def _run(engine: Engine, driver: Ended, alone: bool, namespace: str) -> None:
    """Run one driver to its end, and look what it has run."""
    with tempfile.TemporaryDirectory(prefix="fuzz-ends-") as directory:
        script = Path(directory, "script.py")
        script.write_text(render(driver.program, driver.end))
        environment = {**engine.environment(), "FUZZ_DIRECTORY": directory, "FUZZ_NAMESPACE": namespace}
        environment.update({"TMPDIR": directory} if alone else {"FUZZ_ADDRESS": "auto"})
        with Path(directory, "output").open("w+b") as output:
            process = subprocess.Popen(
                [sys.executable, str(script)], env=environment, cwd=ROOT, stdout=output, stderr=output
            )
            try:
                process.wait(DRIVER_SECONDS)
            except subprocess.TimeoutExpired:
                driver.wrong.append(f"its driver did not end within {DRIVER_SECONDS:g} s")
                process.send_signal(signal.SIGABRT)
                process.wait()
            output.seek(0)
            driver.output = output.read().decode(errors="replace")
        if alone:
            _wait_for_the_end(driver, directory)
        log = Path(directory, "runs")
        runs = Counter(log.read_text().split()) if log.exists() else Counter[str]()
        for label, most in once(driver.program).items():
            if runs[label] > most:
                driver.wrong.append(f"{label} ran {runs[label]} times")


def once(program: Program) -> dict[str, int]:
    """Return how often tasks may have begun, of those that run once at most if nothing but the driver ends."""
    return {label: most for label, (_, most) in expect(program).runs.items() if most <= 1}


def _wait_for_the_end(driver: Ended, directory: str) -> None:
    """Wait until nothing of an embedded session is left: no process, no file."""
    mark = f"FUZZ_DIRECTORY={directory}".encode()
    deadline = time.monotonic() + GONE_SECONDS
    while (left := [*_processes(mark), *_files(directory)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        driver.wrong.append(f"left behind: {left}")


def _processes(mark: bytes) -> list[str]:
    """Return the processes with that in their environment."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                if mark in (each / "environ").read_bytes().split(b"\0"):
                    found.append(f"{each.name}: {(each / 'cmdline').read_bytes()[:100]!r}")
            except OSError:
                continue  # it is gone, or not ours
    return found


def _files(directory: str) -> list[str]:
    return [str(each) for each in Path(directory).glob("rabbitry-*")]


def _observe(engine: Engine, drivers: list[Ended], namespace: str) -> list[str]:
    """Join the cluster when all drivers are gone; return what is wrong with it."""
    names = [
        step["options"]["name"]
        for driver in drivers
        for step in driver.program.steps
        if step["op"] == "actor" and step["options"].get("lifetime") == "detached"
    ]
    observer = subprocess.run(
        [sys.executable, "-c", OBSERVER, json.dumps([names, namespace, GONE_SECONDS])],
        env=engine.environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GONE_SECONDS + 90,
        check=False,
    )
    if observer.returncode:
        return [f"who came after them failed: {observer.stderr[-2000:]}"]
    found: dict[str, Any] = json.loads(observer.stdout.splitlines()[-1])
    wrong = [] if found["works"] else ["ordinary tasks do not work any more"]
    return [*wrong, f"left behind by drivers: {found['left']}"] if found["left"] else wrong


def main(name: str, seeds: str) -> int:
    """Run the command line: an engine, FIRST-END."""
    first, _, end = seeds.partition("-")
    os.environ["FUZZ_DRIVERS"] = str(AT_ONCE)
    with ENGINES[name]() as engine:
        wrong = run_ends(engine, range(int(first), int(end)))
    print("\n".join(wrong) or "nothing wrong", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
