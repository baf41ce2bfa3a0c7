"""Modules that every process loads must not pull in the heavy libraries."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import rabbitry
import rabbitry.options
import rabbitry.util

HEAVY = {"asyncio", "cloudpickle", "numpy", "pika", "pydantic", "redis", "tqdm"}


@pytest.mark.parametrize("module", ["exceptions", "options", "signature", "ids", "scheduling", "labels", "runtime_env"])
def test_a_module_is_light(module: str) -> None:
    package = str(Path(rabbitry.options.__file__).parent)
    # The package itself is replaced by an empty one: what it imports has a limit of its own.
    script = textwrap.dedent(
        f"""
        import sys, types
        sys.path[:0] = {[entry for entry in sys.path if entry]!r}
        sys.modules["rabbitry"] = package = types.ModuleType("rabbitry")
        package.__path__ = [{package!r}]
        import rabbitry.{module}
        print(sorted({HEAVY!r} & set(sys.modules)))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_names_are_there_after_one_import() -> None:
    script = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = {[entry for entry in sys.path if entry]!r}
        import rabbitry as ray

        heavy = {HEAVY - {"cloudpickle"}!r} & set(sys.modules)
        assert not heavy - {{"asyncio"}}, heavy
        for path in (
            "ActorID", "actor.ActorHandle", "actor.exit_actor", "cloudpickle.dumps", "cloudpickle.loads",
            "cluster_utils.Cluster", "exceptions.RayTaskError", "get_actor", "job_config.JobConfig", "kill", "method",
            "remote_function.RemoteFunction", "runtime_context.get_runtime_context", "runtime_env.RuntimeEnv",
            "util.ActorPool", "util.actor_pool.ActorPool", "util.accelerators.NVIDIA_A100",
            "ClientBuilder", "client", "dag.InputNode", "dag.MultiOutputNode", "experimental.get_object_locations",
            "experimental.internal_kv._internal_kv_put", "experimental.shuffle.simple_shuffle",
            "experimental.tqdm_ray.tqdm", "util.actor_group.ActorGroup", "util.check_open_ports.check_open_ports",
            "util.collective.allreduce", "util.debugpy.set_trace", "util.get_node_instance_id", "util.iter.from_range",
            "util.pdb.set_trace", "util.ray_debugpy.set_trace", "util.rpdb.set_trace", "util.timer.Timer",
            "util.annotations.PublicAPI", "util.check_serialize.inspect_serializability", "util.debug.log_once",
            "util.get_node_ip_address", "util.list_named_actors", "util.multiprocessing.Pool", "util.queue.Queue",
            "util.scheduling_strategies.In", "util.serialization.register_serializer",
        ):
            found = ray
            for name in path.split("."):
                assert name in dir(found), path
                found = getattr(found, name)
        assert ray.cluster_utils.cluster_not_supported is False
        """
    )
    subprocess.run([sys.executable, "-c", script], timeout=30, check=True)


@pytest.mark.parametrize(
    ("where", "name", "said"),
    [
        (rabbitry, "data", "with `from ray import data` by python -m rabbitry.as_ray"),
        (rabbitry, "llm", "ray.llm does not run on rabbitry"),
        (rabbitry, "java_function", "Ray has ray.java_function, rabbitry has not"),
        (rabbitry, "internal", "Ray has ray.internal, rabbitry has not"),
        (rabbitry, "gett", "Did you mean 'get'?"),
        (rabbitry.util, "lightgbm", "Ray has ray.util.lightgbm, rabbitry has not"),
        (rabbitry.util, "ActorPol", "Did you mean 'ActorPool'?"),
    ],
)
def test_what_is_not_there_says_so(where: Any, name: str, said: str) -> None:
    assert not hasattr(where, name)
    with pytest.raises(
        AttributeError, match=re.escape(f"module '{where.__name__}' has no attribute '{name}'")
    ) as caught:
        getattr(where, name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "statement",
    ["import rabbitry.tune", "from rabbitry import tune", "from rabbitry.tune.schedulers import ASHAScheduler"],
)
def test_importing_a_library_of_ray_says_how_to_use_it(statement: str) -> None:
    with pytest.raises(ImportError, match=r"No module named 'rabbitry\.tune'.*python -m rabbitry\.as_ray"):
        exec(statement)


def test_asking_whether_a_library_is_there_is_no_error() -> None:
    assert importlib.util.find_spec("rabbitry.tune") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("rabbitry.nothing_of_that_name")
