"""What tests have to say at the end of a run, also where pytest-xdist spreads them over processes.

Each process keeps lines; those of a worker travel to the one that writes the summary when the worker ends.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

KEY: Final = "lines_at_the_end"
_lines: dict[str, list[str]] = {}


def say_at_the_end(section: str, line: str) -> None:
    """Have a line shown in a section at the end of the run."""
    _lines.setdefault(section, []).append(line)


def is_worker(config: pytest.Config) -> bool:
    """True in a process that runs tests for another one, which writes the summary."""
    return hasattr(config, "workerinput")


def to_controller(config: pytest.Config, key: str, value: Any) -> None:
    """Send plain data from a worker to the process that writes the summary; it finds them in `node.workeroutput`."""
    config.workeroutput[key] = value  # type: ignore[attr-defined]  # of pytest-xdist


class LinesAtTheEnd:
    """The plugin that collects the lines and shows them."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's lines away."""
        if is_worker(session.config):
            to_controller(session.config, KEY, _lines)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the lines of a worker that has ended; one that crashed has none."""
        for section, lines in getattr(node, "workeroutput", {}).get(KEY, {}).items():
            _lines.setdefault(section, []).extend(lines)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show all sections."""
        for section, lines in _lines.items():
            terminalreporter.section(section)
            for line in lines:
                terminalreporter.write_line(line)
