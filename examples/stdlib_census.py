"""A census of Python's standard library: parse every module in parallel, count, aggregate, print a table.

Run it with `make demo`, or `python examples/stdlib_census.py [address]` (default: an embedded cluster on this machine;
"auto" for the one that WARREN_BROKER_URL, WARREN_STORE_URL and WARREN_SECRET name).

Three layers of tasks: one for each batch of files, one for each package, which takes the refs of its batches and so
runs when they are done, and one for the whole, which takes the refs of the packages.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
import time
from collections import Counter, defaultdict
from pathlib import Path

import warren
from warren.util import progress

BATCH_BYTES = 150_000
SKIPPED = {"site-packages", "__pycache__", "lib2to3", "idlelib", "turtledemo"}
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


@warren.remote
def parse(sources: list[bytes]) -> tuple[Counter[str], Counter[str]]:
    """Count in one batch of files: their text is passed, as nodes elsewhere do not have this machine's files."""
    return census_of(sources)


@warren.remote
def add_up(*parts: tuple[Counter[str], Counter[str]]) -> tuple[Counter[str], Counter[str]]:
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


def main(address: str | None = None) -> None:
    """Take the census twice, in this process and on the cluster, and compare."""
    root = Path(sysconfig.get_paths()["stdlib"])
    work = batches(root)
    # Every file is read once before anything is timed: neither side pays for the disk.
    size = sum(len(Path(path).read_bytes()) for lines in work.values() for batch in lines for path in batch)
    tasks = sum(map(len, work.values()))
    print(f"Python {sys.version.split()[0]}, standard library in {root}")
    print(f"{size / 1e6:.0f} MB of source in {len(work)} packages: {tasks} tasks parse, {len(work) + 1} add up\n")

    print("the same in this process alone ...", end=" ", flush=True)
    started = time.perf_counter()
    alone = sum((census_of(read(batch))[0] for lines in work.values() for batch in lines), Counter())
    seconds_alone = time.perf_counter() - started
    print(f"{seconds_alone:.2f} s")

    started = time.perf_counter()
    with warren.init(address):
        seconds_init = time.perf_counter() - started
        slots = int(warren.cluster_resources()["CPU"])
        started = time.perf_counter()
        leaves = {package: [parse.remote(read(batch)) for batch in lines] for package, lines in work.items()}
        packages = {package: add_up.remote(*refs) for package, refs in leaves.items()}
        whole = add_up.remote(*packages.values())
        for _ in progress([ref for refs in leaves.values() for ref in refs], desc="parsing"):
            pass  # a result could be used here as soon as it is there
        counts, imported = warren.get(whole)
        rows = {package: part[0] for package, part in zip(packages, warren.get(list(packages.values())), strict=True)}
        seconds = time.perf_counter() - started

    if counts != alone:
        raise SystemExit(f"the two counts differ: {counts} and {alone}")
    print(f"\n{table(rows, counts)}")
    print(f"\nmost imported: {', '.join(f'{name} ({count})' for name, count in imported.most_common(8))}\n")
    longest = max(seconds, seconds_alone)
    for label, each in (("one process", seconds_alone), (f"warren, {slots} CPUs", seconds)):
        print(f"{label:<16}{each:>7.2f} s  {'#' * round(40 * each / longest)}")
    faster = seconds_alone / seconds
    print(f"speed-up {faster:.2f} x, from the first call to the last result; init() took {seconds_init:.2f} s")


if __name__ == "__main__":
    main(*sys.argv[1:2])
