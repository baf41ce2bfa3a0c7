"""A census of Python's standard library: parse every module in parallel, count, aggregate, print a table.

Run it with `python -m rabbitry.demo`, which starts an embedded cluster on this machine, or with `--address auto` on the
one that RABBITRY_BROKER_URL, RABBITRY_STORE_URL and RABBITRY_SECRET name.

Three layers of tasks: one for each batch of files, one for each package, which takes the refs of its batches and so
runs when they are done, and one for the whole, which takes the refs of the packages.

The same work is done in this process alone, for comparison. Both sides are measured warm: each does a part of the work
before its clock starts, so that neither pays for what the beginning of any process costs (memory to grow into, caches
to fill, workers to start).
"""

from __future__ import annotations

import argparse
import ast
import gc
import sys
import sysconfig
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rabbitry
from rabbitry.util import progress

BATCH_BYTES = 150_000
SKIPPED = {"site-packages", "__pycache__", "lib2to3", "idlelib", "turtledemo"}
QUIET = 0.85  # of its time a process that only computes has a CPU, or the machine is busy
WARM_UP = 4  # every fourth batch is done once before the clock starts
COLUMNS = ("files", "lines", "classes", "functions", "imports")


def census_of(sources: list[bytes]) -> tuple[Counter[str], Counter[str]]:
    """Parse modules; return (counts by column, how often each module is imported)."""
    counts: Counter[str] = Counter()
    imported: Counter[str] = Counter()
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue  # test data that is broken on purpose
        counts["files"] += 1
        counts["lines"] += source.count(b"\n")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                counts["classes"] += 1
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                counts["functions"] += 1
            elif isinstance(node, ast.Import):
                counts["imports"] += len(node.names)
                imported.update(name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                counts["imports"] += len(node.names)
                if node.module and not node.level:
                    imported[node.module.partition(".")[0]] += 1
    return counts, imported


@rabbitry.remote
def parse(sources: list[bytes]) -> tuple[Counter[str], Counter[str]]:
    """Count in one batch of files: their text is passed, as nodes elsewhere do not have this machine's files."""
    return census_of(sources)


@rabbitry.remote
def add_up(*parts: Any) -> tuple[Counter[str], Counter[str]]:
    """Add up the counts of several parts. Their refs are passed: this runs when they are done, wherever they are."""
    return sum((part[0] for part in parts), Counter()), sum((part[1] for part in parts), Counter())


def batches(root: Path) -> dict[str, list[list[str]]]:
    """Return the standard library's files by package, in batches of about equal size."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not SKIPPED.intersection(parts):
            files[parts[0] if len(parts) > 1 else "(top level)"].append(path)
    result: dict[str, list[list[str]]] = {}
    for package, paths in files.items():
        lines: list[list[str]] = [[]]
        size = 0
        for path in paths:
            if size > BATCH_BYTES:
                lines.append([])
                size = 0
            lines[-1].append(str(path))
            size += path.stat().st_size
        result[package] = lines
    return result


def read(batch: list[str]) -> list[bytes]:
    """Return the text of files."""
    return [Path(path).read_bytes() for path in batch]


def table(rows: dict[str, Counter[str]], total: Counter[str], shown: int = 12) -> str:
    """Return the largest packages and the total as text."""
    line = "-" * (16 + 11 * len(COLUMNS))
    largest = sorted(rows.items(), key=lambda item: -item[1]["lines"])[:shown]
    body = [
        f"{name:<16}" + "".join(f"{row[column]:>11,}" for column in COLUMNS)
        for name, row in [*largest, (f"all {len(rows)}", total)]
    ]
    head = f"{'package':<16}" + "".join(f"{column:>11}" for column in COLUMNS)
    return "\n".join([head, line, *body[:-1], line, body[-1]])


def count_here(work: dict[str, list[list[str]]]) -> Counter[str]:
    """Take the census in this process alone."""
    return sum((census_of(read(batch))[0] for lines in work.values() for batch in lines), Counter())


def told_of_load(seconds: float, computed: float) -> str:
    """Return what to think of the figures if other programs ran meanwhile; "" on a quiet machine.

    Args:
        seconds: that the work took in one process.
        computed: seconds of a processor that it had in them; it never waits for anything else.
    """
    share = computed / seconds
    if share > QUIET:
        return ""
    return (
        f"Other programs kept this machine busy: the one process had a CPU for {share:.0%} of its time. "
        "Both times, and the speed-up, say little; try again when it is quiet."
    )


def take_census(address: str | None = None) -> None:
    """Take the census in this process and on the cluster, compare, and print a table.

    Args:
        address: of the cluster, as `rabbitry.init` takes it.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    work = batches(root)
    # Every file is read once before anything is timed: neither side pays for the disk.
    size = sum(len(Path(path).read_bytes()) for lines in work.values() for batch in lines for path in batch)
    tasks = sum(map(len, work.values()))
    sample = [batch for lines in work.values() for batch in lines][::WARM_UP]
    print(f"Python {sys.version.split()[0]}, standard library in {root}")
    print(f"{size / 1e6:.0f} MB of source in {len(work)} packages: {tasks} tasks parse, {len(work) + 1} add up\n")

    print("the same in this process alone ...", end=" ", flush=True)
    count_here({"sample": sample})
    gc.freeze()  # as workers do: the collector passes over what is older than the work
    started, begun = time.perf_counter(), time.process_time()
    alone = count_here(work)
    seconds_alone, computed = time.perf_counter() - started, time.process_time() - begun
    print(f"{seconds_alone:.2f} s", flush=True)
    gc.unfreeze()

    started = time.perf_counter()
    with rabbitry.init(address):
        seconds_init = time.perf_counter() - started
        slots = int(rabbitry.cluster_resources()["CPU"])
        rabbitry.get([parse.remote(read(batch)) for batch in sample])
        started = time.perf_counter()
        leaves = {package: [parse.remote(read(batch)) for batch in lines] for package, lines in work.items()}
        packages = {package: add_up.remote(*refs) for package, refs in leaves.items()}
        whole = add_up.remote(*packages.values())
        for _ in progress([ref for refs in leaves.values() for ref in refs], desc="parsing"):
            pass  # a result could be used here as soon as it is there
        counts, imported = rabbitry.get(whole)
        rows = {package: part[0] for package, part in zip(packages, rabbitry.get(list(packages.values())), strict=True)}
        seconds = time.perf_counter() - started

    if counts != alone:
        raise SystemExit(f"the two counts differ: {counts} and {alone}")
    print(f"\n{table(rows, counts)}")
    print(f"\nmost imported: {', '.join(f'{name} ({count})' for name, count in imported.most_common(8))}\n")
    longest = max(seconds, seconds_alone)
    for label, each in (("one process", seconds_alone), (f"rabbitry, {slots} CPUs", seconds)):
        print(f"{label:<16}{each:>7.2f} s  {'#' * round(40 * each / longest)}")
    print(
        f"speed-up {seconds_alone / seconds:.2f} x, both sides warm, from the first call to the last result; "
        f"init() took {seconds_init:.2f} s"
    )
    if busy := told_of_load(seconds_alone, computed):
        print(busy)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run.

    Args:
        arguments: of the command line; None for the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m rabbitry.demo", description="A census of Python's standard library."
    )
    parser.add_argument("--address", help="of a cluster: auto, amqp://..., unix:///... (default: one on this machine)")
    take_census(parser.parse_args(arguments).address)


if __name__ == "__main__":
    main()
