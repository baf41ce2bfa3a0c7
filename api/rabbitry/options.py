"""Options of tasks, actors and methods: checked where the user writes them, immutable from then on.

Names, defaults and refusals are Ray's; rabbitry adds `priority`, `retry_delay` and `lifetime` for tasks and `durable`
for actors. Which there are stands in `rabbitry.option_rules`, what each may be in `rabbitry.option_checks`. Ray's
private keywords (`_labels`, ...) appear as attributes without the underscore.

Everything here is msgspec structs and plain functions: `import rabbitry` reaches this module, so pydantic stays out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from rabbitry import environment
from rabbitry.option_rules import ACTOR, METHOD, METHOD_CALL, TASK, Rule, check_options, deprecated, unknown_option
from rabbitry.scheduling import NodeLabelSchedulingStrategy, PlacementGroupSchedulingStrategy
from rabbitry_broker.implicit import ACCELERATOR_PREFIX

DEFAULT_MAX_RETRIES: Final = 3

ASYNC_MAX_CONCURRENCY: Final = 1000
"""Calls that an asyncio actor runs at a time unless it says otherwise."""

_ACCELERATOR_SHARE: Final = 0.001


class _Placed(msgspec.Struct, frozen=True, kw_only=True):
    """What tasks and actors have in common: what they need, and where they may run."""

    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: float | None = None
    resources: Mapping[str, float] = {}
    accelerator_type: str | None = None
    own_selector: str = ""
    fallback_strategy: tuple[str, ...] = ()
    scheduling_strategy: Any = None
    runtime_env: Mapping[str, Any] | None = None
    enable_task_events: bool = True
    labels: Mapping[str, str] = {}
    name: str | None = None
    explicit: Mapping[str, Any] = {}

    def given(self) -> dict[str, Any]:
        """Return the options as they were written, by keyword; those left out are not in it."""
        return dict(self.explicit)

    @property
    def label_selector(self) -> str:
        """What labels the node must have, as canonical text (see `rabbitry.labels`); "" for any.

        From the option of that name and from a NodeLabelSchedulingStrategy.
        """
        strategy = self.scheduling_strategy
        if not isinstance(strategy, NodeLabelSchedulingStrategy) or not strategy.hard:
            return self.own_selector
        parts = {*self.own_selector.split(";"), *strategy.hard_selector().split(";")} - {""}
        return ";".join(sorted(parts))

    def _amounts(self) -> dict[str, float]:
        """Return all that is asked for by name, zeros too."""
        amounts = dict(self.resources)
        if self.num_cpus is not None:
            amounts["CPU"] = self.num_cpus
        if self.num_gpus is not None:
            amounts["GPU"] = self.num_gpus
        if self.memory is not None:
            amounts["memory"] = int(self.memory)
        if self.accelerator_type is not None:
            amounts[f"{ACCELERATOR_PREFIX}{self.accelerator_type}"] = _ACCELERATOR_SHARE
        return amounts


class TaskOptions(_Placed, frozen=True, kw_only=True):
    """How a task runs. Made by `from_kwargs`; `for_function` fits it to the function.

    Attributes:
        num_cpus: CPUs it holds while it runs (default 1); None for none.
        num_gpus: GPUs it holds: a share below 1, or a whole number.
        memory: bytes it is admitted with; not enforced.
        resources: custom resources it holds, name to amount.
        accelerator_type: kind of accelerator that the node must have.
        own_selector: the option `label_selector` alone, as canonical text.
        fallback_strategy: further label selectors, tried in order.
        scheduling_strategy: None, "DEFAULT", "SPREAD" or an object of `rabbitry.scheduling`.
        runtime_env: dict of what a `RuntimeEnv` takes, but for paths of this machine; None for that of who submits.
        enable_task_events: whether the state API shows it.
        labels: labels of its record.
        name: what it is called in logs and errors; None for the function's name.
        num_returns: number of its results, "streaming" or "dynamic"; None until `for_function` decides.
        max_retries: runs after the first that a crash may cause (default 3, or RABBITRY_TASK_MAX_RETRIES); -1 no limit.
        retry_exceptions: True to run again after exceptions too, or which classes of them.
        retry_delay: seconds before the first retry (default 0); see `rabbitry_broker.retry_policy.delay`.
        max_calls: executor processes end after so many runs of the function; 0 for no limit (default; 1 with GPUs).
        priority: 1 to 9 (first); 0 (default) for that of the job, which is 0 unless it says otherwise.
        lifetime: "detached" if it outlives its driver, else None.
        generator_backpressure: unread items that pause a generator; -1 for no limit.
        objects_per_yield: items that a generator hands over at once.
        tensor_transport: how Ray would move the tensors of a result; here all go by the object store.
        explicit: the options as they were written; see `given`.

    >>> TaskOptions.from_kwargs(num_cpus=2, resources={"license": 1}).resource_request()
    {'license': 1, 'CPU': 2}
    """

    num_cpus: float | None = 1
    num_returns: int | str | None = None
    max_retries: int = DEFAULT_MAX_RETRIES
    retry_exceptions: bool | tuple[type[Exception], ...] = False
    retry_delay: float = 0.0
    max_calls: int = 0
    priority: int = 0
    lifetime: str | None = None
    generator_backpressure: int = -1
    objects_per_yield: int = 1

    @classmethod
    def from_kwargs(cls, **options: Any) -> TaskOptions:
        """Return the options of `@remote(**options)` on a function.

        Raises:
            TypeError: an option is of the wrong type.
            ValueError: an unknown option, or an impossible value.
        """
        values = _task_values(options)
        if values.get("max_retries") is None:
            values["max_retries"] = environment.default_max_retries(DEFAULT_MAX_RETRIES)
        if values.get("max_calls") is None:
            # A process that has touched a GPU keeps memory on it, so it ends with its task.
            values["max_calls"] = 1 if values.get("num_gpus") else 0
        return cls(**values, explicit=options)

    def merged(self, **options: Any) -> TaskOptions:
        """Return these options with others laid over them, as `f.options(**options)` does.

        Raises:
            TypeError: an option is of the wrong type.
            ValueError: an unknown option, an impossible value, or one that only the decorator takes.
        """
        if "max_calls" in options:
            raise ValueError(
                "Setting 'max_calls' is not supported in '.options()': it is about the function's process. "
                "Give it to the decorator."
            )
        values = _task_values(options)
        if options.get("_num_objects_per_yield", self.objects_per_yield) != self.objects_per_yield:
            raise ValueError("_num_objects_per_yield belongs to the decorator, not to .options().")
        if "max_retries" in values and values["max_retries"] is None:
            values["max_retries"] = environment.default_max_retries(DEFAULT_MAX_RETRIES)
        return msgspec.structs.replace(self, **values, explicit={**self.explicit, **options})

    def for_function(self, function: Callable[..., Any]) -> TaskOptions:
        """Return these options with `num_returns` settled for `function`.

        Raises:
            ValueError: `function` is `async def`, or it is no generator and `num_returns` asks for one.
        """
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                f"'async def' should not be used for remote tasks: make {_name(function)} a plain function that calls "
                "asyncio.run(...), or a method of an actor."
            )
        return msgspec.structs.replace(self, num_returns=_settled_returns(self.num_returns, function))

    def resource_request(self) -> dict[str, float]:
        """Return what the task holds while it runs, by name, without zeros; `memory` is in bytes."""
        return _without_zeros(self._amounts())


class ActorOptions(_Placed, frozen=True, kw_only=True):
    """How an actor runs. Made by `from_kwargs`; the attributes it shares with TaskOptions are described there.

    Attributes:
        name: unique name in its namespace, for `get_actor`; None for none.
        namespace: where the name counts; None for the job's.
        get_if_exists: return the live actor of that name instead of making one.
        lifetime: "detached" (lives until it is killed), "non_detached", or None for the job's default.
        max_restarts: times it is started again after an unexpected death (default 0); -1 for no limit.
        max_task_retries: times a call is repeated after a death (default 0); -1 for no limit.
        max_concurrency: calls it runs at a time; None or 0 for the default, see `concurrency`.
        max_pending_calls: calls that may wait in one handle; -1 for no limit.
        concurrency_groups: names of further groups of calls and their limits.
        allow_out_of_order_execution: whether calls may overtake each other; None for the default, see `out_of_order`.
        durable: whether its state is kept: False, True (after each call) or "explicit" (at `checkpoint()`).
        durable_replicas: copies of Redis that must have a call's effect before its caller is told; 0 for none.
        generator_backpressure: unread items of all its generators that pause it; -1 for no limit.
    """

    namespace: str | None = None
    get_if_exists: bool = False
    lifetime: str | None = None
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int | None = None
    max_pending_calls: int = -1
    concurrency_groups: Mapping[str, int] = {}
    allow_out_of_order_execution: bool | None = None
    durable: bool | str = False
    durable_replicas: int = 0
    generator_backpressure: int = -1

    @classmethod
    def from_kwargs(cls, **options: Any) -> ActorOptions:
        """Return the options of `@remote(**options)` on a class.

        Raises:
            TypeError: an option is of the wrong type.
            ValueError: an unknown option, an impossible value, or options that exclude each other.
        """
        made = cls(**_actor_values(options), explicit=options)
        made._check_together()
        return made

    def merged(self, **options: Any) -> ActorOptions:
        """Return these options with others laid over them, as `C.options(**options)` does.

        Raises:
            TypeError: an option is of the wrong type.
            ValueError: an unknown option, an impossible value, or one that only the decorator takes.
        """
        if "concurrency_groups" in options:
            raise ValueError(
                "Setting 'concurrency_groups' is not supported in '.options()': methods name its groups. "
                "Give it to the decorator."
            )
        explicit = {**self.explicit, **options}
        merged = msgspec.structs.replace(self, **_actor_values(options), explicit=explicit)
        merged._check_together()
        return merged

    def _check_together(self) -> None:
        if self.get_if_exists and not self.name:
            raise ValueError("The actor name must be specified to use `get_if_exists`: that asks for the actor.")
        if self.durable_replicas and not self.durable:
            raise ValueError("durable_replicas needs durable=True or 'explicit': nothing is committed otherwise.")
        if self.max_concurrency is not None:
            self.out_of_order(is_async=False)

    def placement_request(self) -> dict[str, float]:
        """Return what a node must have free to take the actor, by name, without zeros.

        An actor that asks for nothing (memory aside) is placed with 1 CPU.
        """
        amounts = self._amounts()
        amounts.setdefault("CPU", 1)
        return _without_zeros(amounts)

    def running_request(self) -> dict[str, float]:
        """Return what the actor holds as long as it lives, by name, without zeros.

        An actor that asks for nothing (memory aside) holds no CPU, so that many idle ones fit on a node. One that asks
        for anything, be it 0 of it, holds 1 CPU too unless it says how many.
        """
        amounts = self._amounts()
        if amounts.keys() - {"memory"}:
            amounts.setdefault("CPU", 1)
        return _without_zeros(amounts)

    def concurrency(self, *, is_async: bool) -> int:
        """Return how many calls run at a time: `max_concurrency`, else 1, or 1000 for an asyncio actor."""
        if self.max_concurrency is not None:
            return self.max_concurrency
        return ASYNC_MAX_CONCURRENCY if is_async else 1

    def out_of_order(self, *, is_async: bool) -> bool:
        """Return whether calls may overtake each other: as set, else if several run at a time.

        Raises:
            ValueError: order is asked for, but several calls run at a time.
        """
        several = is_async or self.concurrency(is_async=is_async) > 1
        if self.allow_out_of_order_execution is None:
            return several
        if several and not self.allow_out_of_order_execution:
            why = "is an asyncio actor" if is_async else f"has max_concurrency={self.max_concurrency}"
            raise ValueError(
                f"allow_out_of_order_execution=False is impossible for an actor that {why}: its calls run side by "
                "side. Leave the option out, or run one call at a time."
            )
        return self.allow_out_of_order_execution


class MethodOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the calls of an actor's method run. None means: not said here.

    Attributes:
        num_returns: number of results, "streaming" or "dynamic".
        max_task_retries: times a call is repeated after a death of the actor; -1 for no limit.
        retry_exceptions: True to repeat it after exceptions too, or which classes of them.
        concurrency_group: the group whose limit counts for it.
        enable_task_events: whether the state API shows its calls.
        generator_backpressure: unread items that pause a generator; -1 for no limit.
        objects_per_yield: items that a generator hands over at once.
        tensor_transport: how Ray would move the tensors of a result; here all go by the object store.
        name: what the call is called in logs and errors (only per call).
        labels: labels of the call's record (only per call).
        explicit: the options as they were written; see `given`.
    """

    num_returns: int | str | None = None
    max_task_retries: int | None = None
    retry_exceptions: bool | tuple[type[Exception], ...] | None = None
    concurrency_group: str | None = None
    enable_task_events: bool | None = None
    generator_backpressure: int | None = None
    objects_per_yield: int | None = None
    tensor_transport: str | None = None
    name: str | None = None
    labels: Mapping[str, str] | None = None
    explicit: Mapping[str, Any] = {}

    @classmethod
    def from_kwargs(cls, **options: Any) -> MethodOptions:
        """Return the options of `@method(**options)`.

        Raises:
            AssertionError: an unknown option (Ray's choice).
            TypeError: an option is of the wrong type.
            ValueError: an impossible value.
        """
        for keyword in options:
            if keyword not in METHOD:
                raise AssertionError(unknown_option(keyword, METHOD, "@method"))
        return cls._made(METHOD, options)

    def merged(self, **options: Any) -> MethodOptions:
        """Return these options with others laid over them, as `handle.method.options(**options)` does.

        Raises:
            TypeError: an unknown option (Ray's choice), or one of the wrong type.
            ValueError: an impossible value, or one that only the decorator takes.
        """
        if "_num_objects_per_yield" in options:
            raise ValueError("_num_objects_per_yield belongs to @method, not to .options().")
        for keyword in options:
            if keyword not in METHOD_CALL:
                raise TypeError(unknown_option(keyword, METHOD_CALL, "calls of a method"))
        return self._made({**METHOD, **METHOD_CALL}, {**self.explicit, **options})

    @classmethod
    def _made(cls, rules: Mapping[str, Rule], options: dict[str, Any]) -> MethodOptions:
        values = check_options(rules, options, "methods")
        made = cls(**values, explicit=options)
        if made.tensor_transport is not None and made.num_returns not in (None, 1):
            raise ValueError(
                f"Methods with tensor_transport={made.tensor_transport} have one result, not "
                f"num_returns={made.num_returns}."
            )
        return made

    def for_function(self, function: Callable[..., Any]) -> MethodOptions:
        """Return these options with `num_returns` settled for the method `function`.

        Raises:
            ValueError: it is no generator and `num_returns` asks for one.
        """
        return msgspec.structs.replace(self, num_returns=_settled_returns(self.num_returns, function))

    def given(self) -> dict[str, Any]:
        """Return the options as they were written, by keyword; those left out are not in it."""
        return dict(self.explicit)


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Return True if calling `function` makes a generator, asynchronous or not."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _task_values(options: dict[str, Any]) -> dict[str, Any]:
    values = check_options(TASK, options, "remote functions")
    values.pop("object_store_memory", None)
    _use_placement_group(values)
    return values


def _actor_values(options: dict[str, Any]) -> dict[str, Any]:
    values = check_options(ACTOR, options, "actors")
    values.pop("enable_tensor_transport", None)
    if "object_store_memory" in values:
        del values["object_store_memory"]
        deprecated("object_store_memory reserves nothing for an actor and will go; leave it out.")
    _use_placement_group(values)
    return values


def _use_placement_group(values: dict[str, Any]) -> None:
    """Turn the deprecated options of placement groups into a scheduling strategy."""
    group = values.pop("placement_group", "default")
    index = values.pop("placement_group_bundle_index", -1)
    capture = values.pop("placement_group_capture_child_tasks", None)
    if group == "default" and index == -1 and not capture:
        return
    strategy = values.get("scheduling_strategy")
    if group not in ("default", None) and strategy is not None:
        raise ValueError("Give either placement_group (which is deprecated) or scheduling_strategy, not both.")
    deprecated("placement_group is deprecated: use scheduling_strategy=PlacementGroupSchedulingStrategy(...).")
    if strategy is None and group != "default":
        values["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, index, capture)


def _settled_returns(num_returns: int | str | None, function: Callable[..., Any]) -> int | str:
    generator = is_generator_function(function)
    if num_returns is None:
        return "streaming" if generator else 1
    if isinstance(num_returns, str) and not generator:
        raise ValueError(
            f"num_returns={num_returns!r} can only be used with generator functions, and {_name(function)} has "
            "no `yield`. "
            "Give the number of values that it returns."
        )
    return num_returns


def _without_zeros(amounts: dict[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in amounts.items() if amount}


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
