"""Which options tasks, actors and methods have: keyword, attribute of the option object, and check."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Final, NamedTuple

from rabbitry import option_checks as checks
from rabbitry.arguments import shown
from rabbitry.suggestions import closest

_LONG_NAME: Final = 100
_HERE: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Rule(NamedTuple):
    """One option.

    Attributes:
        attribute: what the option object calls it.
        check: what refuses bad values and puts good ones in order.
    """

    attribute: str
    check: checks.Check


_bool = checks.instance_of(bool, "True or False")
_optional_bool = checks.instance_of((bool, NoneType), "True, False or None")

_COMMON: Final[dict[str, Rule]] = {
    "num_cpus": Rule("num_cpus", checks.quantity),
    "num_gpus": Rule("num_gpus", checks.quantity),
    "memory": Rule("memory", checks.quantity),
    "resources": Rule("resources", checks.resources),
    "accelerator_type": Rule("accelerator_type", checks.name),
    "label_selector": Rule("own_selector", checks.label_selector),
    "fallback_strategy": Rule("fallback_strategy", checks.fallback_strategy),
    "scheduling_strategy": Rule("scheduling_strategy", checks.scheduling_strategy),
    "placement_group": Rule("placement_group", checks.placement_group),
    "placement_group_bundle_index": Rule("placement_group_bundle_index", checks.instance_of(int, "an int")),
    "placement_group_capture_child_tasks": Rule("placement_group_capture_child_tasks", _optional_bool),
    "runtime_env": Rule("runtime_env", checks.runtime_env),
    "enable_task_events": Rule("enable_task_events", _bool),
    "_labels": Rule("labels", checks.labels),
}

TASK: Final[dict[str, Rule]] = {
    **_COMMON,
    "name": Rule("name", checks.name),
    "num_returns": Rule("num_returns", checks.num_returns),
    "max_retries": Rule("max_retries", checks.count(infinite=True)),
    "retry_exceptions": Rule("retry_exceptions", checks.retry_exceptions),
    "retry_delay": Rule("retry_delay", checks.seconds),
    "max_calls": Rule("max_calls", checks.count()),
    "priority": Rule("priority", checks.priority),
    "lifetime": Rule("lifetime", checks.task_lifetime),
    "object_store_memory": Rule("object_store_memory", checks.no_object_store_memory),
    "_generator_backpressure_num_objects": Rule("generator_backpressure", checks.backpressure),
    "_num_objects_per_yield": Rule("objects_per_yield", checks.items_per_yield),
}

ACTOR: Final[dict[str, Rule]] = {
    **_COMMON,
    "name": Rule("name", checks.proper_name),
    "namespace": Rule("namespace", checks.namespace),
    "get_if_exists": Rule("get_if_exists", _bool),
    "lifetime": Rule("lifetime", checks.lifetime),
    "max_restarts": Rule("max_restarts", checks.count(infinite=True, default=0)),
    "max_task_retries": Rule("max_task_retries", checks.count(infinite=True, default=0)),
    "max_concurrency": Rule("max_concurrency", checks.concurrency),
    "max_pending_calls": Rule("max_pending_calls", checks.count(infinite=True, default=-1)),
    "concurrency_groups": Rule("concurrency_groups", checks.concurrency_groups),
    "allow_out_of_order_execution": Rule("allow_out_of_order_execution", _optional_bool),
    "durable": Rule("durable", checks.durable),
    "durable_replicas": Rule("durable_replicas", checks.count(default=0)),
    "object_store_memory": Rule("object_store_memory", checks.count()),
    "enable_tensor_transport": Rule("enable_tensor_transport", _optional_bool),
    "_actor_generator_backpressure_num_objects": Rule("generator_backpressure", checks.actor_backpressure),
}

METHOD: Final[dict[str, Rule]] = {
    "num_returns": Rule("num_returns", checks.num_returns),
    "max_task_retries": Rule("max_task_retries", checks.count(infinite=True)),
    "retry_exceptions": Rule("retry_exceptions", checks.optional(checks.retry_exceptions)),
    "concurrency_group": Rule("concurrency_group", checks.proper_name),
    "enable_task_events": Rule("enable_task_events", _optional_bool),
    "tensor_transport": Rule("tensor_transport", checks.tensor_transport),
    "_generator_backpressure_num_objects": Rule("generator_backpressure", checks.optional(checks.backpressure)),
    "_num_objects_per_yield": Rule("objects_per_yield", checks.optional(checks.items_per_yield)),
}

METHOD_CALL: Final[dict[str, Rule]] = {
    **{keyword: rule for keyword, rule in METHOD.items() if keyword != "_num_objects_per_yield"},
    "name": Rule("name", checks.name),
    "_labels": Rule("labels", checks.labels),
}


def check_options(rules: Mapping[str, Rule], options: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the attributes that `options` set.

    Args:
        rules: the options there are.
        options: keyword to value, as the user wrote them.
        what: what the options are for, as error messages say it.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: an unknown option, or an impossible value.
    """
    values: dict[str, Any] = {}
    for keyword, value in options.items():
        rule = rules.get(keyword)
        if rule is None:
            raise ValueError(unknown_option(keyword, rules, what))
        values[rule.attribute] = rule.check(keyword, value)
    if values.get("num_returns") == "dynamic":
        deprecated("num_returns='dynamic' is deprecated: 'streaming' hands items over as they come.")
    return values


def unknown_option(keyword: str, known: Iterable[str], what: str) -> str:
    """Return the message for an option that does not exist."""
    valid = sorted(known)
    plain = str.__str__(keyword)
    named = plain if plain.isidentifier() and len(plain) < _LONG_NAME else shown(keyword)
    return f"Invalid option keyword {named} for {what}.{closest(keyword, valid)} Valid ones are {valid}."


def deprecated(message: str) -> None:
    """Warn at the line of the user's that called into rabbitry."""
    from rabbitry.util.annotations import RayDeprecationWarning

    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RayDeprecationWarning, stacklevel=level)
