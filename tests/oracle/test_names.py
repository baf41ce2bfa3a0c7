"""Every public name of Ray Core is there under the alias, or it is said here why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracle.names import MODULES
from tests.oracle.run_on_both import PYTHON_VARIABLE

RECORD = Path(__file__).with_name("recorded_names.json")

WHEEL = "comes from Ray's wheel, which this environment has not"
CORE = "a detail of how Ray is built, which its own modules share"
CGRAPH = "of Ray's compiled graphs on GPUs, or a picture of a graph"
TABLES = "rows of Ray's own state service; `summarize_tasks()` and its kind return dictionaries here as there"

NOT_THERE: dict[str, str] = {
    **dict.fromkeys(
        ("ray.data", "ray.ray_constants", "ray.serialization", "ray.state", "ray.widgets", "ray.worker"), WHEEL
    ),
    "ray.internal": CORE,
    "ray.actor.DEFAULT_MAX_CONCURRENCY_ASYNC": CORE,
    "ray.actor.STREAMING_GENERATOR_RETURN": CORE,
    "ray.cluster_utils.AutoscalingCluster": "a fake cluster around Ray's own autoscaler",
    "ray.cluster_utils.FAKE_HEAD_NODE_ID": "a fake cluster around Ray's own autoscaler",
    **dict.fromkeys(
        (
            "ray.dag.COLLECTIVE_OPERATION_KEY",
            "ray.dag.CollectiveOutputNode",
            "ray.dag.DAGNODE_TYPE_KEY",
            "ray.dag.DAGOperationFuture",
            "ray.dag.GPUFuture",
            "ray.dag.plot",
        ),
        CGRAPH,
    ),
    "ray.exceptions.PYTHON": CORE,
    "ray.remote_function.STREAMING_GENERATOR_RETURN": CORE,
    "ray.util.accelerators.tpu": WHEEL,
    "ray.util.placement_group.PLACEMENT_GROUP_BUNDLE_RESOURCE_NAME": "groups have no resources of their own",
    "ray.util.state.api.warnings_on_slow_request": CORE,
    **dict.fromkeys(
        (
            "ray.util.state.common.ActorSummaries",
            "ray.util.state.common.ActorSummaryPerClass",
            "ray.util.state.common.DEFAULT_DOWNLOAD_FILENAME",
            "ray.util.state.common.GetLogOptions",
            "ray.util.state.common.IS_PYDANTIC_2",
            "ray.util.state.common.Link",
            "ray.util.state.common.NestedTaskSummary",
            "ray.util.state.common.ObjectSummaries",
            "ray.util.state.common.ObjectSummaryPerKey",
            "ray.util.state.common.StateSummary",
            "ray.util.state.common.SummaryApiResponse",
            "ray.util.state.common.TaskSummaries",
            "ray.util.state.common.TaskSummaryPerFuncOrClassName",
            "ray.util.state.common.filter_fields",
            "ray.util.state.common.protobuf_message_to_dict",
            "ray.util.state.common.protobuf_to_task_state_dict",
            "ray.util.state.common.remove_ansi_escape_codes",
            "ray.util.state.common.state",
        ),
        TABLES,
    ),
}
"""Names that are not there where Ray's wheel is not, with the reason."""

LOOK = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
missing = []
for module, names in json.load(open(sys.argv[1])).items():
    found = importlib.import_module(module)
    for name in names:
        try:
            getattr(found, name)
        except AttributeError:
            missing.append(f"{module}.{name}")
print(json.dumps(missing))
"""


def test_every_public_name_of_ray_is_there_or_said_to_be_missing() -> None:
    command = [sys.executable, "-m", "rabbitry.as_ray", "-c", LOOK, str(RECORD)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)) == sorted(NOT_THERE)


def test_every_module_is_on_record() -> None:
    assert sorted(json.loads(RECORD.read_text())) == sorted(MODULES), "run: python -m tests.oracle.names"


@pytest.mark.asks_ray
@pytest.mark.timeout(200)
def test_the_record_is_what_ray_has() -> None:
    python = os.environ[PYTHON_VARIABLE]
    done = subprocess.run([python, "-m", "tests.oracle.names"], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(RECORD.read_text())
