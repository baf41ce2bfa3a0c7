"""Traces of tasks and actors by OpenTelemetry.

    pip install 'rabbitry[tracing]'

Any of these switches them on, before `init()`: `opentelemetry-instrument python program.py`; the variable
RABBITRY_TRACING=on with the variables OTEL_... of OpenTelemetry; `init(_tracing_startup_hook="module:function")`, a
function that sets up a tracer provider, here and in each worker process; or `enable()`.
"""

from rabbitry.tracing import disable, enable, is_on

__all__ = ["disable", "enable", "is_on"]
