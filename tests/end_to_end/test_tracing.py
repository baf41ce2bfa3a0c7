"""Spans of what is submitted, waits and runs, by OpenTelemetry; each program is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from tests.end_to_end.conftest import node_environment

HOOK = "rabbitry.util.tracing.setup_local_tmp_tracing:setup_tracing"

PROGRAM = """
import sys
import rabbitry

rabbitry.init(num_cpus=2, _tracing_startup_hook=sys.argv[1])
from opentelemetry import trace


@rabbitry.remote(num_cpus=0.1)
def inner():
    return 1


@rabbitry.remote(num_cpus=0.1)
def outer():
    with trace.get_tracer("of the user").start_as_current_span("in the task"):
        return rabbitry.get(inner.remote())


@rabbitry.remote(num_cpus=0.1, max_retries=0)
def bad():
    raise ValueError("no")


@rabbitry.remote(num_cpus=0.1)
class Plain:
    def call(self):
        return rabbitry.get(inner.remote())


@rabbitry.remote(num_cpus=0.1)
class Loop:
    async def call(self):
        return 1


with trace.get_tracer("of the user").start_as_current_span("in the driver"):
    assert rabbitry.get(outer.remote()) == 1
    assert rabbitry.get([Plain.remote().call.remote(), Loop.remote().call.remote()]) == [1, 1]
    try:
        rabbitry.get(bad.remote())
    except ValueError:
        pass
    assert rabbitry.get([inner.options(enable_task_events=False).remote() for _ in range(5)]) == [1] * 5
rabbitry.shutdown()
"""

SHORT = """
import time
import rabbitry

rabbitry.init(num_cpus=1, logging_level="ERROR")


@rabbitry.remote
def traced():
    return 1


assert rabbitry.get(traced.remote()) == 1
time.sleep(2)  # spans of workers are sent within half a second
rabbitry.shutdown()
"""


def run(program: str, *arguments: str, before: tuple[str, ...] = (), **variables: str) -> str:
    done = subprocess.run(
        [*before, sys.executable, "-c", program, *arguments],
        env={**node_environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read_spans(directory: Path) -> dict[str, dict[str, Any]]:
    spans = [json.loads(line) for file in directory.glob("*.txt") for line in file.read_text().splitlines()]
    return {span["context"]["span_id"]: span for span in spans}


def test_the_context_goes_through_tasks_and_actors(tmp_path: Path):
    run(PROGRAM, HOOK, RABBITRY_SPANS_DIR=str(tmp_path))
    assert len(list(tmp_path.glob("*.txt"))) >= 3  # driver and workers
    spans = read_spans(tmp_path)
    assert len({span["context"]["trace_id"] for span in spans.values()}) == 1
    above = {(span["name"], spans[span["parent_id"]]["name"] if span["parent_id"] else None) for span in spans.values()}
    assert above >= {
        ("in the driver", None),
        ("outer ray.remote", "in the driver"),
        ("outer queue", "outer ray.remote"),
        ("outer ray.remote_worker", "outer ray.remote"),
        ("in the task", "outer ray.remote_worker"),
        ("inner ray.remote", "in the task"),
        ("inner ray.remote_worker", "inner ray.remote"),
        ("Plain.__init__ ray.remote", "in the driver"),
        ("Plain.__init__ ray.remote_worker", "Plain.__init__ ray.remote"),
        ("Plain.call ray.remote_worker", "Plain.call ray.remote"),
        ("inner ray.remote", "Plain.call ray.remote_worker"),
        ("Loop.call ray.remote_worker", "Loop.call ray.remote"),
    }
    failed = {span["name"] for span in spans.values() if span["status"]["status_code"] == "ERROR"}
    assert failed == {"bad ray.remote_worker"}
    (run_span,) = [span for span in spans.values() if span["name"] == "outer ray.remote_worker"]
    (queue_span,) = [span for span in spans.values() if span["name"] == "outer queue"]
    assert queue_span["end_time"] <= run_span["start_time"]
    assert run_span["attributes"]["ray.function"] == "outer"
    assert run_span["kind"] == "SpanKind.CONSUMER"


@pytest.mark.parametrize("how", ["opentelemetry-instrument", "variable"])
def test_opentelemetry_sets_it_up(how: str):
    exporters = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    if how == "variable":
        told = run(SHORT, RABBITRY_TRACING="on", **exporters)
    else:
        told = run(SHORT, before=(str(Path(sys.executable).with_name("opentelemetry-instrument")),), **exporters)
    for name in ("traced ray.remote", "traced queue", "traced ray.remote_worker"):
        assert f'"name": "{name}"' in told, told


def test_nothing_of_it_is_loaded_while_it_is_off():
    run(
        "import sys, rabbitry\n"
        "rabbitry.init(num_cpus=1, logging_level='ERROR')\n"
        "loaded = rabbitry.remote(lambda: [name for name in __import__('sys').modules if 'opentelemetry' in name])\n"
        "assert rabbitry.get(loaded.remote()) == []\n"
        "assert not [name for name in sys.modules if 'opentelemetry' in name]\n"
        "rabbitry.shutdown()\n",
        RABBITRY_TRACING="",
    )


@pytest.mark.parametrize(
    ("hook", "error"), [("nothing", ValueError), ("json:nothing", ValueError), ("not_there:f", ModuleNotFoundError)]
)
def test_a_hook_that_is_none_is_told_at_once(hook: str, error: type[Exception]):
    with pytest.raises(error):
        rabbitry.init(_tracing_startup_hook=hook)
    assert not rabbitry.is_initialized()
