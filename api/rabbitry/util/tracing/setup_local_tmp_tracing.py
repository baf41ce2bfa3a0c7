"""A hook that writes spans to files, for trying traces out: `/tmp/spans/<pid>.txt`, a line of JSON for each.

init(_tracing_startup_hook="rabbitry.util.tracing.setup_local_tmp_tracing:setup_tracing")
"""

from __future__ import annotations

import os
import tempfile

from rabbitry import environment

SPANS_VARIABLE = "RABBITRY_SPANS_DIR"


def setup_tracing() -> None:
    """Have the spans of this process written to a file of its own.

    Raises:
        OSError: it cannot be written.
    """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    directory = environment.text(SPANS_VARIABLE) or os.path.join(tempfile.gettempdir(), "spans")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    handle = os.open(
        os.path.join(directory, f"{os.getpid()}.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600
    )
    file = os.fdopen(handle, "a", encoding="utf-8", buffering=1)
    provider = TracerProvider()
    provider.add_span_processor(
        SimpleSpanProcessor(
            ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + os.linesep)
        )
    )
    trace.set_tracer_provider(provider)
