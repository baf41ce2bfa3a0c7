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
from warren.util.progress import progress

BATCH_BYTES = 150_000
SKIPPED = {"site-packages", "__pycache__", "lib2to3", "idlelib", "turtledemo"}
COLUMNS = ("files", "lines", "classes", "functions", "imports")


def census_of(paths: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Parse files; return (counts by column, how often each module is imported)."""
    counts: Counter[str] = Counter()
    imported: Counter[str] = Counter()
    for path in paths:
        source = Path(path).read_bytes()
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
def parse(paths: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Count in one batch of files."""
    return census_of(paths)


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


def main(address: str | None = None) -> None:
    """Take the census twice, in this process and on the cluster, and compare."""
    root = Path(sysconfig.get_paths()["stdlib"])
    work = batches(root)
    tasks = sum(map(len, work.values()))
    print(f"Python {sys.version.split()[0]}, standard library in {root}: {len(work)} packages, {tasks} parse tasks")

    started = time.perf_counter()
    alone = sum((census_of(batch)[0] for lines in work.values() for batch in lines), Counter())
    seconds_alone = time.perf_counter() - started

    started = time.perf_counter()
    with warren.init(address):
        seconds_init = time.perf_counter() - started
        slots = int(warren.cluster_resources()["CPU"])
        started = time.perf_counter()
        leaves = {package: [parse.remote(batch) for batch in lines] for package, lines in work.items()}
        packages = {package: add_up.remote(*refs) for package, refs in leaves.items()}
        whole = add_up.remote(*packages.values())
        for _ in progress([ref for refs in leaves.values() for ref in refs], desc="parsing"):
            pass
        counts, imported = warren.get(whole)
        by_package = dict(zip(packages, warren.get(list(packages.values())), strict=True))
        seconds = time.perf_counter() - started

    print(f"\n{'package':<16}" + "".join(f"{column:>11}" for column in COLUMNS))
    for package, (row, _) in sorted(by_package.items(), key=lambda item: -item[1][0]["lines"])[:12]:
        print(f"{package:<16}" + "".join(f"{row[column]:>11,}" for column in COLUMNS))
    print(f"{'all':<16}" + "".join(f"{counts[column]:>11,}" for column in COLUMNS))
    top = ", ".join(f"{name} ({count})" for name, count in imported.most_common(8))
    print(f"\nmost imported: {top}")
    if counts != alone:
        raise SystemExit(f"the two counts differ: {counts} and {alone}")
    print(
        f"one process: {seconds_alone:.2f} s   warren on {slots} CPUs: {seconds:.2f} s   "
        f"speed-up: {seconds_alone / seconds:.2f} x   (init: {seconds_init:.2f} s)"
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
