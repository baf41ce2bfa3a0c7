"""Checks of single options. Each takes (keyword, value) and returns the value as the option objects keep it.

Which values are refused, and with which class of exception, is as in Ray: TypeError for a wrong type, ValueError for a
bad value. Where rabbitry refuses more (at the decorator what Ray finds out when the task is submitted, or never), it is
said beside the check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import NoneType
from typing import Any, Final

from rabbitry.arguments import MAX_COUNT, MAX_RETURNS, amount, optional_namespace, shown, text, whole, wrong_type
from rabbitry.labels import selector_text
from rabbitry.runtime_env import check_for_task
from rabbitry.scheduling import (
    DEFAULT,
    SPREAD,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

Check = Callable[[str, Any], Any]

_FINEST: Final = 0.0001
"""No fraction of a resource is smaller."""

# Accelerators that are handed out whole; of GPUs and NPUs a task may have a share below 1.
_WHOLE: Final = frozenset({"FURIOSA", "HPU", "MBLT", "RBLN", "TPU", "TTNPU", "neuron_cores"})
_SHARED: Final = frozenset({"GPU", "NPU"})
_TPU_CHIPS: Final = (1, 2, 4, 8)
TENSOR_TRANSPORTS: Final = frozenset({"CUDA_IPC", "GLOO", "NCCL", "NIXL"})
ONE_SIDED: Final = frozenset({"CUDA_IPC", "NIXL"})
"""Those whose tensors a reader fetches, so that `put` may name them."""

_RESERVED: Final = {
    "CPU": "num_cpus",
    "GPU": "num_gpus",
    "memory": "memory",
    "object_store_memory": "object_store_memory",
}
_STRATEGIES: Final = (
    PlacementGroupSchedulingStrategy,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
)


def _wrong_type(keyword: str, value: object, types: tuple[type, ...], expected: str) -> TypeError:
    """Return the error of an option's type. Programs look for the beginning, which is as in Ray."""
    return TypeError(
        f"The type of keyword {keyword!r} must be {types}, but received type {type(value)}: "
        f"it is {expected}, not {shown(value)}."
    )


def instance_of(types: type | tuple[type, ...], expected: str) -> Check:
    """Return a check that the value is an instance of `types`."""

    def check(keyword: str, value: Any) -> Any:
        if not isinstance(value, types):
            raise _wrong_type(keyword, value, types if isinstance(types, tuple) else (types,), expected)
        return value

    return check


def count(*, infinite: bool = False, default: int | None = None, least: int = 0) -> Check:
    """Return a check for a whole number of `least` or more, or -1 if `infinite`; None stands for `default`."""
    lowest = -1 if infinite else least
    expected = f"an int of {least} or more" + (", or -1 for no limit" if infinite else "")
    accepts = ["None", *(["0"] if least == 0 else []), *(["-1"] if infinite else [])]
    accepted = f"only accepts {', '.join(accepts)} or a positive integer"
    if infinite:
        accepted += ", where -1 represents infinity"

    def check(keyword: str, value: Any) -> int | None:
        if value is None:
            return default
        if isinstance(value, int) and value > MAX_COUNT:
            remedy = " -1 is for no limit." if infinite else ""
            raise ValueError(f"{keyword} must be {expected}; {shown(value)} is more than 2**63 - 1.{remedy}")
        if not isinstance(value, int):
            raise _wrong_type(keyword, value, (int, NoneType), f"{expected}, or None")
        if value < lowest:
            raise ValueError(f"The keyword {keyword!r} {accepted}, but is {shown(value)}.")
        return int(value)

    return check


def concurrency(keyword: str, value: Any) -> int | None:
    """Check how many calls an actor runs at a time; 0 stands for the default, None, as for Ray's threaded actors."""
    return count()(keyword, value) or None


def optional(check: Check) -> Check:
    """Return `check` with None allowed, for "not said"."""
    return lambda keyword, value: None if value is None else check(keyword, value)


def quantity(keyword: str, value: Any) -> float | None:
    """Check an amount of a resource: a number of 0 or more, None for not asked for.

    Refused beyond Ray's check at the decorator: infinity (OverflowError there) and NaN, and more than one GPU that is
    not a whole number (Ray: at submission).
    """
    if value is None:
        return None
    if not isinstance(value, (int, float)):
        raise _wrong_type(keyword, value, (float, int, NoneType), "a number of 0 or more, or None")
    return _checked_amount(keyword, "GPU" if keyword == "num_gpus" else keyword, value)


def _checked_amount(what: str, resource: str, given: Any) -> float:
    named = what if what.isidentifier() else resource
    if isinstance(given, (int, float)) and given < 0:
        raise ValueError(f"The quantity of resource {named} cannot be negative, but is {shown(given)}.")
    value = amount(what, given)
    if 0 < value < _FINEST:
        raise ValueError(
            f"The precision of the fractional quantity of resource {named} cannot go beyond {_FINEST}, but is {value}."
        )
    if resource in _WHOLE and value != int(value):
        raise ValueError(f"{what} must be a whole number, but is {value}: {resource} cannot be shared.")
    if resource in _SHARED and value > 1 and value != int(value):
        raise ValueError(f"{what} must be below 1 or a whole number, but is {value}.")
    if resource == "TPU" and value not in _TPU_CHIPS:
        raise ValueError(f"{what} must be one of {_TPU_CHIPS}, but is {value}: TPU chips come in these numbers.")
    return value


def resources(keyword: str, value: Any) -> dict[str, float]:
    """Check custom resources: name to amount. Names that cannot be are refused here, in Ray when submitting."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type(keyword, value, "a dict of names to amounts, or None")
    checked: dict[str, float] = {}
    for name, given in value.items():
        if not isinstance(name, str):
            raise TypeError(f"{keyword}: the names of resources are text, but one is {shown(name)}.")
        if name in _RESERVED:
            raise ValueError(f"Use the {_RESERVED[name]!r} keyword instead of {name!r} in {keyword!r} keyword.")
        if not name or name == "bundle" or not name.isprintable():
            raise ValueError(
                f"{keyword}: {shown(name)} cannot be the name of a resource; it must be printable text, and not "
                "'bundle'."
            )
        checked[str.__str__(name)] = _checked_amount(f"{keyword}[{shown(name)}]", name, given)
    return checked


def num_returns(keyword: str, value: Any) -> int | str | None:
    """Check a number of results: an int of 0 or more, "streaming" or "dynamic"; None for what fits the function.

    More than MAX_RETURNS are refused here, in Ray never: they take minutes to submit there.
    """
    if value is None:
        return None
    if isinstance(value, str) and value in ("streaming", "dynamic"):
        return str.__str__(value)
    # Any other text is a TypeError in Ray, too.
    if not isinstance(value, int):
        expected = "an int of 0 or more, 'streaming', 'dynamic' or None"
        raise _wrong_type(keyword, value, (int, str, NoneType), expected)
    if value < 0:
        raise ValueError(
            f"The keyword {keyword!r} only accepts None, a non-negative integer, 'streaming' (for generators), or "
            f"'dynamic', but is {shown(value)}."
        )
    if value > MAX_RETURNS:
        raise ValueError(
            f"{keyword} must be {MAX_RETURNS} at most, but is {shown(value)}: each result is an object of its own. "
            "Return a list (one object), or make the function a generator with num_returns='streaming'."
        )
    return int(value)


def retry_exceptions(keyword: str, value: Any) -> bool | tuple[type[Exception], ...]:
    """Check which exceptions are retried: all, none, or a list of classes."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, (list, tuple)):
        raise wrong_type(keyword, value, "True, False or a list of exception classes")
    for each in value:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise ValueError(
                f"{keyword} must list classes of exceptions (that derive from Exception), not {shown(each)}."
            )
    return tuple(value)


def scheduling_strategy(keyword: str, value: Any) -> Any:
    """Check a scheduling strategy. A wrong name is refused here, in Ray when submitting."""
    if isinstance(value, str):
        if value not in (DEFAULT, SPREAD):
            raise ValueError(f"{keyword} must be {DEFAULT!r}, {SPREAD!r} or a strategy object, but is {shown(value)}.")
        return str.__str__(value)
    if value is not None and not isinstance(value, _STRATEGIES):
        raise wrong_type(keyword, value, f"None, {DEFAULT!r}, {SPREAD!r} or a strategy object")
    return value


def placement_group(keyword: str, value: Any) -> Any:
    """Check the deprecated option `placement_group`: "default", None or a group."""
    if value is None:
        return None
    if isinstance(value, str):
        if value == "default":
            return "default"
        raise ValueError(f"{keyword} must be a placement group, None or 'default', but is {shown(value)}.")
    if not hasattr(type(value), "bundle_specs"):
        raise wrong_type(keyword, value, "a placement group, None or 'default'")
    return value


def label_selector(keyword: str, value: Any) -> str:
    """Check a label selector and return its canonical text; "" for none."""
    if value is not None and not isinstance(value, dict):
        raise wrong_type(keyword, value, "a dict of label keys to conditions, or None")
    return selector_text(value)


def fallback_strategy(keyword: str, value: Any) -> tuple[str, ...]:
    """Check what to fall back on, and return the canonical texts of the label selectors in order."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise wrong_type(keyword, value, "a list such as [{'label_selector': {...}}], or None")
    selectors = []
    for each in value:
        if not isinstance(each, dict) or set(each) != {"label_selector"}:
            raise ValueError(
                f"{keyword} must have entries such as {{'label_selector': {{...}}}}, but has {shown(each)}."
            )
        selector = each["label_selector"]
        if selector is not None and not isinstance(selector, dict):
            raise ValueError(f"{keyword}: label_selector must be a dict, but is {shown(selector)}.")
        selectors.append(selector_text(selector))
    return tuple(selectors)


def labels(keyword: str, value: Any) -> dict[str, str]:
    """Check the labels of a task or actor record. Ray does so when submitting (and raises ValueError for types)."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type(keyword, value, "a dict of text to text, or None")
    for key, label in value.items():
        if not (isinstance(key, str) and isinstance(label, str)):
            raise ValueError(f"{keyword} must be a dict of text to text, but has {shown(key)}: {shown(label)}.")
    return {text(f"a key of {keyword}", key): text(f"{keyword}[{key!r}]", label) for key, label in value.items()}


def runtime_env(_keyword: str, value: Any) -> dict[str, Any] | None:
    """Check the runtime environment of a task or an actor."""
    return check_for_task(value)


def backpressure(keyword: str, value: Any) -> int:
    """Check how many unread items pause a generator: more than 0; -1 or None for no limit."""
    if value is None:
        return -1
    if not isinstance(value, int):
        raise wrong_type(keyword, value, "an int of 1 or more, -1 for no limit, or None")
    if value > MAX_COUNT:
        raise ValueError(f"{keyword} must be 1 or more; {shown(value)} is more than 2**63 - 1. -1 is for no limit.")
    if value == 0:
        raise ValueError(f"{keyword}=0 is not allowed: nothing would ever be yielded. 1 yields an item at a time.")
    return int(value) if value > 0 else -1


def actor_backpressure(keyword: str, value: Any) -> int:
    """Check how many unread items of all its generators together pause an actor; -1 or None for no limit."""
    if isinstance(value, int) and value < -1:
        raise ValueError(f"{keyword} must be 1 or more, or -1 for no limit, but is {shown(value)}.")
    return backpressure(keyword, value)


def items_per_yield(keyword: str, value: Any) -> int:
    """Check how many items a generator hands over at once."""
    return count(least=1, default=1)(keyword, value) or 1


def name(keyword: str, value: Any) -> str | None:
    """Check a name that may be empty. What is no Unicode text is refused here, in Ray when submitting."""
    if value is not None and not isinstance(value, str):
        raise _wrong_type(keyword, value, (str, NoneType), "text, or None")
    return None if value is None else text(keyword, value, "text, or None")


def proper_name(keyword: str, value: Any) -> str | None:
    """Check a name that must not be empty. Ray says so when the actor is created, rabbitry at once."""
    checked = name(keyword, value)
    if checked == "":
        raise ValueError(f"Actor {keyword} cannot be an empty string: leave it out, or give it a text.")
    return checked


def namespace(keyword: str, value: Any) -> str | None:
    """Check a namespace. Ray says so when the actor is created, rabbitry at once."""
    return optional_namespace(keyword, value)


def lifetime(keyword: str, value: Any) -> str | None:
    """Check a lifetime: None, "detached" or "non_detached"."""
    if value is not None and not isinstance(value, str):
        raise wrong_type(keyword, value, "'detached', 'non_detached' or None")
    if value not in (None, "detached", "non_detached"):
        raise ValueError(
            f"The {keyword!r} argument must be one of 'detached', 'non_detached' and 'None', but is {shown(value)}."
        )
    return None if value is None else str.__str__(value)


def task_lifetime(keyword: str, value: Any) -> str | None:
    """Check the lifetime of a task: "detached", else None, as a task never outlives its owner otherwise."""
    return "detached" if lifetime(keyword, value) == "detached" else None


def priority(keyword: str, value: Any) -> int:
    """Check a priority: an int from 0 to 9."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(keyword, value, "an int from 0 to 9")
    if not 0 <= value <= 9:
        raise ValueError(f"{keyword} must be from 0 (the default) to 9 (first), but is {shown(value)}.")
    return int(value)


def seconds(keyword: str, value: Any) -> float:
    """Check a duration: a finite number of 0 or more."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise wrong_type(keyword, value, "a number of seconds")
    if not 0 <= value < math.inf or value > MAX_COUNT:  # NaN is neither
        raise ValueError(f"{keyword} must be a finite number of seconds, 0 or more, but is {shown(value)}.")
    return float(value)


def durable(keyword: str, value: Any) -> bool | str:
    """Check whether an actor is durable: False, True or "explicit"."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise wrong_type(keyword, value, "False, True or 'explicit'")
    if value != "explicit":
        raise ValueError(f"{keyword} must be False, True or 'explicit', but is {shown(value)}.")
    return "explicit"


def concurrency_groups(keyword: str, value: Any) -> dict[str, int]:
    """Check concurrency groups: name to limit. Limits below 1 and other than ints are refused here, in Ray never."""
    if value is None or value == []:
        return {}
    if not isinstance(value, dict):
        raise wrong_type(keyword, value, "a dict of names to limits, as in {'io': 2}, or None")
    checked: dict[str, int] = {}
    for group, limit in value.items():
        if not isinstance(group, str) or not group:
            raise TypeError(f"{keyword}: the names of groups are text, but one is {shown(group)}.")
        where = f"{keyword}[{shown(group)}]"
        checked[text(f"{keyword}: the name of a group", group)] = whole(
            where, limit, least=1, expected="an int of 1 or more"
        )
    return checked


def no_object_store_memory(keyword: str, value: Any) -> None:
    """Refuse `object_store_memory` for tasks, as Ray does."""
    if value is not None:
        if not isinstance(value, int):
            raise wrong_type(keyword, value, "None")
        raise ValueError(f"{keyword} cannot be set for tasks.")


def tensor_transport(keyword: str, value: Any) -> str | None:
    """Return the name, in capitals, of one of Ray's tensor transports; here tensors go by the object store anyway."""
    if value is None:
        return None
    name = text(keyword, value).upper()
    if name not in TENSOR_TRANSPORTS:
        raise ValueError(f"Invalid tensor transport: {shown(value)}. There are {', '.join(sorted(TENSOR_TRANSPORTS))}.")
    return name
