"""Runtime environments, paired with Ray: how long a user waits for the first task, and for the next.

python -m benchmarks.environments --ray-python ~/ray/bin/python --rounds 1

Each round of a system is a fresh process with sessions of its own and an empty cache. Packages are wheels that are
built here: nothing is fetched. What is measured, in seconds:

| name | what |
|---|---|
| `pip_first` | the first task in a `pip` environment of one small package that nobody has built yet |
| `pip_cached` | the first task of another environment with the same package: built, but no process yet |
| `alternating` | 100 tasks that alternate between two environments with a process each |
| `working_dir` | `init` with a `working_dir` of 1,000 files, and its first task |
| `preload` | one more actor that uses pandas, which is imported already (`preload`); in Ray the actor imports it |
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BARS = {"pip_first": 3.0, "pip_cached": 5.0, "alternating": 3.0, "working_dir": 2.0, "preload": 1.0}
"""How many times faster than Ray each is to be."""

FILES = 1000
TASKS = 100
_LIMIT_SECONDS = 600.0


def build_wheel(directory: Path, name: str) -> None:
    """Write a wheel with one module."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(directory / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "VALUE = 1\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def measure(ray: Any, ours: bool, directory: Path) -> dict[str, float]:
    """Return the seconds of each workload, on the system `ray`."""
    results = {}
    project = directory / "project"
    for number in range(FILES):
        (project / f"d{number % 20}").mkdir(parents=True, exist_ok=True)
        (project / f"d{number % 20}" / f"m{number}.py").write_text(f"VALUE = {number}\n" * 40)
    links = directory / "links"
    links.mkdir()
    for name in ("benchone", "benchtwo"):
        build_wheel(links, name)

    @ray.remote
    def value(module: str) -> int:
        return int(__import__(module).VALUE)

    @ray.remote
    def where() -> str:
        return os.getcwd()

    @ray.remote
    class Frame:
        def columns(self) -> int:
            import pandas

            return len(pandas.DataFrame({"a": [1]}).columns)

    def timed(action: Any) -> float:
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    def environment(name: str, **variables: str) -> dict[str, Any]:
        return {"pip": ["--no-index", f"--find-links {links}", name], "env_vars": variables}

    def run(name: str, **variables: str) -> None:
        assert ray.get(value.options(runtime_env=environment(name, **variables)).remote(name)) == 1

    results["working_dir"] = timed(
        lambda: (
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=2,
                runtime_env={"working_dir": str(project)},
                log_to_driver=False,
            ),
            ray.get(where.remote()),
        )
    )
    ray.shutdown()
    ray.init(address="local", include_dashboard=False, num_cpus=2, log_to_driver=False)
    ray.get(where.remote())
    results["pip_first"] = timed(lambda: run("benchone"))
    results["pip_cached"] = timed(lambda: run("benchone", OTHER="1"))
    run("benchtwo")
    both = [value.options(runtime_env=environment(name)) for name in ("benchone", "benchtwo")]
    for each in both:
        ray.get(each.remote("benchone" if each is both[0] else "benchtwo"))
    results["alternating"] = timed(
        lambda: ray.get([both[at % 2].remote(("benchone", "benchtwo")[at % 2]) for at in range(TASKS)])
    )
    wanted: dict[str, Any] = {"env_vars": {"PRELOAD": "1"}, **({"preload": ["pandas"]} if ours else {})}
    actors = [Frame.options(num_cpus=0, runtime_env=wanted).remote()]
    ray.get(actors[0].columns.remote())

    def another() -> None:
        actors.append(Frame.options(num_cpus=0, runtime_env=wanted).remote())
        assert ray.get(actors[-1].columns.remote()) == 1

    results["preload"] = timed(another)
    ray.shutdown()
    return results


def main() -> int:
    """Measure in this process (`--system`), or run both systems and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.environments")
    parser.add_argument("--ray-python", default=str(ROOT / ".bench" / "ray" / "bin" / "python"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--system", choices=("ray", "rabbitry"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.system:
        import importlib

        with tempfile.TemporaryDirectory() as directory:
            system = importlib.import_module(options.system)
            print("RESULT " + json.dumps(measure(system, options.system == "rabbitry", Path(directory))))
        return 0
    measured: dict[str, list[dict[str, float]]] = {"ray": [], "rabbitry": []}
    for _ in range(options.rounds):
        for system, python in (("ray", options.ray_python), ("rabbitry", sys.executable)):
            measured[system].append(run_system(system, python))
    print(f"{'':12} {'Ray, s':>9} {'rabbitry, s':>12} {'ratio':>7} {'bar':>5}")
    for name, bar in BARS.items():
        theirs, ours = (statistics.median(each[name] for each in measured[which]) for which in ("ray", "rabbitry"))
        print(f"{name:12} {theirs:9.3f} {ours:12.3f} {theirs / ours:6.1f}x {bar:4.0f}x")
    return 0


def run_system(system: str, python: str) -> dict[str, float]:
    """Return what one round of a system measures, in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [python, str(Path(__file__)), "--system", system],
            env={**os.environ, "RABBITRY_ENVIRONMENTS": cache},
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"{system} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return result


if __name__ == "__main__":
    sys.exit(main())
