"""Ray's names for what tells whether traces are on, and for what carries them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rabbitry.tracing import is_on

_is_tracing_enabled = is_on

__all__ = [
    "_DictPropagator",
    "_inject_tracing_into_class",
    "_inject_tracing_into_function",
    "_is_tracing_enabled",
]


def _inject_tracing_into_class(_cls: type) -> type:
    """Return the class as it is: spans of calls are made by nodes, not by wrappers around methods."""
    return _cls


def _inject_tracing_into_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as it is; see `_inject_tracing_into_class`."""
    return function


class _DictPropagator:
    """The trace that this code belongs to, as a dictionary that travels; for Ray's libraries."""

    @staticmethod
    def inject_current_context() -> dict[str, Any]:
        """Return what tells another process which span is the current one."""
        from opentelemetry import propagate

        carrier: dict[str, Any] = {}
        propagate.inject(carrier)
        return carrier

    @staticmethod
    def extract(context_dict: dict[str, Any]) -> Any:
        """Return the context of which `inject_current_context` told."""
        from opentelemetry import propagate

        return propagate.extract(context_dict)
