"""The examples run, and say what they should."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
EXAMPLES = TOP / "examples"


def run(*arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(TOP / root) for root in ("broker", "api", "workers")),
    }
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_hello() -> None:
    assert run(str(EXAMPLES / "hello.py")) == "squares: [0, 1, 4, 9]\ndone by other processes: True\n"


def test_dependencies() -> None:
    assert run(str(EXAMPLES / "dependencies.py")) == "1000 numbers, sum 49875, largest 100\n"


def test_pools() -> None:
    assert run(str(EXAMPLES / "pools.py")).splitlines() == [
        "lengths: [5, 6, 7]",
        "powers: [1, 2, 4, 8, 16]",
        "sum of the queue: 45",
    ]


def test_retries() -> None:
    assert run(str(EXAMPLES / "retries.py")).splitlines() == [
        "answered at attempt 3",
        "survived a crash",
        "failed for good: ValueError: invalid literal for int() with base 10: 'twelve'",
    ]


def test_the_census_of_a_small_library(tmp_path: Path) -> None:
    for package in (email, json):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "broken.py").write_text("def f(:")
    program = (
        "import runpy, sysconfig\n"
        f"sysconfig.get_paths = lambda: {{'stdlib': {str(tmp_path)!r}}}\n"
        f"runpy.run_path({str(EXAMPLES / 'stdlib_census.py')!r}, run_name='__main__')\n"
    )
    shown = run("-c", program)
    files = {name: len(list((tmp_path / name).rglob("*.py"))) for name in ("email", "json")}
    for name, number in files.items():
        assert re.search(rf"^{name} +{number} ", shown, re.MULTILINE), shown
    assert re.search(rf"^all 3 +{sum(files.values())} ", shown, re.MULTILINE), shown
    assert "speed-up" in shown
