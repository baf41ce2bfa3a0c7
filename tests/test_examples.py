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

import pytest

from rabbitry.demo import told_of_load

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


def test_the_crawler_finds_every_page() -> None:
    shown = run(str(EXAMPLES / "web_crawler.py"), "--pages", "30")
    assert shown.startswith("30 pages, ")
    rows = re.findall(r"^ +\d+ +(\d+)  #+$", shown, re.MULTILINE)
    assert sum(map(int, rows)) == 30


def test_the_sweep_finds_a_best_width() -> None:
    shown = run(str(EXAMPLES / "parameter_sweep.py"), "--widths", "4", "--points", "60")
    assert len(re.findall(r"#$|<- best$", shown, re.MULTILINE)) == 4
    assert shown.count("<- best") == 1


def test_the_sweep_draws_its_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run(str(EXAMPLES / "parameter_sweep.py"), "--widths", "3", "--points", "30", "--plot", str(tmp_path / "sweep.png"))
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_batch_inference() -> None:
    pytest.importorskip("numpy")
    shown = run(str(EXAMPLES / "batch_inference.py"), "--images", "120", "--batch", "30")
    right = re.search(r"^120 images, ([\d.]+)% right$", shown, re.MULTILINE)
    assert right and float(right[1]) > 90
    table = re.findall(r"^(?:circle|square|cross) +(\d+) +(\d+) +(\d+)$", shown, re.MULTILINE)
    assert sum(int(count) for row in table for count in row) == 120


def test_etl_of_parquet_files(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    shown = run(str(EXAMPLES / "etl_parquet.py"), "--files", "2", "--rows", "500", "--directory", str(tmp_path))
    result = parquet.read_table(tmp_path / "by-country.parquet").to_pylist()
    orders = [row for file in tmp_path.glob("orders-*") for row in parquet.read_table(file).to_pylist()]
    paid = [row for row in orders if row["state"] == "paid"]
    assert sum(row["orders"] for row in result) == len(paid)
    assert sum(row["cents"] for row in result) == sum(row["cents"] for row in paid)
    assert re.search(rf"^all +{len(paid)} ", shown, re.MULTILINE)
    # The same without a file system that the nodes have in common.
    assert run(str(EXAMPLES / "etl_parquet.py"), "--files", "2", "--rows", "500") == shown


def test_the_bank_loses_nothing() -> None:
    shown = run(str(EXAMPLES / "bank.py"), "--transfers", "12", "--crashes", "2")
    assert shown.startswith("12 transfers, 2 processes killed\n")
    assert re.search(r"^all +24 +4000 +4000$", shown, re.MULTILINE)


def test_the_parameter_server_learns() -> None:
    shown = run(str(EXAMPLES / "parameter_server.py"), "--rounds", "5", "--workers", "2")
    percents = [float(each) for each in re.findall(r"(\d+\.\d)%", shown)]
    assert percents[-1] > 80


def test_a_pipeline_outlives_the_program_that_submits_it() -> None:
    shown = run(str(EXAMPLES / "detached_pipeline.py"), "--parts", "2").splitlines()
    assert shown[0] == "the program that submitted the work has ended"
    assert shown[2].split()[:2] == ["the", "6"]


def test_the_service_streams_progress() -> None:
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    lines = run(str(EXAMPLES / "service.py"), "--once").splitlines()
    assert [json.loads(line) for line in lines[:5]] == [{"done": done, "of": 5} for done in range(1, 6)]
    assert json.loads(lines[5]) == {"primes": 669}  # below 5000
    assert lines[6] == "asked again: 404"


def test_the_service_says_what_it_needs() -> None:
    program = f"import runpy, sys; sys.modules['uvicorn'] = None; runpy.run_path({str(EXAMPLES / 'service.py')!r})"
    assert "pip install 'rabbitry[examples]'" in run("-c", program)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_takes_an_address(example: Path) -> None:
    assert "--address" in run(str(example), "--help")


def test_the_census_of_a_small_library(tmp_path: Path) -> None:
    for package in (email, json):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "broken.py").write_text("def f(:")
    program = (
        "import runpy, sysconfig\n"
        f"sysconfig.get_paths = lambda: {{'stdlib': {str(tmp_path)!r}}}\n"
        "runpy.run_module('rabbitry.demo', run_name='__main__')\n"
    )
    shown = run("-c", program)
    files = {name: len(list((tmp_path / name).rglob("*.py"))) for name in ("email", "json")}
    for name, number in files.items():
        assert re.search(rf"^{name} +{number} ", shown, re.MULTILINE), shown
    assert re.search(rf"^all 3 +{sum(files.values())} ", shown, re.MULTILINE), shown
    assert "speed-up" in shown


def test_the_demo_says_so_if_the_machine_was_busy() -> None:
    assert told_of_load(10.0, 9.9) == ""
    assert "had a CPU for 40% of its time" in told_of_load(10.0, 4.0)
