"""What is done on both sides: decorations, options, calls, failures, resources, ids, strategies.

Imported in Ray's environment too, so nothing here needs rabbitry or pytest.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple, Protocol


class Side(Protocol):
    """How one of the two does what the cases ask."""

    def task(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        """Decorate a function."""

    def task_options(self, function: Callable[..., Any], first: dict[str, Any], then: dict[str, Any]) -> None:
        """Decorate a function, and call `.options()` on it."""

    def actor(self, cls: type, options: dict[str, Any]) -> None:
        """Decorate a class."""

    def actor_options(self, cls: type, first: dict[str, Any], then: dict[str, Any]) -> None:
        """Decorate a class, and call `.options()` on it."""

    def method(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        """Decorate a method."""

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Submit a task with these arguments."""

    def construct(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Create an actor with these arguments."""

    def failure(self, error: Callable[[], BaseException]) -> list[str]:
        """Let a task raise `error()`; return the names of the classes that the reader can catch it by."""

    def input_failure(self, error: Callable[[], BaseException]) -> list[str]:
        """The same for a task that has the failing task's result as its argument."""

    def task_resources(self, options: dict[str, Any]) -> dict[str, float]:
        """Return what a task with these options holds."""

    def actor_resources(self, options: dict[str, Any]) -> dict[str, float]:
        """Return what an actor with these options holds."""

    def exception_tree(self) -> dict[str, list[str]]:
        """Return each exception's public base classes."""

    def ids(self) -> dict[str, dict[str, Any]]:
        """Return size and public methods of each class of ids."""

    def make_id(self, cls: str, data: Any) -> None:
        """Make an id of these bytes."""

    def strategy(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Make a scheduling strategy; an argument that is a tuple stands for one: (name, *arguments)."""


class Case(NamedTuple):
    """One thing that is done.

    Attributes:
        id: what it is called in `recorded.json`.
        run: does it.
        ours: what rabbitry does if that is not what Ray does: a name of a class, or "ok".
        why: the reason for that.
    """

    id: str
    run: Callable[[Side], Any]
    ours: str = ""
    why: str = ""


def plain(a: int = 1, b: int = 2) -> int:
    return a + b


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> None:
    return None


async def async_generator() -> AsyncIterator[int]:
    yield 1


def needs_two(a: int, b: int) -> None: ...
def needs_keyword(a: int, *, key: int) -> None: ...
def positional_only(a: int, /) -> None: ...
def variadic(*args: int, **kwargs: int) -> None: ...


class Plain:
    def method(self) -> None: ...


class NeedsOne:
    def __init__(self, a: int) -> None: ...


class OtherArguments(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


class Beyond(BaseException):
    pass


class Sealed(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("final")


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


EARLIER = "rabbitry says at the decorator what Ray finds out later or never"
WIDTH = "rabbitry keeps numbers of 64 bits, and says so"
SURROGATE = "\ud800"
NODE = "ab" * 28

# id: (options, our outcome if it differs, why)
COMMON_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing unusual": ({"num_cpus": 0.5, "resources": {"a": 1}, "name": "n", "runtime_env": {}}, "", ""),
    "unknown": ({"bogus": 1}, "", ""),
    "misspelt": ({"num_cpu": 1}, "", ""),
    "cpus text": ({"num_cpus": "1"}, "", ""),
    "cpus none": ({"num_cpus": None}, "", ""),
    "cpus bool": ({"num_cpus": True}, "", ""),
    "cpus negative": ({"num_cpus": -1}, "", ""),
    "cpus nan": ({"num_cpus": float("nan")}, "", ""),
    "cpus infinite": ({"num_cpus": float("inf")}, "ValueError", "in Ray an accident of its conversion"),
    "cpus too fine": ({"num_cpus": 0.00001}, "", ""),
    "gpus shared": ({"num_gpus": 0.5}, "", ""),
    "gpus fractional": ({"num_gpus": 1.5}, "ValueError", EARLIER),
    "memory negative": ({"memory": -1}, "", ""),
    "memory text": ({"memory": "1g"}, "", ""),
    "memory fraction": ({"memory": 0.5}, "", ""),
    "resources with CPU": ({"resources": {"CPU": 1}}, "", ""),
    "resources with GPU": ({"resources": {"GPU": 1}}, "", ""),
    "resources with memory": ({"resources": {"memory": 1}}, "ValueError", EARLIER),
    "resources with bundle": ({"resources": {"bundle": 1}}, "ValueError", EARLIER),
    "resources negative": ({"resources": {"a": -1}}, "", ""),
    "resources too fine": ({"resources": {"a": 0.00001}}, "", ""),
    "resources text": ({"resources": {"a": "x"}}, "", ""),
    "resources none inside": ({"resources": {"a": None}}, "", ""),
    "resources key": ({"resources": {1: 1}}, "TypeError", EARLIER),
    "resources list": ({"resources": ["a"]}, "", ""),
    "resources none": ({"resources": None}, "", ""),
    "resources TPU": ({"resources": {"TPU": 3}}, "", ""),
    "resources HPU": ({"resources": {"HPU": 0.5}}, "", ""),
    "accelerator type": ({"accelerator_type": 3}, "", ""),
    "name number": ({"name": 3}, "", ""),
    "strategy name": ({"scheduling_strategy": "FOO"}, "ValueError", EARLIER),
    "strategy number": ({"scheduling_strategy": 3}, "", ""),
    "strategy spread": ({"scheduling_strategy": "SPREAD"}, "", ""),
    "selector in": ({"label_selector": {"a": "in(b,c)", "x.io/y": "!z"}}, "", ""),
    "selector empty in": ({"label_selector": {"a": "in()"}}, "", ""),
    "selector two blanks": ({"label_selector": {"a": "in(b,  c)"}}, "", ""),
    "selector key": ({"label_selector": {"-a": "b"}}, "", ""),
    "selector number": ({"label_selector": {"a": 3}}, "", ""),
    "selector number key": ({"label_selector": {3: "a"}}, "", ""),
    "selector none": ({"label_selector": {"a": None}}, "TypeError", EARLIER),
    "selector empty": ({"label_selector": {"a": ""}}, "", ""),
    "selector without in": ({"label_selector": {"a": "(b)"}}, "", ""),
    "selector text": ({"label_selector": "x"}, "", ""),
    "fallback": ({"fallback_strategy": [{"label_selector": {"a": "b"}}]}, "", ""),
    "fallback empty dict": ({"fallback_strategy": [{}]}, "", ""),
    "fallback other": ({"fallback_strategy": [{"x": 1}]}, "", ""),
    "fallback number": ({"fallback_strategy": [3]}, "", ""),
    "fallback dict": ({"fallback_strategy": {}}, "", ""),
    "fallback selector": ({"fallback_strategy": [{"label_selector": 3}]}, "", ""),
    "env number": ({"runtime_env": {"env_vars": {"a": 1}}}, "", ""),
    "env key": ({"runtime_env": {"env_vars": {1: "a"}}}, "", ""),
    "env list": ({"runtime_env": {"env_vars": ["a"]}}, "", ""),
    "env empty": ({"runtime_env": {"env_vars": {}}}, "", ""),
    "env none": ({"runtime_env": {"env_vars": None}}, "", ""),
    "env text": ({"runtime_env": "x"}, "", ""),
    "env unknown": ({"runtime_env": {"bogus": 1}}, "", ""),
    "env working dir": ({"runtime_env": {"working_dir": "/"}}, "", ""),
    "env pip": ({"runtime_env": {"pip": ["a"]}}, "", ""),
    "group number": ({"placement_group": 3}, "", ""),
    "group text": ({"placement_group": "x"}, "ValueError", EARLIER),
    "group index": ({"placement_group_bundle_index": "x"}, "", ""),
    "group none and strategy": ({"placement_group": None, "scheduling_strategy": "SPREAD"}, "", ""),
    "events none": ({"enable_task_events": None}, "", ""),
    "labels number": ({"_labels": 3}, "", ""),
    "labels": ({"_labels": {"a": "b"}}, "", ""),
    "labels key number": ({"_labels": {1: "b"}}, "ValueError", EARLIER),
    "labels no text": ({"_labels": {"a": SURROGATE}}, "ValueError", EARLIER),
    "cpus huge": ({"num_cpus": 10**30}, "ValueError", WIDTH),
    "memory huge": ({"memory": 10**30}, "ValueError", WIDTH),
    "resources huge": ({"resources": {"a": 10**30}}, "ValueError", WIDTH),
    "resources nan": ({"resources": {"a": float("nan")}}, "", ""),
    "resources no text": ({"resources": {SURROGATE: 1}}, "ValueError", EARLIER),
    "name no text": ({"name": SURROGATE}, "ValueError", EARLIER),
    "name bytes": ({"name": b"n"}, "", ""),
    "accelerator no text": ({"accelerator_type": SURROGATE}, "ValueError", EARLIER),
    "selector no text": ({"label_selector": {"a": SURROGATE}}, "", ""),
    "strategy no text": ({"scheduling_strategy": SURROGATE}, "ValueError", EARLIER),
    "env no text": ({"runtime_env": {"env_vars": {"A": SURROGATE}}}, "ValueError", EARLIER),
    "env empty name": ({"runtime_env": {"env_vars": {"": "a"}}}, "ValueError", EARLIER),
}

TASK_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    **COMMON_OPTIONS,
    "returns word": ({"num_returns": "all"}, "", ""),
    "returns negative": ({"num_returns": -1}, "", ""),
    "returns float": ({"num_returns": 1.0}, "", ""),
    "returns zero": ({"num_returns": 0}, "", ""),
    "returns bool": ({"num_returns": True}, "", ""),
    "returns a million": ({"num_returns": 10**6}, "ValueError", "all results are committed in one step"),
    "retries huge": ({"max_retries": 2**64}, "ValueError", EARLIER),
    "backpressure huge": ({"_generator_backpressure_num_objects": 2**64}, "ValueError", EARLIER),
    "returns streaming": ({"num_returns": "streaming"}, "", ""),
    "returns dynamic": ({"num_returns": "dynamic"}, "", ""),
    "retries -2": ({"max_retries": -2}, "", ""),
    "retries -1": ({"max_retries": -1}, "", ""),
    "retries none": ({"max_retries": None}, "", ""),
    "retries float": ({"max_retries": 1.5}, "", ""),
    "retry none": ({"retry_exceptions": None}, "", ""),
    "retry classes": ({"retry_exceptions": [ValueError, KeyError]}, "", ""),
    "retry class": ({"retry_exceptions": ValueError}, "", ""),
    "retry number": ({"retry_exceptions": [1]}, "", ""),
    "retry base": ({"retry_exceptions": [BaseException]}, "", ""),
    "retry empty": ({"retry_exceptions": ()}, "", ""),
    "calls negative": ({"max_calls": -1}, "", ""),
    "calls none": ({"max_calls": None}, "", ""),
    "name empty": ({"name": ""}, "", ""),
    "store memory": ({"object_store_memory": 5}, "", ""),
    "store memory none": ({"object_store_memory": None}, "", ""),
    "backpressure 0": ({"_generator_backpressure_num_objects": 0}, "", ""),
    "backpressure negative": ({"_generator_backpressure_num_objects": -5}, "", ""),
    "per yield 0": ({"_num_objects_per_yield": 0}, "", ""),
    "per yield none": ({"_num_objects_per_yield": None}, "", ""),
    "an actor's": ({"max_restarts": 1}, "", ""),
    "lifetime": ({"lifetime": "detached"}, "ok", "rabbitry's own option"),
    "priority": ({"priority": 3}, "ok", "rabbitry's own option"),
    "retry delay": ({"retry_delay": 1}, "ok", "rabbitry's own option"),
}

ACTOR_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    **COMMON_OPTIONS,
    "a task's": ({"num_returns": 2}, "", ""),
    "a task's retries": ({"max_retries": 2}, "", ""),
    "a task's calls": ({"max_calls": 2}, "", ""),
    "lifetime word": ({"lifetime": "x"}, "", ""),
    "lifetime number": ({"lifetime": 3}, "", ""),
    "lifetime": ({"lifetime": "non_detached"}, "", ""),
    "name empty": ({"name": ""}, "ValueError", EARLIER),
    "namespace empty": ({"namespace": ""}, "ValueError", EARLIER),
    "namespace number": ({"namespace": 3}, "", ""),
    "get if exists": ({"get_if_exists": True}, "", ""),
    "get if exists named": ({"get_if_exists": True, "name": "n"}, "", ""),
    "get if exists none": ({"get_if_exists": None}, "", ""),
    "concurrency 0": ({"max_concurrency": 0}, "", ""),
    "concurrency negative": ({"max_concurrency": -1}, "", ""),
    "concurrency none": ({"max_concurrency": None}, "", ""),
    "restarts -2": ({"max_restarts": -2}, "", ""),
    "restarts -1": ({"max_restarts": -1}, "", ""),
    "task retries -2": ({"max_task_retries": -2}, "", ""),
    "namespace no text": ({"namespace": SURROGATE}, "ValueError", EARLIER),
    "concurrency huge": ({"max_concurrency": 2**64}, "ValueError", EARLIER),
    "restarts huge": ({"max_restarts": 2**64}, "ValueError", WIDTH),
    "task retries huge": ({"max_task_retries": 2**64}, "ValueError", EARLIER),
    "pending huge": ({"max_pending_calls": 2**64}, "ValueError", EARLIER),
    "groups no text": ({"concurrency_groups": {SURROGATE: 1}}, "ValueError", EARLIER),
    "groups huge": ({"concurrency_groups": {"io": 2**64}}, "ValueError", EARLIER),
    "pending -2": ({"max_pending_calls": -2}, "", ""),
    "groups": ({"concurrency_groups": {"io": 2}}, "", ""),
    "groups empty list": ({"concurrency_groups": []}, "", ""),
    "groups number": ({"concurrency_groups": 3}, "", ""),
    "groups limit 0": ({"concurrency_groups": {"io": 0}}, "ValueError", EARLIER),
    "groups limit text": ({"concurrency_groups": {"io": "x"}}, "TypeError", EARLIER),
    "order number": ({"allow_out_of_order_execution": 3}, "", ""),
    "order and threads": ({"allow_out_of_order_execution": False, "max_concurrency": 2}, "ValueError", EARLIER),
    "store memory": ({"object_store_memory": 5}, "", ""),
    "store memory negative": ({"object_store_memory": -5}, "", ""),
    "tensors": ({"enable_tensor_transport": True}, "", ""),
    "tensors off": ({"enable_tensor_transport": False}, "", ""),
    "backpressure 0": ({"_actor_generator_backpressure_num_objects": 0}, "", ""),
    "backpressure -1": ({"_actor_generator_backpressure_num_objects": -1}, "", ""),
    "backpressure -2": ({"_actor_generator_backpressure_num_objects": -2}, "", ""),
    "a method's": ({"_generator_backpressure_num_objects": 1}, "", ""),
    "durable": ({"durable": True}, "ok", "rabbitry's own option"),
}

METHOD_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing unusual": ({"num_returns": 2, "concurrency_group": "io", "max_task_retries": 1}, "", ""),
    "unknown": ({"bogus": 1}, "", ""),
    "name": ({"name": "n"}, "", ""),
    "returns negative": ({"num_returns": -1}, "", ""),
    "returns streaming": ({"num_returns": "streaming"}, "", ""),
    "returns word": ({"num_returns": "all"}, "TypeError", EARLIER),
    "returns a million": ({"num_returns": 10**6}, "ValueError", "all results are committed in one step"),
    "group no text": ({"concurrency_group": SURROGATE}, "ValueError", EARLIER),
    "retries word": ({"max_task_retries": "x"}, "TypeError", EARLIER),
    "retries -3": ({"max_task_retries": -3}, "ValueError", EARLIER),
    "retry number": ({"retry_exceptions": 3}, "TypeError", EARLIER),
    "group number": ({"concurrency_group": 3}, "TypeError", EARLIER),
    "per yield 0": ({"_num_objects_per_yield": 0}, "", ""),
    "backpressure 0": ({"_generator_backpressure_num_objects": 0}, "ValueError", EARLIER),
    "events number": ({"enable_task_events": 3}, "TypeError", EARLIER),
    "tensors": ({"tensor_transport": "no such"}, "", ""),
}

CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "fits": (needs_two, (1,), {"b": 2}),
    "too few": (needs_two, (1,), {}),
    "too many": (needs_two, (1, 2, 3), {}),
    "unknown keyword": (needs_two, (1, 2), {"c": 3}),
    "twice": (needs_two, (1, 2), {"a": 3}),
    "keyword missing": (needs_keyword, (1,), {}),
    "keyword as positional": (needs_keyword, (1, 2), {}),
    "keyword": (needs_keyword, (1,), {"key": 2}),
    "positional as keyword": (positional_only, (), {"a": 1}),
    "variadic": (variadic, (1, 2), {"x": 3}),
}

CONSTRUCTIONS: dict[str, tuple[type, tuple[Any, ...], dict[str, Any]]] = {
    "fits": (NeedsOne, (1,), {}),
    "too few": (NeedsOne, (), {}),
    "too many": (NeedsOne, (1, 2), {}),
    "no constructor": (Plain, (), {}),
    "no constructor, an argument": (Plain, (1,), {}),
}

RAYS_LIMIT = "Ray cannot rebuild an exception whose constructor takes other arguments; rabbitry can"

FAILURES: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "ValueError": (lambda: ValueError("boom"), "", ""),
    "KeyError": (lambda: KeyError("k"), "", ""),
    "OSError": (lambda: FileNotFoundError(2, "No such file", "/x"), "", ""),
    "Exception": (lambda: Exception("plain"), "", ""),
    "other arguments": (lambda: OtherArguments(1, 2), "RayTaskError OtherArguments", RAYS_LIMIT),
    "beyond Exception": (lambda: Beyond("b"), "", ""),
    "final": (lambda: Sealed("s"), "", ""),
    "unpicklable": (Locked, "", ""),
}

TASK_RESOURCES: dict[str, dict[str, Any]] = {
    "default": {},
    "none": {"num_cpus": None},
    "zero": {"num_cpus": 0},
    "fraction": {"num_cpus": 0.5},
    "gpu": {"num_gpus": 1},
    "custom": {"resources": {"a": 1}},
    "memory": {"memory": 100 * 2**20},
}

ACTOR_RESOURCES: dict[str, dict[str, Any]] = {
    **TASK_RESOURCES,
    "zero gpus": {"num_gpus": 0},
    "no custom": {"resources": {}},
    "custom, no cpu": {"resources": {"a": 1}, "num_cpus": 0},
}

STRATEGIES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], str, str]] = {
    "node": ("NodeAffinitySchedulingStrategy", (NODE, False), {}, "", ""),
    "node upper case": ("NodeAffinitySchedulingStrategy", (NODE.upper(), True), {}, "", ""),
    "node bytes": ("NodeAffinitySchedulingStrategy", (bytes.fromhex(NODE), True), {}, "", ""),
    "node rubbish": ("NodeAffinitySchedulingStrategy", ("zz", True), {}, "", ""),
    "node short": ("NodeAffinitySchedulingStrategy", ("ab", True), {}, "", ""),
    "node nil": ("NodeAffinitySchedulingStrategy", ("ff" * 28, True), {}, "", ""),
    "node number": ("NodeAffinitySchedulingStrategy", (3, True), {}, "TypeError", "in Ray an accident"),
    "node without soft": ("NodeAffinitySchedulingStrategy", (NODE,), {}, "", ""),
    "node spill": ("NodeAffinitySchedulingStrategy", (NODE, False), {"_spill_on_unavailable": True}, "", ""),
    "node fail": ("NodeAffinitySchedulingStrategy", (NODE, True), {"_fail_on_unavailable": True}, "", ""),
    "labels": ("NodeLabelSchedulingStrategy", ({"a": ("In", "b")},), {}, "", ""),
    "labels soft": ("NodeLabelSchedulingStrategy", ({},), {"soft": {"a": ("Exists",)}}, "", ""),
    "labels none": ("NodeLabelSchedulingStrategy", (None,), {}, "", ""),
    "labels empty": ("NodeLabelSchedulingStrategy", ({},), {}, "", ""),
    "labels text": ("NodeLabelSchedulingStrategy", ({"a": "b"},), {}, "", ""),
    "labels key": ("NodeLabelSchedulingStrategy", ({3: ("Exists",)},), {}, "", ""),
    "labels list": ("NodeLabelSchedulingStrategy", ([1],), {}, "", ""),
    "in nothing": ("In", (), {}, "", ""),
    "in number": ("In", (1,), {}, "", ""),
    "not in nothing": ("NotIn", (), {}, "", ""),
    "exists with value": ("Exists", (1,), {}, "", ""),
    "group none": ("PlacementGroupSchedulingStrategy", (None,), {}, "", ""),
    "group index": ("PlacementGroupSchedulingStrategy", (None, "x"), {}, "TypeError", EARLIER),
}


def _functions() -> Iterator[Case]:
    for kind, function in {
        "plain": plain,
        "generator": generator,
        "coroutine": coroutine,
        "async generator": async_generator,
    }.items():
        for returns in (None, 0, 1, 3, "streaming", "dynamic"):
            yield Case(
                f"function: {kind} returning {returns}",
                lambda side, f=function, r=returns: side.task(f, {"num_returns": r}),  # type: ignore[misc]
            )


def _all() -> Iterator[Case]:
    yield from _functions()
    for name, (options, ours, why) in TASK_OPTIONS.items():
        yield Case(f"task: {name}", lambda s, o=options: s.task(plain, o), ours, why)  # type: ignore[misc]
        yield Case(f"task.options: {name}", lambda s, o=options: s.task_options(plain, {}, o), ours, why)  # type: ignore[misc]
    yield Case("task.options: max_calls", lambda s: s.task_options(plain, {}, {"max_calls": 1}))
    yield Case("task.options: per yield", lambda s: s.task_options(generator, {}, {"_num_objects_per_yield": 2}))
    yield Case(
        "task.options: same per yield",
        lambda s: s.task_options(generator, {"_num_objects_per_yield": 2}, {"_num_objects_per_yield": 2}),
    )
    for name, (options, ours, why) in ACTOR_OPTIONS.items():
        yield Case(f"actor: {name}", lambda s, o=options: s.actor(Plain, o), ours, why)  # type: ignore[misc]
        # Those of the groups are refused there whatever they are.
        if not name.startswith("groups"):
            yield Case(f"actor.options: {name}", lambda s, o=options: s.actor_options(Plain, {}, o), ours, why)  # type: ignore[misc]
    yield Case("actor.options: groups", lambda s: s.actor_options(Plain, {}, {"concurrency_groups": {"io": 2}}))
    yield Case(
        "actor.options: name taken away",
        lambda s: s.actor_options(Plain, {"name": "n", "get_if_exists": True}, {"name": None}),
    )
    for name, (options, ours, why) in METHOD_OPTIONS.items():
        yield Case(f"method: {name}", lambda s, o=options: s.method(plain, o), ours, why)  # type: ignore[misc]
    for name, (function, args, kwargs) in CALLS.items():
        yield Case(f"call: {name}", lambda s, f=function, a=args, k=kwargs: s.call(f, a, k))  # type: ignore[misc]
    for name, (cls, args, kwargs) in CONSTRUCTIONS.items():
        yield Case(f"construct: {name}", lambda s, c=cls, a=args, k=kwargs: s.construct(c, a, k))  # type: ignore[misc]
    for name, (error, ours, why) in FAILURES.items():
        yield Case(f"failure: {name}", lambda s, e=error: s.failure(e), ours, why)  # type: ignore[misc]
        yield Case(f"input failure: {name}", lambda s, e=error: s.input_failure(e), ours, why)  # type: ignore[misc]
    for name, options in TASK_RESOURCES.items():
        yield Case(f"task resources: {name}", lambda s, o=options: s.task_resources(o))  # type: ignore[misc]
    for name, options in ACTOR_RESOURCES.items():
        yield Case(f"actor resources: {name}", lambda s, o=options: s.actor_resources(o))  # type: ignore[misc]
    for name, (strategy, args, kwargs, ours, why) in STRATEGIES.items():
        yield Case(
            f"strategy: {name}",
            lambda s, n=strategy, a=args, k=kwargs: s.strategy(n, a, k),  # type: ignore[misc]
            ours,
            why,
        )
    for data in (b"", b"x", "text", 3, None):
        for cls_name in ("JobID", "NodeID"):
            yield Case(f"id: {cls_name} of {data!r}", lambda s, c=cls_name, d=data: s.make_id(c, d))  # type: ignore[misc]
    yield Case("ids", lambda s: s.ids())
    yield Case("exceptions", lambda s: s.exception_tree())


CASES = {case.id: case for case in _all()}


def make(module: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make an object of a module, with the objects that tuples inside the arguments stand for."""

    def made(value: Any) -> Any:
        if isinstance(value, tuple):
            return getattr(module, value[0])(*value[1:])
        if isinstance(value, dict):
            return {key: made(each) for key, each in value.items()}
        return value

    return getattr(module, name)(*map(made, args), **{key: made(value) for key, value in kwargs.items()})


def outcome(case: Case, side: Side) -> Any:
    """Do it, and return what came of it as JSON: the value (null if there is none), or {"raised": class name}."""
    try:
        return case.run(side)
    except (Exception, Beyond) as error:
        return {"raised": type(error).__name__}
