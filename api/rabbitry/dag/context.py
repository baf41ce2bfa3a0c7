"""Defaults of compiled graphs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from rabbitry import environment


def _setting(name: str, default: float) -> float:
    return float(environment.text(f"RAY_CGRAPH_{name}") or default)


@dataclass
class DAGContext:
    """Defaults of `experimental_compile` in this process: `DAGContext.get_current()`; set its fields to change them.

    Attributes:
        get_timeout: seconds that `get` of a compiled graph's ref waits.
        teardown_timeout: seconds that `teardown` waits for calls under way.
        submit_timeout: for Ray's programs; sending a call never waits for the actor here.
        buffer_size_bytes: for Ray's programs; values are as large as they are here.
        max_inflight_executions: executions whose results were not asked for.
        max_buffered_results: results that were not asked for, of executions before one that was.
    """

    submit_timeout: float = field(default_factory=lambda: _setting("submit_timeout", 10))
    get_timeout: float = field(default_factory=lambda: _setting("get_timeout", 10))
    teardown_timeout: float = field(default_factory=lambda: _setting("teardown_timeout", 30))
    buffer_size_bytes: int = field(default_factory=lambda: int(_setting("buffer_size_bytes", 1e6)))
    max_inflight_executions: int = field(default_factory=lambda: int(_setting("max_inflight_executions", 10)))
    max_buffered_results: int = field(default_factory=lambda: int(_setting("max_buffered_results", 1000)))

    _current: ClassVar[DAGContext | None] = None

    @staticmethod
    def get_current() -> DAGContext:
        """Return the one of this process; it is made at the first call."""
        if DAGContext._current is None:
            DAGContext._current = DAGContext()
        return DAGContext._current
