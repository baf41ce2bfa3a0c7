"""Odd values for every public argument: `python -m tests.fuzz.inputs embedded` or an address, in a process of its own.

Each call gets each value. What may come of it: a result, an error that says what was wrong, or the error that the odd
object itself raised; soon. What was accepted is really tried: tasks are sent, actors created. Afterwards ordinary
tasks run on every node. One line of JSON for each thing that went wrong goes to standard output, and a last one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import io
import itertools
import json
import math
import pickle
import queue
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import rabbitry as ray
from rabbitry import util
from rabbitry.experimental import get_object_locations, internal_kv
from rabbitry.option_rules import ACTOR, METHOD_CALL, TASK
from rabbitry.util import ActorPool
from rabbitry.util.queue import Queue
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LIMIT = 10.0
"""Seconds after which a call counts as one that hangs: a second is meant, on a machine that has nothing else to do."""

UNCLEAR = re.compile(
    "not supported between|is not iterable|codec can't|has no attribute|cannot be interpreted|unhashable"
    "|not subscriptable|recursion depth|required argument is not|is not callable|unexpected keyword"
    "|too large to convert|out of range for|must be real number|bad operand|has no len|cannot unpack"
    "|too many values|not enough values|embedded null|expected (?:str|bytes|int|string)|can't convert|cannot convert"
)
"""What Python says of mistakes in our code rather than in the user's call."""

CLEAR = (
    TypeError, ValueError, AssertionError, AttributeError, pickle.PicklingError, ray.exceptions.RayError,
    queue.Empty, queue.Full, TimeoutError, StopIteration,
)  # fmt: skip

REFUSED = re.compile("init.*twice|local_mode|[Uu]nknown keyword|already|more than once")
"""What a RuntimeError may say: `init` is called in a session."""


class BoomError(Exception):
    """What odd objects raise."""


def _boom(*_: Any, **__: Any) -> Any:
    raise BoomError("boom")


class EqRaises:
    """Cannot be compared."""

    __eq__ = _boom
    __hash__ = object.__hash__


class HashRaises:
    """Cannot be hashed."""

    __hash__ = _boom  # type: ignore[assignment]


class ReduceRaises:
    """Cannot be pickled."""

    __reduce__ = _boom


class ReduceRecurses:
    """Is pickled as something that holds itself anew, without end."""

    def __reduce__(self) -> Any:
        return (list, ([ReduceRecurses()],))


class LoadRaises:
    """Can be pickled, not unpickled."""

    def __reduce__(self) -> Any:
        return (_boom, ())


class GetattrRaises:
    """Has no attribute that can be asked for."""

    def __getattr__(self, name: str) -> Any:
        raise BoomError("boom")


class GetattrGives:
    """Has every attribute, each like itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return GetattrGives()


class ReprRaises:
    """Cannot be shown."""

    __repr__ = _boom


class ReprRecurses:
    """Is shown without end."""

    def __repr__(self) -> str:
        return repr([self])


class BoolRaises:
    """Is neither true nor false."""

    __bool__ = _boom


class Text(str):
    """A text that is not a str."""


class Number(int):
    """An int that is none."""


class Mapping(dict):  # type: ignore[type-arg]
    """A dict that is none."""


class Items(list):  # type: ignore[type-arg]
    """A list that is none."""


class OddError(Exception):
    """Cannot be made from its arguments."""

    def __init__(self, one: Any, two: Any) -> None:
        super().__init__(one)
        self.two = two


def _holds_itself() -> Iterator[tuple[str, Any]]:
    items: list[Any] = []
    items.append(items)
    yield "a list in itself", items
    mapping: dict[str, Any] = {}
    mapping["a"] = mapping
    yield "a dict in itself", mapping
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    yield "deep lists", deep


VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "10**30": 10**30,
    "-10**30": -(10**30),
    "2**63": 2**63,
    "0.5": 0.5,
    "1e308": 1e308,
    "NaN": math.nan,
    "infinity": math.inf,
    "-infinity": -math.inf,
    "empty text": "",
    "a surrogate": "\ud800",
    "a null": "a\0b",
    "a long text": "x" * 2_000_000,
    "text of line ends": "\r\n\t",
    "{}%s": "{}%s{0.__class__}",
    "b''": b"",
    "many bytes": b"\xff" * 2_000_000,
    "[]": [],
    "()": (),
    "{}": {},
    "{1: 2}": {1: 2},
    "{surrogate: NaN}": {"\ud800": math.nan},
    "{'': -1}": {"": -1},
    "[None]": [None],
    "set()": set(),
    "object()": object(),
    "a class": int,
    "a module": math,
    "a lambda": lambda: None,
    "a lock": threading.Lock(),
    "an iterator": iter([1]),
    "a generator": (each for each in (1, 2)),
    "an error": OddError(1, 2),
    "Text": Text("text"),
    "Number": Number(1),
    "Mapping": Mapping(a=1),
    "Items": Items([1]),
    **{cls.__name__: cls() for cls in (EqRaises, HashRaises, ReduceRaises, ReduceRecurses, LoadRaises, GetattrRaises)},
    **{cls.__name__: cls() for cls in (GetattrGives, ReprRaises, ReprRecurses, BoolRaises)},
    **dict(_holds_itself()),
}


class Calls:
    """Every public call, as functions of the odd value."""

    def __init__(self) -> None:
        @ray.remote
        def one(value: Any = 1, *rest: Any, **named: Any) -> int:
            return 1

        @ray.remote
        def back(value: Any) -> Any:
            return value

        @ray.remote(max_retries=0)
        def fail(value: Any) -> Any:
            raise value

        @ray.remote
        def make(name: str) -> Any:
            return VALUES[name]

        @ray.remote
        class Actor:
            def one(self, value: Any = 1) -> int:
                return 1

        self.queue = Queue(actor_options={"num_cpus": 0})
        self.one, self.back, self.fail, self.actor_class = one, back, fail, Actor
        self.ref = one.remote()
        self.actor = Actor.options(num_cpus=0).remote()
        ray.get([self.ref, self.actor.one.remote()])

    def all(self) -> dict[str, Callable[[Any], Any]]:
        """Return the calls by name."""
        calls: dict[str, Callable[[Any], Any]] = {
            "get(v)": lambda v: ray.get(v, timeout=1),
            "get([v])": lambda v: ray.get([v], timeout=1),
            "get(timeout=v)": lambda v: ray.get(self.ref, timeout=v),
            "get(pending, timeout=v)": lambda v: self._pending_get(v),
            "wait(v)": lambda v: ray.wait(v, timeout=0),
            "wait([v])": lambda v: ray.wait([v], timeout=0),
            "wait(num_returns=v)": lambda v: ray.wait([self.ref], num_returns=v, timeout=0),
            "wait(timeout=v)": lambda v: ray.wait([self.ref], timeout=v),
            "wait(fetch_local=v)": lambda v: ray.wait([self.ref], fetch_local=v),
            "get(put(v))": lambda v: ray.get(ray.put(v), timeout=5),
            "get(put([v]))": lambda v: ray.get(ray.put([v]), timeout=5),
            "cancel(v)": ray.cancel,
            "cancel(force=v)": lambda v: ray.cancel(self.one.remote(), force=v),
            "cancel(recursive=v)": lambda v: ray.cancel(self.one.remote(), recursive=v),
            "kill(v)": ray.kill,
            "kill(no_restart=v)": lambda v: ray.kill(self.actor_class.options(num_cpus=0).remote(), no_restart=v),
            "get_actor(v)": ray.get_actor,
            "get_actor(namespace=v)": lambda v: ray.get_actor("nobody", v),
            "free(v)": ray.free,
            "free([v])": lambda v: ray.free([v]),
            "remote(v)": ray.remote,
            "method(v)": ray.method,
            "f.remote(v)": lambda v: ray.get(self.one.remote(v), timeout=5),
            "f.remote(k=v)": lambda v: ray.get(self.one.remote(k=v), timeout=5),
            "f.remote([v])": lambda v: ray.get(self.back.remote([v]), timeout=5),
            "f.remote(put(v))": lambda v: ray.get(self.one.remote(ray.put(v)), timeout=5),
            "return v": lambda v: ray.get(self.back.remote(v), timeout=5),
            "raise v": lambda v: ray.get(self.fail.remote(v), timeout=5),
            "f of a closure": self._closure,
            "a.m.remote(v)": lambda v: ray.get(self.actor.one.remote(v), timeout=5),
            "hasattr(a, v)": lambda v: hasattr(self.actor, v),
            "ObjectRef(v)": ray.ObjectRef,
            "ObjectRef.from_hex(v)": ray.ObjectRef.from_hex,
            "JobID(v)": ray.JobID,
            "TaskID.from_hex(v)": ray.TaskID.from_hex,
            "progress": lambda v: ray.get([self.ref], progress=v),
        }
        for option in TASK:
            calls[f"f.options({option}=v)"] = lambda v, option=option: self._task_with(option, v)
            calls[f"remote({option}=v)(f)"] = lambda v, option=option: ray.remote(**{option: v})(_plain)
        for option in ACTOR:
            calls[f"A.options({option}=v)"] = lambda v, option=option: self._actor_with(option, v)
            calls[f"remote({option}=v)(A)"] = lambda v, option=option: ray.remote(**{option: v})(_Plain)
        for option in METHOD_CALL:
            calls[f"a.m.options({option}=v)"] = lambda v, option=option: self._call_with(option, v)
        for option in inspect.signature(ray.init).parameters:
            # What is wrong with an argument is said before it is said that there is a session already.
            calls[f"init({option}=v)"] = lambda v, option=option: ray.init(**{option: v})
        return {**calls, **self._utilities()}

    def _utilities(self) -> dict[str, Callable[[Any], Any]]:
        """Return the calls of what `rabbitry.util` and others offer."""
        actor, one = self.actor, self.one
        affinity = NodeAffinitySchedulingStrategy
        here = ray.get_runtime_context().get_node_id()
        return {
            "ActorPool(v)": lambda v: ActorPool(v).has_next(),
            "ActorPool([v])": lambda v: ActorPool([v]).has_next(),
            "ActorPool.push(v)": lambda v: ActorPool([actor]).push(v),
            "ActorPool.submit(v)": lambda v: self._pool(lambda pool: pool.submit(v, 1)),
            "ActorPool.submit(value=v)": lambda v: self._pool(
                lambda pool: (pool.submit(lambda actor, value: actor.one.remote(value), v), pool.get_next(timeout=5))
            ),
            "ActorPool.get_next(timeout=v)": lambda v: self._pool(
                lambda pool: (pool.submit(lambda actor, value: actor.one.remote(value), 1), pool.get_next(timeout=v))
            ),
            "Queue.put(v)": lambda v: self.queue.put(v, timeout=5),
            "Queue.put(timeout=v)": lambda v: self.queue.put(1, timeout=v),
            "Queue.put(block=v)": lambda v: self.queue.put(1, block=v, timeout=0.1),
            "Queue.put_nowait_batch(v)": lambda v: self.queue.put_nowait_batch(v),
            "Queue.get_nowait_batch(v)": lambda v: self.queue.get_nowait_batch(v),
            "NodeAffinity(node_id=v)": lambda v: ray.cancel(
                one.options(scheduling_strategy=affinity(node_id=v, soft=True)).remote()
            ),
            "NodeAffinity(soft=v)": lambda v: ray.cancel(
                one.options(scheduling_strategy=affinity(node_id=here, soft=v)).remote()
            ),
            "list_named_actors(v)": util.list_named_actors,
            "register_serializer(v)": lambda v: util.register_serializer(
                v, serializer=lambda each: each, deserializer=lambda each: each
            ),
            "register_serializer(serializer=v)": lambda v: util.register_serializer(
                _Plain, serializer=v, deserializer=lambda each: each
            ),
            "deregister_serializer(v)": util.deregister_serializer,
            "inspect_serializability(v)": lambda v: util.inspect_serializability(v, print_file=io.StringIO()),
            "map_unordered(v)": lambda v: list(itertools.islice(util.map_unordered(one, v), 100)),
            "as_completed(v)": lambda v: list(util.as_completed(v)),
            "kv_put(v)": lambda v: internal_kv._internal_kv_put(v, b"1"),
            "kv_put(value=v)": lambda v: internal_kv._internal_kv_put(b"k", v),
            "kv_get(v)": internal_kv._internal_kv_get,
            "kv_get(namespace=v)": lambda v: internal_kv._internal_kv_get(b"k", namespace=v),
            "kv_list(v)": internal_kv._internal_kv_list,
            "object_locations(v)": get_object_locations,
            "placement_group(v)": lambda v: self._group(v),
            "placement_group([v])": lambda v: self._group([v]),
            "placement_group(strategy=v)": lambda v: self._group([{"CPU": 0.1}], strategy=v),
            "placement_group(name=v)": lambda v: self._group([{"CPU": 0.1}], name=v),
            "remove_placement_group(v)": util.remove_placement_group,
            "get_placement_group(v)": util.get_placement_group,
            "placement_group_table(v)": util.placement_group_table,
        }

    def _pool(self, action: Callable[[ActorPool], Any]) -> Any:
        return action(ActorPool([self.actor]))

    @staticmethod
    def _group(*args: Any, **options: Any) -> None:
        util.remove_placement_group(util.placement_group(*args, **options))

    def _pending_get(self, value: Any) -> None:
        """Only what ends a wait soon can be tried."""
        if value is not None and not (isinstance(value, (int, float)) and value > 1):
            ray.get(self.one.remote(), timeout=value)

    def _closure(self, value: Any) -> Any:
        @ray.remote
        def uses() -> int:
            return 1 if value is None else 2

        return ray.get(uses.remote(), timeout=5)

    def _task_with(self, option: str, value: Any) -> None:
        # It may ask for what no node has: so it is not waited for.
        refs = self.one.options(**{option: value}).remote()
        if isinstance(refs, (ray.ObjectRef, ray.ObjectRefGenerator)):
            ray.cancel(refs)
        elif isinstance(refs, list):
            for ref in refs[:1]:
                ray.cancel(ref)

    def _actor_with(self, option: str, value: Any) -> None:
        actor = self.actor_class.options(**{option: value}).remote()
        actor.one.remote()
        ray.kill(actor)

    def _call_with(self, option: str, value: Any) -> None:
        self.actor.one.options(**{option: value}).remote()


def _plain() -> None:
    """A function."""


class _Plain:
    """A class."""


def complaint(error: BaseException) -> str:
    """Return what is wrong with an error; "" if it is clear, or the odd object's own."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and len(chain) < 10:
        chain.append(at)
        at = at.__cause__ or at.__context__
    if any(isinstance(each, (BoomError, OddError)) for each in chain):
        return ""
    try:
        text = str(error)
    except BaseException as failure:
        return f"its text cannot be had: {type(failure).__name__}"
    if isinstance(error, RuntimeError) and REFUSED.search(text):
        return ""
    if not isinstance(error, CLEAR):
        return f"not an error of ours: {type(error).__name__}: {text[:300]}"
    if isinstance(error, UnicodeError) or (UNCLEAR.search(text.splitlines()[0] if text else "")):
        return f"it tells of our code: {type(error).__name__}: {text[:300]}"
    if not text.strip():
        return f"it says nothing: {type(error).__name__}"
    if len(text) > 20_000:
        return f"it says too much: {len(text)} characters"
    return ""


def ordinary_work(calls: Calls) -> str:
    """Return what is wrong with 100 ordinary tasks; "" if nothing."""
    try:
        results = ray.get(
            [calls.back.options(scheduling_strategy="SPREAD").remote(at) for at in range(100)], timeout=30
        )
    except BaseException as error:
        return f"ordinary tasks fail: {type(error).__name__}: {error}"
    return "" if results == list(range(100)) else f"ordinary tasks return {results}"


def main(engine: str, only: str = "") -> int:
    """Try everything; return the exit code."""
    warnings.simplefilter("ignore")
    where: dict[str, Any] = {"num_cpus": 2} if engine == "embedded" else {"address": engine}
    ray.init(**where, log_to_driver=False, logging_level=50)
    wrong = 0

    def tell(what: str, why: str, trace: str = "") -> None:
        nonlocal wrong
        wrong += 1
        print(json.dumps({"what": what, "why": why, "trace": trace}), flush=True)

    calls = Calls()
    count = 0
    for call, action in calls.all().items():
        if only and only not in call:
            continue
        for name, value in VALUES.items():
            count += 1
            print(f"{call}, {name}", file=sys.stderr, flush=True)
            faulthandler.dump_traceback_later(3 * LIMIT, exit=True)
            began = time.monotonic()
            try:
                result = action(value)
                if asyncio.iscoroutine(result):
                    result.close()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                why = complaint(error)
                if why:
                    frames = traceback.extract_tb(error.__traceback__)
                    tell(f"{call}, {name}", why, " < ".join(f"{f.filename[-40:]}:{f.lineno}" for f in frames[-4:]))
            if time.monotonic() - began > LIMIT:
                tell(f"{call}, {name}", f"it took {time.monotonic() - began:.1f} s")
        faulthandler.dump_traceback_later(60, exit=True)
        why = ordinary_work(calls)
        if why:
            tell(f"after {call}", why)
            break
    faulthandler.dump_traceback_later(60, exit=True)
    print(json.dumps({"tried": count, "wrong": wrong}), flush=True)
    ray.shutdown()
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
