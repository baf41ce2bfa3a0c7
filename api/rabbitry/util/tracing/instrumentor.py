"""What `opentelemetry-instrument` finds: with it, a program's tasks are traced without a change to the program."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from rabbitry.tracing import disable, enable


class RabbitryInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Switches traces of tasks on and off."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return what must be installed: nothing besides rabbitry itself."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        enable()

    def _uninstrument(self, **kwargs: Any) -> None:
        disable()
