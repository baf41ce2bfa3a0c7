"""Whatever a user passes is refused in clear words where it was written, or every process can carry it."""

from __future__ import annotations

import enum
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy
import pytest

import rabbitry
from rabbitry import arguments, calls, current, init_checks
from rabbitry.actor import get_actor, kill
from rabbitry.arguments import MAX_RETURNS, patience, seconds, shown, writable
from rabbitry.cluster_utils import Cluster
from rabbitry.core.resolve.remainder import Remainder
from rabbitry.job_config import JobConfig
from rabbitry.object_ref import ObjectRef
from rabbitry.option_rules import ACTOR, METHOD, METHOD_CALL, TASK
from rabbitry.options import ActorOptions, MethodOptions, TaskOptions
from rabbitry.runtime_env import check_runtime_env
from rabbitry.scheduling import (
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)
from rabbitry.session import init
from rabbitry.util.executor import Executor
from rabbitry.util.iterate import as_completed, map_unordered
from rabbitry.util.multiprocessing import Pool
from rabbitry.util.queue import Queue
from rabbitry_broker.messages import encode_header
from tests.api.core.fakes import Surroundings

NAN = float("nan")
INFINITY = float("inf")


class Text(str):
    """Text that shows itself as something else."""

    def __str__(self) -> str:
        return "other"


class Mapped(dict[Any, Any]):
    pass


class Number(int):
    pass


class Level(enum.IntEnum):
    LOW = 1


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


ODD: list[Any] = [
    None, NAN, INFINITY, -INFINITY, 1e300, -0.5, 0.5, 1.5, 0, -1, -2, 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30,
    10**5000, -(10**5000), True, False, 1j, "", "1", "x", "\ud800", "a\0b", "é", "x" * 10_000, b"", b"x",
    bytearray(b"x"), [], [1], ["x"], (), (1,), {}, {"a": 1}, {1: 2}, {"\ud800": 1}, {"a": "\ud800"}, {"a": NAN},
    {"a": 10**30}, {"a": 10**5000}, {"": 1}, {"a": None}, {"a": "b"}, {"env_vars": {"A": "\ud800"}},
    {"env_vars": {"\ud800": "A"}}, {"env_vars": {"A": "a\0b"}}, {"env_vars": {Text("A"): Text("b")}},
    {"env_vars": Mapped(A="b")}, {"\ud800": 1}, {Text("a"): Number(1)}, Mapped(a=1), set(), {1}, object(), object,
    Rude(), {"a": Rude()}, {Rude(): 1}, [Rude()], Text("x"), Text("SPREAD"), Text("streaming"), Text("detached"),
    Number(1), Level.LOW, Fraction(1, 2), ValueError, [ValueError], [Exception, "x"], lambda: None,
    [{"label_selector": {"a": "\ud800"}}], [{"label_selector": Rude()}], [{"\ud800": 1}],
]  # fmt: skip
CLEAR = (ValueError, TypeError, AssertionError)


def function() -> int:
    return 1


def numbers() -> Iterator[int]:
    yield 1


def refused_or(action: Callable[[], Any]) -> Any:
    """Return what `action` returns; None if it refuses clearly. Errors of the machinery fail the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return action()
        except UnicodeError:
            raise
        except CLEAR as error:
            text = str(error)
    text.encode()
    assert len(text) < 2000
    return None


def carried(options: Any) -> None:
    """What stands in the options can be sent; the exact types are those of the wire."""
    skipped = ("scheduling_strategy", "retry_exceptions", "explicit", "runtime_env")
    fields = {each: getattr(options, each) for each in options.__struct_fields__ if each not in skipped}
    json.dumps(getattr(options, "runtime_env", None), ensure_ascii=False).encode()  # which is sent so
    msgspec.msgpack.encode(fields)


@pytest.mark.parametrize("option", TASK)
def test_options_of_tasks(option: str) -> None:
    for value in ODD:
        for each in (function, numbers):
            options = refused_or(
                lambda value=value, each=each: TaskOptions.from_kwargs(**{option: value}).for_function(each)
            )
            if options is not None and not options.fallback_strategy:
                carried(options)
                plan = refused_or(
                    lambda options=options, each=each: Surroundings().plans().task(b"d" * 16, each, options)
                )
                assert plan is None or encode_header(plan.header)
        refused_or(lambda value=value: TaskOptions.from_kwargs().merged(**{option: value}))


@pytest.mark.parametrize("option", ACTOR)
def test_options_of_actors(option: str) -> None:
    for value in ODD:
        options = refused_or(lambda value=value: ActorOptions.from_kwargs(**{option: value}))
        if options is not None:
            carried(options)


@pytest.mark.parametrize("option", [*METHOD, *METHOD_CALL])
def test_options_of_methods(option: str) -> None:
    for value in ODD:
        for make in (MethodOptions.from_kwargs, MethodOptions().merged):
            options = refused_or(lambda value=value, make=make: make(**{option: value}))
            if options is not None:
                carried(options)


def test_unknown_options_with_any_name() -> None:
    for name in ("\ud800", "", "x" * 10_000, Text("num_cpu")):
        assert refused_or(lambda name=name: TaskOptions.from_kwargs(**{name: 1})) is None

    # Of an environment they are kept, as in Ray, if they can be sent.
    with pytest.raises(ValueError, match="surrogate"):
        check_runtime_env({"\ud800": 1})
    with pytest.raises(TypeError, match="what JSON can hold"):
        check_runtime_env({"field": ["\ud800"]})
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError, match="what JSON can hold"):
        check_runtime_env({"field": deep})
    kept = check_runtime_env({"": 1, Text("field"): 2})
    assert kept == {"": 1, "field": 2}
    assert {type(name) for name in kept} == {str}


def test_subclasses_become_the_plain_types() -> None:
    options = TaskOptions.from_kwargs(
        name=Text("x"), resources={Text("a"): 1}, max_retries=Level.LOW, _labels={Text("a"): Text("b")}
    )
    assert (options.name, type(options.name)) == ("x", str)
    assert [type(name) for name in options.resources] == [str]
    assert type(options.max_retries) is int
    assert {type(each) for pair in options.labels.items() for each in pair} == {str}
    env = check_runtime_env(Mapped(env_vars={Text("A"): Text("b")}))
    assert env == {"env_vars": {"A": "b"}}
    assert {type(each) for pair in env["env_vars"].items() for each in pair} == {str}


def test_names_of_functions_are_made_writable() -> None:
    def odd() -> None: ...

    odd.__qualname__ = "odd\ud800"
    plan = Surroundings().plans().task(b"d" * 16, odd, TaskOptions.from_kwargs().for_function(odd))
    assert plan.header.name == "odd\\ud800" == writable("odd\ud800")


def test_a_task_has_a_limited_number_of_results() -> None:
    assert TaskOptions.from_kwargs(num_returns=MAX_RETURNS).num_returns == MAX_RETURNS
    for many in (MAX_RETURNS + 1, 10**6, 10**12, 10**5000):
        with pytest.raises(ValueError, match=f"{MAX_RETURNS} at most.*streaming"):
            TaskOptions.from_kwargs(num_returns=many)
        with pytest.raises(ValueError, match=f"{MAX_RETURNS} at most.*streaming"):
            MethodOptions().merged(num_returns=many)


# -- calls -----------------------------------------------------------------------------------------------------------


class NoClient:
    """A client whose objects are all there."""

    references = None
    remainder = Remainder()

    def get_one(self, ref: Any, timeout: float | None) -> Any:
        assert timeout is None or (type(timeout) is float and 0 <= timeout < 1e9)
        return "value"

    def get_many(self, refs: Any, timeout: float | None) -> Any:
        return [self.get_one(ref, timeout) for ref in refs]

    def wait(self, refs: list[Any], num_returns: int, timeout: float | None) -> Any:
        assert type(num_returns) is int
        self.get_one(None, timeout)
        return refs[:num_returns], refs[num_returns:]

    def bring_here(self, refs: Any) -> None: ...
    def adopt(self, ref: Any) -> None: ...
    def free(self, refs: Any) -> None: ...
    def cancel(self, task_id: bytes, *, force: bool, recursive: bool, results: int) -> None:
        assert (type(force), type(recursive)) == (bool, bool)

    inbox = SimpleNamespace(values={})
    actors = SimpleNamespace(tracked={}, lookup=lambda name, namespace: pytest.fail("looked up what is no name"))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> NoClient:
    client = NoClient()
    monkeypatch.setattr(current, "_client", client)
    return client


A, B = ObjectRef.from_random(), ObjectRef.from_random()

CALLS: dict[str, Callable[[Any], Any]] = {
    "get": calls.get,
    "get list": lambda odd: calls.get([odd]),
    "get timeout": lambda odd: calls.get(A, timeout=odd),
    "get list timeout": lambda odd: calls.get([A], timeout=odd),
    "wait": calls.wait,
    "wait list": lambda odd: calls.wait([odd]),
    "wait num_returns": lambda odd: calls.wait([A, B], num_returns=odd),
    "wait timeout": lambda odd: calls.wait([A], timeout=odd),
    "wait fetch_local": lambda odd: calls.wait([A], fetch_local=odd),
    "cancel": calls.cancel,
    "cancel force": lambda odd: calls.cancel(A, force=odd),
    "cancel recursive": lambda odd: calls.cancel(A, recursive=odd),
    "free": calls.free,
    "free list": lambda odd: calls.free([odd]),
    "kill": kill,
    "from_hex": ObjectRef.from_hex,
    "ObjectRef": ObjectRef,
    "remote": lambda odd: rabbitry.remote(odd),
    "remote with options": lambda odd: rabbitry.remote(num_cpus=1)(odd),
    "method": lambda odd: rabbitry.method(odd),
    "method with options": lambda odd: rabbitry.method(num_returns=1)(odd),
    "ActorID": rabbitry.ActorID,
    "ActorID.from_hex": rabbitry.ActorID.from_hex,
    "NodeAffinitySchedulingStrategy": lambda odd: NodeAffinitySchedulingStrategy(odd, soft=True),
    "NodeAffinitySchedulingStrategy soft": lambda odd: NodeAffinitySchedulingStrategy("ab" * 28, soft=odd),
    "NodeLabelSchedulingStrategy": NodeLabelSchedulingStrategy,
    "In": lambda odd: NodeLabelSchedulingStrategy({"a": In(odd)}),
    "PlacementGroupSchedulingStrategy": lambda odd: PlacementGroupSchedulingStrategy(odd, odd, odd),
    "JobConfig": lambda odd: JobConfig(runtime_env=odd, metadata=odd),
    "JobConfig namespace": lambda odd: JobConfig(ray_namespace=odd, default_actor_lifetime=odd),
    "as_completed": lambda odd: list(as_completed(odd)),
    "as_completed chunk_size": lambda odd: list(as_completed([A, B], chunk_size=odd)),
    "as_completed timeout": lambda odd: list(as_completed([A, B], timeout=odd)),
    "map_unordered": lambda odd: map_unordered(odd, []),
    "map_unordered items": lambda odd: map_unordered(rabbitry.remote(function), odd),
    "map_unordered chunk_size": lambda odd: map_unordered(rabbitry.remote(function), [], chunk_size=odd),
    "map_unordered backpressure_size": lambda odd: map_unordered(rabbitry.remote(function), [], backpressure_size=odd),
    "ActorPool": rabbitry.util.ActorPool,
    "Executor": Executor,
    "namespace": init_checks.namespace,
    "labels": init_checks.node_labels,
    "object_store_memory": init_checks.store_bytes,
    "logging_level": init_checks.logging_level,
    "_temp_dir": lambda odd: init_checks.directory("_temp_dir", odd),
    "resources": lambda odd: init_checks.node_resources(None, None, None, odd),
    "num_cpus": lambda odd: init_checks.node_resources(odd, odd, odd, None),
    "runtime_env": check_runtime_env,
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_calls(client: NoClient, name: str) -> None:
    for value in ODD:
        refused_or(lambda value=value: CALLS[name](value))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: calls.get(A, timeout=NAN), ValueError, "timeout is NaN"),
        (lambda: calls.get([A], timeout=NAN), ValueError, "timeout is NaN"),
        (lambda: calls.wait([A], timeout=NAN), ValueError, "timeout is NaN"),
        (lambda: calls.get(A, timeout="1"), TypeError, "timeout must be a number of seconds, or None, but is '1'"),
        (lambda: calls.wait([A], timeout="1"), TypeError, "timeout must be a number of seconds"),
        (lambda: calls.wait([A], timeout=-1), ValueError, "The 'timeout' argument must be nonnegative"),
        (lambda: calls.wait([A], num_returns=None), TypeError, "num_returns must be an int of 1 or more, but is None"),
        (lambda: calls.wait([A], num_returns=0.5), TypeError, "num_returns must be an int"),
        (lambda: calls.wait([A], num_returns=0), ValueError, "num_returns must be an int of 1 or more, but is 0"),
        (lambda: calls.wait([A], num_returns=10**5000), ValueError, "an int of 16610 bits"),
        (lambda: calls.put(1, _owner=1), ValueError, "put"),
        (lambda: get_actor(""), ValueError, "empty"),
        (lambda: get_actor(None), ValueError, "empty"),  # type: ignore[arg-type]
        (lambda: get_actor(3), TypeError, "the name of an actor must be text"),  # type: ignore[arg-type]
        (lambda: get_actor("\ud800"), ValueError, "surrogate"),
        (lambda: get_actor("a", namespace="\ud800"), ValueError, "surrogate"),
        (lambda: get_actor("a", namespace=""), ValueError, "namespace"),
        (lambda: get_actor("a", namespace="a\0b"), ValueError, "namespace"),
        (lambda: ActorOptions.from_kwargs(namespace="a\0b"), ValueError, "namespace"),
        (lambda: Queue("1"), TypeError, "maxsize must be an int"),  # type: ignore[arg-type]
        (lambda: Queue(actor_options=[1]), TypeError, "actor_options"),  # type: ignore[arg-type]
        (lambda: Pool("1"), TypeError, "processes must be an int"),  # type: ignore[arg-type]
        (lambda: Pool(ray_remote_args=[1]), TypeError, "ray_remote_args"),  # type: ignore[arg-type]
        (lambda: list(Executor().map(abs, [1], chunksize=NAN)), TypeError, "chunksize"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_refusals_name_the_argument(
    client: NoClient, call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"address": 5}, TypeError, "address must be text"),
        ({"address": ""}, ValueError, "address must be 'local', 'auto', 'amqp://"),
        ({"address": "ray://host:10001"}, ValueError, "no Ray Client"),
        ({"address": "10.0.0.1:6379"}, ValueError, "Ray cluster"),
        ({"address": "host:6379"}, ValueError, "Ray cluster"),
        ({"address": "http://me:secret@host"}, ValueError, "http://me@host"),
        ({"store": 5}, TypeError, "store must be text"),
        ({"num_cpus": "2"}, TypeError, "num_cpus must be a number"),
        ({"num_cpus": -1}, ValueError, "num_cpus must be a finite number of 0 or more"),
        ({"num_gpus": NAN}, ValueError, "num_gpus must be a finite number"),
        ({"_memory": 10**30}, ValueError, "_memory must be .* at most"),
        ({"resources": ["a"]}, TypeError, "resources must be a dict"),
        ({"resources": {"a": NAN}}, ValueError, "finite"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        ({"labels": ["a"]}, TypeError, "labels must be a dict"),
        ({"labels": {"a": 1}}, TypeError, "labels are text"),
        ({"object_store_memory": "1g"}, TypeError, "object_store_memory must be a positive number of bytes"),
        ({"object_store_memory": 0}, ValueError, "object_store_memory must be a positive number of bytes"),
        ({"namespace": 3}, TypeError, "namespace must be text"),
        ({"namespace": "\ud800"}, ValueError, "surrogate"),
        ({"namespace": ""}, ValueError, "empty"),
        ({"namespace": "a\0b"}, ValueError, "NUL"),
        ({"runtime_env": 0}, TypeError, "runtime_env must be a dict"),
        ({"runtime_env": {"env_vars": {"A": "\ud800"}}}, ValueError, "lone surrogates"),
        ({"logging_level": "loud"}, ValueError, "logging_level"),
        ({"logging_level": 1.5}, TypeError, "logging_level"),
        ({"_temp_dir": "relative"}, ValueError, "_temp_dir must be an absolute path or None"),
        ({"_temp_dir": "/\ud800"}, ValueError, "surrogate"),
        ({"bogus": 1}, RuntimeError, "Unknown keyword"),
        ({"adress": "auto"}, RuntimeError, r"Unknown keyword argument\(s\): adress. Did you mean 'address'"),
    ],
)
def test_init_refuses_before_it_starts_anything(
    given: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.session._start_embedded", lambda *_: pytest.fail("started"))
    with pytest.raises(error, match=message):
        init(**given)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"engine": 5}, ValueError, "engine must be 'embedded' or 'rabbitmq'"),
        ({"head_node_args": 5}, TypeError, "head_node_args must be a dict"),
        ({"node_lease": "x"}, TypeError, "node_lease must be a number"),
        ({"client_lease": NAN}, ValueError, "client_lease is NaN"),
        ({"node_lease": 0}, ValueError, "node_lease must be a finite number"),
        ({"environment": {"A": 1}}, TypeError, "text to text"),
    ],
)
def test_clusters_are_refused_before_they_start_anything(
    given: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "_spawn", lambda *_: pytest.fail("started"))
    with pytest.raises(error, match=message):
        Cluster(**given)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"num_cpus": "2"}, TypeError, "num_cpus must be a number"),
        ({"num_gpus": -1}, ValueError, "num_gpus must be a finite number"),
        ({"memory": "1g"}, TypeError, "memory must be a number"),
        ({"resources": [1]}, TypeError, "resources must be a dict"),
        ({"labels": {"a": 1}}, TypeError, "labels are text"),
        ({"labels": {"a": "b,c=d"}}, ValueError, "value of label"),
        ({"name": 5}, TypeError, "name must be text"),
        ({"name": "\ud800"}, ValueError, "surrogate"),
    ],
)
def test_nodes_are_refused_before_they_start(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Cluster.add_node(SimpleNamespace(address="unix:///x"), **given)  # type: ignore[arg-type]


def test_levels_of_logging_have_names() -> None:
    assert init_checks.logging_level("info") == logging.INFO
    assert init_checks.logging_level("ERROR") == logging.ERROR
    assert init_checks.logging_level(15) == 15
    assert init_checks.directory("_temp_dir", Path("/tmp/x")) == "/tmp/x"
    assert init_checks.store_bytes(1e9) == 10**9


def test_times_to_wait() -> None:
    assert seconds("t", None) is None
    assert seconds("t", INFINITY) is None
    assert seconds("t", 10**5000) is None
    assert seconds("t", Fraction(1, 2)) == 0.5
    assert seconds("t", True) == 1.0
    assert patience("t", -3) == 0.0
    assert patience("t", None) is None
    with pytest.raises(ValueError, match="NaN"):
        patience("t", NAN)
    with pytest.raises(ValueError, match="nonnegative"):
        seconds("t", -(10**5000))


def test_whole_numbers_of_all_kinds() -> None:
    for two in (2, 2.0, Number(2), numpy.int64(2), numpy.uint8(2)):
        checked = arguments.whole("n", two, least=1, expected="an int of 1 or more")
        assert (checked, type(checked)) == (2, int)


def test_what_is_shown_is_short_and_printable() -> None:
    assert shown(Rude()) == "a Rude (whose repr raises RuntimeError)"
    assert len(shown(["x"] * 10_000)) < 300
    shown("\ud800").encode()
    assert arguments.flag("f", 5) is True
    with pytest.raises(TypeError, match="f must be True or False"):
        arguments.flag("f", Rude())
