"""`rabbitry.util.joblib`, on both engines."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

import rabbitry
from tests.end_to_end.conftest import node_environment
from tests.end_to_end.waiting import wait_for_file

joblib = pytest.importorskip("joblib")
from joblib import Parallel, delayed  # noqa: E402

from rabbitry.util.joblib import register_rabbitry, register_ray  # noqa: E402

pytestmark = pytest.mark.usefixtures("session")


def square(x):
    return x * x


def fail_on_three(x):
    if x == 3:
        raise ValueError(x)
    return x


@pytest.fixture(params=["rabbitry", "ray"], autouse=True)
def backend(request):
    {"rabbitry": register_rabbitry, "ray": register_ray}[request.param]()
    with joblib.parallel_config(backend=request.param, n_jobs=2):
        yield request.param


def test_results_in_order():
    assert Parallel()(delayed(square)(x) for x in range(100)) == [x * x for x in range(100)]
    assert Parallel(n_jobs=3, batch_size=7)(delayed(square)(x) for x in range(20)) == [x * x for x in range(20)]
    assert Parallel()([]) == []
    assert list(Parallel(return_as="generator")(delayed(square)(x) for x in range(5))) == [0, 1, 4, 9, 16]
    with Parallel() as parallel:
        assert [parallel(delayed(square)(x) for x in range(3)) for _ in range(2)] == [[0, 1, 4]] * 2


def test_they_are_tasks():
    def where():
        context = rabbitry.get_runtime_context()
        return context.get_task_id() is not None, context.get_assigned_resources()

    assert Parallel(remote_options={"num_cpus": 0.5})(delayed(where)() for _ in range(2)) == [(True, {"CPU": 0.5})] * 2


def test_options_of_the_backend(backend):
    def resources():
        return rabbitry.get_runtime_context().get_assigned_resources()

    with joblib.parallel_config(backend=backend, n_jobs=2, ray_remote_args={"num_cpus": 0.25}):
        assert Parallel()(delayed(resources)() for _ in range(2)) == [{"CPU": 0.25}] * 2


def test_how_many_jobs():
    assert [joblib.effective_n_jobs(count) for count in (-1, -2, 5, 1)] == [2, 1, 5, 1]
    with pytest.raises(ValueError):
        joblib.effective_n_jobs(0)


def test_an_error_ends_the_call():
    with pytest.raises(ValueError, match="3"):
        Parallel()(delayed(fail_on_three)(x) for x in range(10))
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_time_out(tmp_path):
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.2)(delayed(wait_for_file)(tmp_path / "never") for _ in range(3))
    # What ran then was interrupted: it takes up no CPU.
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_calls_inside_of_calls():
    def inner(x):
        return Parallel(n_jobs=2)(delayed(square)(y) for y in range(x))

    assert Parallel()(delayed(inner)(x) for x in range(1, 4)) == [[0], [0, 1], [0, 1, 4]]


def test_without_joblib_the_error_says_what_to_do(tmp_path: Path):
    program = (
        "import sys\n"
        "sys.modules['joblib'] = None\n"
        "from rabbitry.util.joblib import register_rabbitry\n"
        "try:\n"
        "    register_rabbitry()\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=node_environment(), capture_output=True, text=True, check=True, timeout=30
    )
    assert "pip install joblib" in done.stdout
