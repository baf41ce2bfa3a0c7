"""How much of the client's and the node's parts the tests of the parts alone reach; shown at the end of a whole run.

Only tests below `tests/api` and `tests/workers` count, and only what runs in their own process: end-to-end tests reach
nearly every line by the way, which says little about what is checked. `make coverage` shows single lines.

Where pytest-xdist spreads the tests over processes, each of them traces, and the first one puts it together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import coverage
import pytest

from tests.across_workers import is_worker, to_controller

TOP = Path(__file__).parents[1]
PARTS = (TOP / "api/rabbitry/core", TOP / "workers/rabbitry_workers/node")
TESTS = (TOP / "tests/api", TOP / "tests/workers")
WANTED_PERCENT = 85.0
KEY: Final = "lines_of_parts"


class TracedParts:
    """A plugin that traces while tests of the parts run."""

    def __init__(self) -> None:
        self._tracer = coverage.Coverage(data_file=None, source=[str(part) for part in PARTS], config_file=False)
        self._tracer.start()  # what modules run when they are imported, which is while tests are collected

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

    @property
    def lines(self) -> dict[str, list[int]]:
        """The lines of each file that were run."""
        data = self._tracer.get_data()
        return {path: sorted(data.lines(path) or []) for path in data.measured_files()}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's lines away."""
        if is_worker(session.config):
            to_controller(session.config, KEY, self.lines)


class CoverageOfParts:
    """A plugin that fails a run with a folder of the parts below the mark.

    Args:
        traced: what traces in this process; None where workers do.
    """

    def __init__(self, traced: TracedParts | None) -> None:
        self._traced = traced
        self._lines: dict[str, set[int]] = {}
        self._percents: dict[str, float] = {}
        self.below: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Have a worker trace."""
        node.workerinput[KEY] = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the lines of a worker that has ended."""
        self._add(getattr(node, "workeroutput", {}).get(KEY, {}))

    def _add(self, lines: dict[str, list[int]]) -> None:
        for path, numbers in lines.items():
            self._lines.setdefault(path, set()).update(numbers)

    def percents(self) -> dict[str, float]:
        """Return how many percent of the statements of each folder of the parts were run."""
        whole = coverage.Coverage(data_file=None, config_file=False)
        whole.get_data().add_lines(self._lines)
        lines: dict[str, list[int]] = {}
        for part in PARTS:
            for path in sorted(part.rglob("*.py")):
                _, statements, _, missing, _ = whole.analysis2(str(path))
                counts = lines.setdefault(str(path.parent.relative_to(part.parent)), [0, 0])
                counts[0] += len(statements)
                counts[1] += len(missing)
        return {name: 100 * (1 - missing / total) for name, (total, missing) in lines.items() if total}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that is green otherwise, if a folder is below the mark."""
        if self._traced is not None:
            self._add(self._traced.lines)
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


def register(config: pytest.Config) -> None:
    """Trace, and show what was reached, if all tests were asked for: of a part of them nothing follows."""
    if is_worker(config):
        if KEY in config.workerinput:  # type: ignore[attr-defined]  # of pytest-xdist
            config.pluginmanager.register(TracedParts())
        return
    of_a_part = config.getoption("keyword") or config.getoption("collectonly")
    if of_a_part or config.args_source is config.ArgsSource.ARGS:
        return
    traced = None if config.getoption("numprocesses", None) else TracedParts()
    if traced is not None:
        config.pluginmanager.register(traced)
    config.pluginmanager.register(CoverageOfParts(traced))
