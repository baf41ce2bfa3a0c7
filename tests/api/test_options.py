"""Options are checked where they are written, as in Ray, and cannot change afterwards."""

from __future__ import annotations

import asyncio
import pickle
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from rabbitry.options import ActorOptions, MethodOptions, TaskOptions, is_generator_function
from rabbitry.scheduling import (
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

NODE = "ab" * 28


def plain() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> None:
    await asyncio.sleep(0)


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Group:
    """Stands for a placement group until there are some."""

    bundle_specs: tuple[Any, ...] = ()


# -- tasks -----------------------------------------------------------------------------------------------------------


def test_task_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITRY_TASK_MAX_RETRIES", raising=False)
    monkeypatch.delenv("RAY_TASK_MAX_RETRIES", raising=False)
    options = TaskOptions.from_kwargs()
    assert (options.num_cpus, options.max_retries, options.retry_exceptions, options.max_calls) == (1, 3, False, 0)
    assert (options.priority, options.retry_delay, options.lifetime, options.name) == (0, 0.0, None, None)
    assert options.resource_request() == {"CPU": 1}
    assert options.given() == {}


@pytest.mark.parametrize(
    ("options", "request_"),
    [
        ({"num_cpus": 0}, {}),
        ({"num_cpus": None}, {}),
        ({"num_cpus": 0.5}, {"CPU": 0.5}),
        ({"num_gpus": 0.25}, {"CPU": 1, "GPU": 0.25}),
        ({"memory": 1.5e9}, {"CPU": 1, "memory": 1_500_000_000}),
        ({"resources": {"license": 1, "nothing": 0}}, {"CPU": 1, "license": 1}),
        ({"accelerator_type": "A100"}, {"CPU": 1, "accelerator_type:A100": 0.001}),
    ],
)
def test_what_a_task_holds(options: dict[str, Any], request_: dict[str, float]) -> None:
    assert TaskOptions.from_kwargs(**options).resource_request() == request_


def test_gpu_tasks_end_their_process_unless_told_otherwise() -> None:
    assert TaskOptions.from_kwargs(num_gpus=1).max_calls == 1
    assert TaskOptions.from_kwargs(num_gpus=1, max_calls=0).max_calls == 0
    assert TaskOptions.from_kwargs().merged(num_gpus=1).max_calls == 0


@pytest.mark.parametrize("variable", ["RABBITRY_TASK_MAX_RETRIES", "RAY_TASK_MAX_RETRIES"])
def test_the_default_of_max_retries_can_be_set_from_outside(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "7")
    assert TaskOptions.from_kwargs().max_retries == 7
    assert TaskOptions.from_kwargs(max_retries=None).max_retries == 7
    assert TaskOptions.from_kwargs(max_retries=0).max_retries == 0
    monkeypatch.setenv(variable, "many")
    with pytest.raises(ValueError, match="'many', which is no int"):
        TaskOptions.from_kwargs()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_cpu": 1}, ValueError, r"keyword num_cpu for remote functions\. Did you mean 'num_cpus'\?.*retry_delay"),
        ({"max_restarts": 1}, ValueError, "Invalid option keyword max_restarts for remote functions"),
        (
            {"num_cpus": "2"},
            TypeError,
            "The type of keyword 'num_cpus' must be .* a number of 0 or more, or None, not '2'",
        ),
        ({"num_cpus": -1}, ValueError, "The quantity of resource num_cpus cannot be negative, but is -1"),
        ({"num_cpus": float("nan")}, ValueError, "finite"),
        ({"num_cpus": float("inf")}, ValueError, "finite"),
        ({"num_cpus": 0.00001}, ValueError, "quantity of resource num_cpus cannot go beyond 0.0001"),
        ({"num_gpus": 1.5}, ValueError, "num_gpus must be below 1 or a whole number"),
        ({"resources": {"CPU": 1}}, ValueError, "Use the 'num_cpus' keyword instead of 'CPU'"),
        ({"resources": {"GPU": 1}}, ValueError, "Use the 'num_gpus' keyword instead of 'GPU'"),
        ({"resources": {"memory": 1}}, ValueError, "Use the 'memory' keyword"),
        ({"resources": {"a": "1"}}, TypeError, r"resources\['a'\] must be a number"),
        ({"resources": {3: 1}}, TypeError, "names of resources are text"),
        ({"resources": {"": 1}}, ValueError, "cannot be the name"),
        ({"resources": {"HPU": 0.5}}, ValueError, "cannot be shared"),
        ({"resources": {"TPU": 3}}, ValueError, "TPU chips"),
        ({"num_returns": -1}, ValueError, "only accepts None, a non-negative integer"),
        ({"num_returns": "all"}, TypeError, "'streaming', 'dynamic' or None, not 'all'"),
        (
            {"max_retries": -2},
            ValueError,
            "only accepts None, 0, -1 or a positive integer, where -1 represents infinity, but is -2",
        ),
        ({"retry_exceptions": [1]}, ValueError, "classes of exceptions"),
        ({"retry_exceptions": [KeyboardInterrupt]}, ValueError, "classes of exceptions"),
        ({"retry_exceptions": ValueError}, TypeError, "list of exception classes"),
        ({"retry_delay": -1}, ValueError, "retry_delay must be a finite number of seconds"),
        ({"retry_delay": "1"}, TypeError, "number of seconds"),
        ({"priority": 10}, ValueError, "from 0 .* to 9"),
        ({"priority": True}, TypeError, "int from 0 to 9"),
        ({"priority": 1.0}, TypeError, "int from 0 to 9"),
        ({"lifetime": "for ever"}, ValueError, "'detached'"),
        ({"scheduling_strategy": "spread"}, ValueError, "'SPREAD'"),
        ({"scheduling_strategy": 3}, TypeError, "strategy object"),
        ({"runtime_env": "x"}, TypeError, "runtime_env must be a dict"),
        ({"object_store_memory": 1}, ValueError, "cannot be set for tasks"),
        ({"placement_group": Group(), "scheduling_strategy": "SPREAD"}, ValueError, "not both"),
    ],
)
def test_bad_task_options_fail_where_they_are_written(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TaskOptions.from_kwargs(**options)
    with pytest.raises(error, match=message):
        TaskOptions.from_kwargs().merged(**options)


def test_merging_overrides_only_what_is_given() -> None:
    decorated = TaskOptions.from_kwargs(num_cpus=2, resources={"a": 1}, max_calls=5, retry_exceptions=[ValueError])
    called = decorated.merged(num_cpus=1, resources=None, name="n")
    assert called.resource_request() == {"CPU": 1}
    assert (called.max_calls, called.retry_exceptions, called.name) == (5, (ValueError,), "n")
    assert decorated.resource_request() == {"CPU": 2, "a": 1}
    assert called.given() == {
        "num_cpus": 1,
        "resources": None,
        "max_calls": 5,
        "retry_exceptions": [ValueError],
        "name": "n",
    }


@pytest.mark.parametrize("keyword", ["max_calls", "_num_objects_per_yield"])
def test_what_belongs_to_the_decorator_cannot_be_merged(keyword: str) -> None:
    with pytest.raises(ValueError, match=f"{keyword}.*[Dd]ecorator|{keyword} belongs to the decorator"):
        TaskOptions.from_kwargs().merged(**{keyword: 2})


def test_options_cannot_be_changed() -> None:
    given = {"a": 1.0}
    options = TaskOptions.from_kwargs(resources=given)
    given["a"] = 2.0
    assert options.resource_request()["a"] == 1.0
    with pytest.raises(AttributeError):
        options.num_cpus = 5  # type: ignore[misc]


def test_options_can_be_pickled() -> None:
    options = TaskOptions.from_kwargs(
        num_cpus=2,
        retry_exceptions=[ValueError],
        runtime_env={"env_vars": {"A": "b"}},
        scheduling_strategy=NodeAffinitySchedulingStrategy(NODE, soft=True),
    ).for_function(plain)
    assert pickle.loads(pickle.dumps(options)) == options


# -- numbers of results ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "given", "settled"),
    [
        (plain, None, 1),
        (plain, 0, 0),
        (plain, 3, 3),
        (generator, None, "streaming"),
        (generator, "dynamic", "dynamic"),
        (generator, 3, 3),
        (async_generator, None, "streaming"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_results_follow_the_function(function: Callable[..., Any], given: Any, settled: Any) -> None:
    options = TaskOptions.from_kwargs(num_returns=given).for_function(function)
    assert options.num_returns == settled
    assert options.for_function(function) == options


@pytest.mark.parametrize("returns", ["streaming", "dynamic"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_only_generators_stream(returns: str) -> None:
    with pytest.raises(ValueError, match="plain has no `yield`"):
        TaskOptions.from_kwargs(num_returns=returns).for_function(plain)
    with pytest.raises(ValueError, match="plain has no `yield`"):
        TaskOptions.from_kwargs().merged(num_returns=returns).for_function(plain)


def test_async_functions_are_no_tasks() -> None:
    with pytest.raises(ValueError, match=r"'async def' should not be used for remote tasks: .*coroutine"):
        TaskOptions.from_kwargs().for_function(coroutine)


def test_kinds_of_generators() -> None:
    assert [is_generator_function(each) for each in (plain, generator, coroutine, async_generator)] == [
        False,
        True,
        False,
        True,
    ]


def test_deprecations_point_at_the_users_line_and_are_told_once() -> None:
    with pytest.warns(DeprecationWarning, match="'dynamic' is deprecated") as told:
        options = TaskOptions.from_kwargs(num_returns="dynamic")
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options.merged(num_cpus=2).for_function(generator)


def test_deprecated_placement_group_options_become_a_strategy() -> None:
    group = Group()
    with pytest.warns(DeprecationWarning, match="PlacementGroupSchedulingStrategy"):
        options = TaskOptions.from_kwargs(placement_group=group, placement_group_bundle_index=2)
    assert options.scheduling_strategy == PlacementGroupSchedulingStrategy(group, 2)


def test_label_selectors_of_option_and_strategy_come_together() -> None:
    strategy = NodeLabelSchedulingStrategy({"zone": In("b", "a"), "gpu": Exists()})
    options = TaskOptions.from_kwargs(label_selector={"disk": "!hdd"}, scheduling_strategy=strategy)
    assert options.label_selector == "disk=!hdd;gpu=*;zone=in(a,b)"
    assert options.merged(label_selector=None).label_selector == "gpu=*;zone=in(a,b)"
    assert options.merged(scheduling_strategy=None).label_selector == "disk=!hdd"
    assert TaskOptions.from_kwargs().label_selector == ""


# -- actors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "to_place", "to_run"),
    [
        ({}, {"CPU": 1}, {}),
        ({"memory": 5}, {"CPU": 1, "memory": 5}, {"memory": 5}),
        ({"num_cpus": 0}, {}, {}),
        ({"num_cpus": 2}, {"CPU": 2}, {"CPU": 2}),
        ({"num_cpus": None}, {"CPU": 1}, {}),
        ({"num_gpus": 1}, {"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}),
        ({"num_gpus": 0}, {"CPU": 1}, {"CPU": 1}),
        ({"resources": {"a": 1}}, {"CPU": 1, "a": 1}, {"CPU": 1, "a": 1}),
        ({"resources": {}}, {"CPU": 1}, {}),
        ({"resources": {"a": 1}, "num_cpus": 0}, {"a": 1}, {"a": 1}),
        (
            {"accelerator_type": "A100"},
            {"CPU": 1, "accelerator_type:A100": 0.001},
            {"CPU": 1, "accelerator_type:A100": 0.001},
        ),
    ],
)
def test_what_an_actor_needs_and_holds(
    options: dict[str, Any], to_place: dict[str, float], to_run: dict[str, float]
) -> None:
    made = ActorOptions.from_kwargs(**options)
    assert made.placement_request() == to_place
    assert made.running_request() == to_run


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_retries": 1}, ValueError, "Invalid option keyword max_retries for actors"),
        ({"max_restart": 1}, ValueError, "Did you mean 'max_restarts'"),
        ({"name": ""}, ValueError, "Actor name cannot be an empty string"),
        ({"name": 3}, TypeError, "The type of keyword 'name' must be"),
        ({"namespace": ""}, ValueError, "namespace must not be empty"),
        ({"get_if_exists": True}, ValueError, "name must be specified to use `get_if_exists`"),
        ({"get_if_exists": None}, TypeError, "True or False"),
        ({"lifetime": "x"}, ValueError, "'non_detached'"),
        ({"max_concurrency": -1}, ValueError, "only accepts None, 0 or a positive integer"),
        ({"max_restarts": -2}, ValueError, "-1 represents infinity"),
        ({"max_pending_calls": -2}, ValueError, "-1 represents infinity"),
        ({"concurrency_groups": {"io": 0}}, ValueError, r"concurrency_groups\['io'\] must be an int of 1 or more"),
        ({"concurrency_groups": {"io": "2"}}, TypeError, "int of 1 or more"),
        ({"allow_out_of_order_execution": False, "max_concurrency": 2}, ValueError, "side by side"),
        ({"allow_out_of_order_execution": 1}, TypeError, "True, False or None"),
        ({"durable": "always"}, ValueError, "'explicit'"),
        ({"durable": 1}, TypeError, "'explicit'"),
        ({"durable_replicas": 1}, ValueError, "needs durable"),
        ({"durable_replicas": -1, "durable": True}, ValueError, "None, 0 or a positive integer, but is -1"),
        ({"durable_replicas": "1", "durable": True}, TypeError, "an int"),
        ({"enable_tensor_transport": "yes"}, TypeError, "True, False or None"),
        ({"_actor_generator_backpressure_num_objects": 0}, ValueError, "=0 is not allowed"),
        ({"_actor_generator_backpressure_num_objects": -2}, ValueError, "-1 for no limit"),
    ],
)
def test_bad_actor_options_fail_where_they_are_written(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ActorOptions.from_kwargs(**options)


def test_actor_options_are_checked_together_after_merging() -> None:
    named = ActorOptions.from_kwargs(name="n", concurrency_groups={"io": 2}, durable=True)
    merged = named.merged(get_if_exists=True, num_cpus=2)
    assert (merged.name, merged.get_if_exists, merged.durable) == ("n", True, True)
    assert merged.concurrency_groups == {"io": 2}
    with pytest.raises(ValueError, match="name must be specified to use `get_if_exists`"):
        merged.merged(name=None)
    with pytest.raises(ValueError, match=r"Setting 'concurrency_groups' is not supported in '\.options"):
        named.merged(concurrency_groups={})


def test_concurrency_and_order_follow_the_kind_of_actor() -> None:
    usual = ActorOptions.from_kwargs()
    assert (usual.concurrency(is_async=False), usual.out_of_order(is_async=False)) == (1, False)
    assert (usual.concurrency(is_async=True), usual.out_of_order(is_async=True)) == (1000, True)
    assert ActorOptions.from_kwargs(max_concurrency=0).max_concurrency is None
    threaded = ActorOptions.from_kwargs(max_concurrency=4)
    assert (threaded.concurrency(is_async=False), threaded.out_of_order(is_async=False)) == (4, True)
    ordered = ActorOptions.from_kwargs(allow_out_of_order_execution=False)
    assert ordered.out_of_order(is_async=False) is False
    with pytest.raises(ValueError, match="asyncio actor"):
        ordered.out_of_order(is_async=True)


# -- methods ---------------------------------------------------------------------------------------------------------


def test_method_options_say_nothing_by_default() -> None:
    options = MethodOptions.from_kwargs()
    assert (options.num_returns, options.max_task_retries, options.retry_exceptions) == (None, None, None)
    assert options.for_function(generator).num_returns == "streaming"
    assert options.for_function(coroutine).num_returns == 1


def test_method_options_merge() -> None:
    decorated = MethodOptions.from_kwargs(num_returns=2, concurrency_group="io", _num_objects_per_yield=3)
    called = decorated.merged(num_returns=3, name="n", max_task_retries=-1)
    assert (called.num_returns, called.concurrency_group, called.name) == (3, "io", "n")
    assert (called.max_task_retries, called.objects_per_yield) == (-1, 3)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"bogus": 1}, AssertionError),
        ({"name": "n"}, AssertionError),
        ({"num_returns": -1}, ValueError),
        ({"max_task_retries": "x"}, TypeError),
        ({"_generator_backpressure_num_objects": 0}, ValueError),
        ({"_num_objects_per_yield": 0}, ValueError),
        ({"tensor_transport": "pigeon"}, ValueError),
        ({"tensor_transport": 3}, TypeError),
        ({"tensor_transport": "gloo", "num_returns": 2}, ValueError),
    ],
)
def test_bad_method_options(options: dict[str, Any], error: type[BaseException]) -> None:
    with pytest.raises(error):
        MethodOptions.from_kwargs(**options)


def test_bad_options_of_a_method_call() -> None:
    options = MethodOptions.from_kwargs()
    with pytest.raises(TypeError, match="Did you mean 'num_returns'"):
        options.merged(num_return=1)
    with pytest.raises(ValueError, match="belongs to @method"):
        options.merged(_num_objects_per_yield=2)
