"""`rabbitry.util.dask`: graphs of dask are computed on the cluster."""

from __future__ import annotations

import importlib.util
import operator
import sys
from typing import Any

import pytest

import rabbitry
from rabbitry.object_ref import ObjectRef

pytestmark = pytest.mark.usefixtures("session")
has_dask = importlib.util.find_spec("dask") is not None
needs_dask = pytest.mark.skipif(not has_dask, reason="dask is not installed")


@needs_dask
def test_without_dask_or_with_an_old_one_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import rabbitry.util.dask as ours

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "dask", None)
        with pytest.raises(ImportError, match=r"needs dask: `pip install dask"):
            importlib.reload(ours)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2024.12.1")
    with pytest.raises(ImportError, match=r"needs dask 2025\.1 or newer, and 2024\.12\.1 is installed"):
        importlib.reload(ours)


@needs_dask
def test_a_graph_and_the_shape_of_its_keys() -> None:
    from rabbitry.util.dask import ray_dask_get, ray_dask_get_sync

    graph: dict[str, Any] = {
        "one": 1,
        "pair": (1, 2),
        "two": (operator.add, "one", 1),
        "list": (sum, ["one", "two", (operator.mul, "two", "two")]),
        "alias": "two",
        "deep": (operator.add, "list", "alias"),
    }
    for get in (ray_dask_get, ray_dask_get_sync):
        assert get(graph, "deep") == 9
        assert get(graph, ["two", ["list", ["one"]], "alias"]) == (2, (7, (1,)), 2)


@needs_dask
def test_delayed_functions_run_in_tasks() -> None:
    import dask

    from rabbitry.util.dask import enable_dask_on_ray, ray_dask_get, ray_dask_persist

    @dask.delayed
    def where(*_: Any) -> str | None:
        return rabbitry.get_runtime_context().get_task_id()

    @dask.delayed
    def fail() -> None:
        raise KeyError("no")

    with enable_dask_on_ray():
        ids = dask.compute(where(), where(where()))
    assert len(set(ids)) == 2 and None not in ids
    with pytest.raises(KeyError):
        fail().compute(scheduler=ray_dask_get)
    (kept,) = ray_dask_persist(dask.delayed(operator.add)(1, 2))
    assert [type(each) for each in dict(kept.dask).values()] != [int]
    assert kept.compute(scheduler=ray_dask_get) == 3
    assert dask.delayed(operator.add)(kept, 4).compute(scheduler=ray_dask_get) == 7
    with pytest.raises(ValueError, match="ray_remote_args"), dask.annotate(resources={"GPU": 1}):
        where().compute(scheduler=ray_dask_get)


@needs_dask
def test_callbacks() -> None:
    import dask

    from rabbitry.util.dask import RayDaskCallback, ray_dask_get

    seen: list[Any] = []

    class Seen(RayDaskCallback):
        def _ray_presubmit(self, task: Any, key: Any, deps: Any) -> Any:
            return 100 if key == "replaced" else None

        def _ray_postsubmit(self, task: Any, key: Any, deps: Any, object_ref: Any) -> None:
            seen.append((key, isinstance(object_ref, ObjectRef)))

        def _ray_finish(self, result: Any) -> None:
            seen.append(result)

    def before(key: Any, refs: Any) -> int:
        return 5

    def after(key: Any, result: Any, state: Any) -> None:
        assert (key, result, state) == ("end", 101, 5)

    graph = {"replaced": (operator.add, 1, 1), "end": (operator.add, "replaced", 1)}
    with Seen(), RayDaskCallback(ray_pretask=before, ray_posttask=after):
        assert ray_dask_get(graph, "end") == 101
    assert seen == [("end", True), 101]
    assert ray_dask_get(graph, "end") == 3
    assert RayDaskCallback.ray_active == []
    assert dask.config.get("scheduler", None) is None


@needs_dask
def test_each_callback_gets_after_a_task_what_it_said_before_it() -> None:
    from rabbitry.util.dask import RayDaskCallback, ray_dask_get

    def expects(state: Any) -> Any:
        def after(key: Any, result: Any, found: Any) -> None:
            assert found == state

        return after

    asked: list[Any] = []
    callbacks = [
        RayDaskCallback(ray_pretask=lambda key, refs: "first", ray_posttask=expects("first")),
        RayDaskCallback(ray_pretask=lambda key, refs: "for nobody"),
        RayDaskCallback(ray_posttask=expects(None)),
        RayDaskCallback(ray_pretask=lambda key, refs: "last", ray_posttask=expects("last")),
        RayDaskCallback(ray_presubmit=lambda task, key, deps: 5 if key == "replaced" else None),
        RayDaskCallback(ray_presubmit=lambda task, key, deps: asked.append(key)),
    ]
    graph = {"replaced": (operator.add, 1, 1), "end": (operator.add, "replaced", 1)}
    assert ray_dask_get(graph, "end", ray_callbacks=callbacks) == 6
    assert asked == ["replaced", "end"]


@needs_dask
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_persisted_collections_stay_in_the_store_whichever_way_they_are_persisted() -> None:
    import dask
    import dask.array

    from rabbitry.util.dask import enable_dask_on_ray, ray_dask_get

    def held(collection: Any) -> list[bool]:
        return [isinstance(getattr(each, "value", each), ObjectRef) for each in dict(collection.dask).values()]

    array, one = dask.array.ones(4, chunks=2) + 2, dask.delayed(operator.add)(1, 2)
    assert held(array.persist(scheduler=ray_dask_get)) == [True, True]
    with enable_dask_on_ray():
        (kept,), method = dask.persist(array), one.persist()
        assert (held(kept), held(method)) == ([True, True], [True])
        assert (int((kept + 1).sum().compute()), (method + 1).compute()) == (16, 4)
        assert held(one.persist(scheduler="synchronous")) == [False]
    assert held(array.persist(scheduler="synchronous")) == [False, False]


@needs_dask
def test_the_optimization_that_rays_programs_give_to_dask_changes_nothing() -> None:
    import dask

    from rabbitry.util.dask import dataframe_optimize, ray_dask_get

    graph = {"end": (operator.add, 1, 2)}
    assert dataframe_optimize(graph, ["end"], optimize_graph=True) is graph
    with dask.config.set(scheduler=ray_dask_get, dataframe_optimize=dataframe_optimize):
        assert dask.delayed(operator.add)(1, 2).compute() == 3
