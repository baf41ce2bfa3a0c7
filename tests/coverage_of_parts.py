"""How much of the client's and the node's parts the tests of the parts alone reach; shown at the end of a whole run.

Only tests below `tests/api` and `tests/workers` count, and only what runs in their own process: end-to-end tests reach
nearly every line by the way, which says little about what is checked. `make coverage` shows single lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

TOP = Path(__file__).parents[1]
PARTS = (TOP / "api/rabbitry/core", TOP / "workers/rabbitry_workers/node")
TESTS = (TOP / "tests/api", TOP / "tests/workers")
WANTED_PERCENT = 85.0


class CoverageOfParts:
    """A plugin that traces while tests of the parts run, and fails a run with a folder of theirs below the mark."""

    def __init__(self) -> None:
        self._tracer = coverage.Coverage(data_file=None, source=[str(part) for part in PARTS], config_file=False)
        self._tracer.start()  # what modules run when they are imported, which is while tests are collected
        self.below: list[str] = []

    def pytest_collection_finish(self) -> None:
        """Stop until a test of the parts begins."""
        self._tracer.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace one test, if it is one of the parts."""
        if not any(item.path.is_relative_to(folder) for folder in TESTS):
            return (yield)
        self._tracer.start()
        try:
            return (yield)
        finally:
            self._tracer.stop()

    def percents(self) -> dict[str, float]:
        """Return how many percent of the statements of each folder of the parts were run."""
        lines: dict[str, list[int]] = {}
        for part in PARTS:
            for path in sorted(part.rglob("*.py")):
                _, statements, _, missing, _ = self._tracer.analysis2(str(path))
                counts = lines.setdefault(str(path.parent.relative_to(part.parent)), [0, 0])
                counts[0] += len(statements)
                counts[1] += len(missing)
        return {name: 100 * (1 - missing / total) for name, (total, missing) in lines.items() if total}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that is green otherwise, if a folder is below the mark."""
        self._percents = self.percents()
        self.below = [name for name, percent in self._percents.items() if percent < WANTED_PERCENT]
        if self.below and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the percents in two lines, and what is below the mark in a third."""
        terminalreporter.section("statements that the tests of the parts reach")
        for root in (part.name for part in PARTS):
            parts = [(name, percent) for name, percent in self._percents.items() if name.split("/")[0] == root]
            terminalreporter.line("  ".join(f"{name} {percent:.0f}%" for name, percent in parts))
        if self.below:
            terminalreporter.line(f"below {WANTED_PERCENT:.0f}%: {', '.join(self.below)}", red=True)


def of_a_whole_run(config: pytest.Config) -> bool:
    """Return True if all tests were asked for: of a part of them nothing follows."""
    of_a_part = config.getoption("keyword") or config.getoption("collectonly")
    return not of_a_part and config.args_source is not config.ArgsSource.ARGS
