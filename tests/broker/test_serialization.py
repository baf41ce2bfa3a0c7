"""Values come back equal, of the same type and the same shape, and what cannot be sent is named."""

from __future__ import annotations

import copyreg
import datetime
import decimal
import functools
import gc
import io
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitry_broker import serialization
from rabbitry_broker.pickling import (
    deregister_serializer,
    note_ref,
    refs_noted,
    register_ref_class,
    register_serializer,
)
from rabbitry_broker.recursion import FACTOR, deeper_recursion
from rabbitry_broker.serialization import (
    IN_BAND_BYTES,
    LARGE_BYTES,
    OUT_OF_BAND_BYTES,
    PACKED_NONE,
    Packed,
    UnpickleError,
    pack,
    pack_in_band,
    unpack,
)

LOCK = threading.Lock()


def there_and_back(value: Any) -> Any:
    """Return the value that another process would read: its buffers are copies, and read-only."""
    packed = pack(value)
    assert type(packed.data) is bytes
    return unpack(packed.data, [memoryview(bytes(buffer)) for buffer in packed.buffers])


def run_script(directory: Path, source: str, *arguments: str) -> str:
    """Run a program of its own, so that what it defines is in `__main__`; return what it printed."""
    script = directory / "script.py"
    script.write_text(textwrap.dedent(source))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def load_elsewhere(directory: Path, file: Path, expression: str) -> str:
    """Unpack `file` in a process that knows nothing of the writer; return the repr of an expression of `value`."""
    return run_script(
        directory,
        f"""
        import sys
        from rabbitry_broker.serialization import unpack
        value = unpack(open(sys.argv[1], "rb").read())
        print(repr(({expression})))
        """,
        str(file),
    )


# -- plain data ------------------------------------------------------------------------------------------------------

HASHABLE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), st.binary(max_size=20)
)
PLAIN = st.recursive(
    HASHABLE | st.builds(bytearray, st.binary(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=40),
        st.lists(inner, max_size=6).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=6),
        st.sets(HASHABLE, max_size=6),
        st.frozensets(HASHABLE, max_size=6),
    ),
    max_leaves=60,
)


def typed(value: Any) -> Any:
    """Return something that differs where values are equal but types are not (1, 1.0 and True; -0.0 and 0.0)."""
    if isinstance(value, (list, tuple)):
        return (type(value), [typed(each) for each in value])
    if isinstance(value, dict):
        return (dict, [(typed(key), typed(each)) for key, each in value.items()])
    if isinstance(value, (set, frozenset)):
        return (type(value), sorted(repr(each) for each in value))
    return (type(value), repr(value))


@given(PLAIN)
def test_nested_containers_come_back_as_they_were(value: Any) -> None:
    assert typed(there_and_back(value)) == typed(value)


@given(st.lists(PLAIN, max_size=5).map(tuple), st.dictionaries(st.text(max_size=8), PLAIN, max_size=5))
def test_arguments_of_calls_come_back_as_they_were(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert typed(there_and_back((args, kwargs))) == typed((args, kwargs))


@pytest.mark.parametrize(
    "value",
    [
        *(10**400, -(2**70), 1.5, float("inf"), complex(1, 2), "\ud800 lone surrogate", b"", "", (), [], {}, set()),
        *(datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), decimal.Decimal("1.10"), range(5), slice(1, 2)),
        *(Counter("aab"), OrderedDict(b=1, a=2), deque([1, 2], maxlen=3), defaultdict(list, {"a": [1]}), Path("/tmp")),
        *(int, len, os.path.join, Enum, ValueError("x").args, type(None), NotImplemented, ...),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:20]!a}",
)
def test_what_the_standard_library_has(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)


def test_none_is_packed_once_and_for_all() -> None:
    assert pack(None) is PACKED_NONE
    assert unpack(PACKED_NONE.data) is None


def test_objects_that_occur_twice_are_one_object_again() -> None:
    shared = ["x"]
    one, two, three = there_and_back([shared, {"again": shared}, (shared,)])
    assert one is two["again"] is three[0]


def test_circles_come_back_as_circles() -> None:
    circle: list[Any] = [1]
    circle.append({"self": circle})
    back = there_and_back(circle)
    assert back[1]["self"] is back


def test_nbytes_counts_stream_and_buffers() -> None:
    packed = pack(bytes(LARGE_BYTES))
    assert packed.nbytes == len(packed.data) + LARGE_BYTES


# -- large bytes -----------------------------------------------------------------------------------------------------


def nested(value: Any) -> dict[str, Any]:
    class Holder:
        def __init__(self) -> None:
            self.inside = [value]

    return {"a": [1, ({"deep": value},), Holder()]}


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("where", ["alone", "argument", "nested"])
@pytest.mark.parametrize("extra", [0, 1, 100_000])
def test_large_bytes_travel_out_of_band_without_a_copy(kind: type, where: str, extra: int) -> None:
    content = kind(b"\x95" + os.urandom(LARGE_BYTES + extra))  # begins as pickle's own frames do
    value = {"alone": content, "argument": ((content,), {}), "nested": nested(content)}[where]
    packed = pack(value)
    (buffer,) = packed.buffers
    assert buffer.obj is content
    assert len(packed.data) < 4000
    back = unpack(packed.data, [memoryview(bytes(buffer)).toreadonly()])
    if where == "argument":
        back = back[0][0]
    elif where == "nested":
        assert back["a"][1][0]["deep"] is back["a"][2].inside[0]
        back = back["a"][1][0]["deep"]
    assert type(back) is kind
    assert back == content


def test_smaller_bytes_stay_in_the_stream() -> None:
    for kind in (bytes, bytearray):
        packed = pack([kind(LARGE_BYTES - 1)])
        assert not packed.buffers
        assert unpack(packed.data) == [kind(LARGE_BYTES - 1)]


def test_large_memoryviews_come_back_as_bytes() -> None:
    content = os.urandom(LARGE_BYTES)
    packed = pack([memoryview(content)])
    assert len(packed.buffers) == 1
    assert unpack(packed.data, packed.buffers) == [content]


def test_a_bytearray_that_came_back_can_be_changed() -> None:
    back = there_and_back(bytearray(LARGE_BYTES))
    back[0] = 1
    back.append(2)
    assert len(back) == LARGE_BYTES + 1


def looks_like_a_header(size: int) -> bytes:
    """Return bytes that end like the header of bytes of that size in a pickle stream."""
    return b"x" * 20 + pickle.BINBYTES + size.to_bytes(4, "little")


SIZES = st.sampled_from([0, 10, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 9, LARGE_BYTES + 300])
BLOBS = st.one_of(
    st.builds(lambda size, fill: bytes([fill]) * size, SIZES, st.sampled_from([0, 0x42, 0x80, 0x8E, 0x95, 0x96])),
    st.builds(lambda size: bytearray(b"\x95" * size), SIZES),
    st.builds(lambda size, letter: letter * size, SIZES, st.sampled_from("B\x8e\u20ac")),
    st.builds(looks_like_a_header, SIZES),
    st.builds(lambda size: looks_like_a_header(size).decode("latin-1"), SIZES),
    st.builds(lambda size: pickle.dumps(bytes(size)), SIZES),
    st.builds(lambda count: list(range(count)), st.sampled_from([0, 20_000, 40_000])),
    st.integers().map(lambda number: number * 256**70_000),
)


@given(st.lists(BLOBS, max_size=8))
@settings(max_examples=60, deadline=None)
def test_streams_full_of_lookalikes_come_back_as_they_were(blobs: list[Any]) -> None:
    value = [blobs, dict(enumerate(blobs))]
    packed = pack(value)
    sizes = [len(each) for each in blobs if type(each) in (bytes, bytearray) and len(each) >= LARGE_BYTES]
    assert len(packed.buffers) <= len(sizes)
    back = unpack(packed.data, [memoryview(bytes(buffer)) for buffer in packed.buffers])
    assert back == value
    assert [type(each) for each in back[0]] == [type(each) for each in blobs]
    assert unpack(pack_in_band(value).data) == value


# -- arrays ----------------------------------------------------------------------------------------------------------

np = pytest.importorskip("numpy")


def arrays() -> Iterator[Any]:
    yield np.arange(10)
    yield np.arange(100_000.0)
    yield np.asfortranarray(np.arange(40_000.0).reshape(200, 200))
    yield np.arange(80_000.0).reshape(200, 400)[::2, ::3]  # not contiguous
    yield np.arange(20_000)[::-1]
    yield np.array(5)
    yield np.zeros((0, 3))
    yield np.array([{"a": 1}, None, "x"], dtype=object)
    yield np.array([("a", 1.0)] * 3000, dtype=[("name", "U8"), ("value", "f8")])
    yield np.arange("2024-01-01", "2024-03-01", dtype="datetime64[D]")
    yield np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])
    yield np.array(["a", "bb"])
    yield np.float64(1.5)
    yield np.datetime64("2024-01-01")
    yield np.dtype("f4")
    yield np.random.default_rng(3).bit_generator.state


@pytest.mark.parametrize("value", [*arrays()], ids=lambda value: type(value).__name__)
def test_arrays_come_back_as_they_were(value: Any) -> None:
    for back in (there_and_back(value), there_and_back(((value,), {"k": [value]}))[1]["k"][0]):
        assert type(back) is type(value)
        np.testing.assert_equal(back, value)
        if isinstance(value, np.ndarray):
            assert back.dtype == value.dtype
            assert back.shape == value.shape


def test_a_large_array_is_neither_copied_nor_writable() -> None:
    array = np.arange(100_000)
    packed = pack([array])
    (buffer,) = packed.buffers
    assert np.shares_memory(np.frombuffer(buffer, dtype=array.dtype), array)
    place = memoryview(bytes(buffer)).toreadonly()
    (back,) = unpack(packed.data, [place])
    assert np.shares_memory(np.frombuffer(place, dtype=array.dtype), back)
    assert not back.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3),
        np.zeros(0),
        np.array("text"),
        np.arange(6).reshape(2, 3).T,
        np.zeros(2, [("a", "i4"), ("b", "f8")]),
    ],
    ids=["numbers", "empty", "scalar", "fortran", "structured"],
)
def test_a_small_array_is_not_writable_either(array: Any) -> None:
    packed = pack([array, array])
    assert not packed.buffers
    first, second = unpack(packed.data)
    np.testing.assert_array_equal(first, array)
    assert not first.flags.writeable
    assert first is second
    assert array.flags.writeable, "the caller's own is as it was"
    # The state of an actor, which its next process goes on with.
    assert unpack(pack_in_band(array).data).flags.writeable


def test_a_value_that_fits_into_one_record_has_no_buffers() -> None:
    assert not pack(np.zeros(IN_BAND_BYTES, "u1")).buffers
    assert not pack([np.zeros(OUT_OF_BAND_BYTES, "u1") for _ in range(IN_BAND_BYTES // OUT_OF_BAND_BYTES)]).buffers
    assert len(pack(np.zeros(IN_BAND_BYTES + 1, "u1")).buffers) == 1


def test_each_value_has_its_whole_room_in_the_stream() -> None:
    for _ in range(20):  # through the same pickler
        assert not pack(np.zeros(IN_BAND_BYTES, "u1")).buffers
        assert len(pack([np.zeros(IN_BAND_BYTES, "u1"), np.zeros(OUT_OF_BAND_BYTES, "u1")]).buffers) == 1


def test_many_small_arrays_are_one_stream() -> None:
    value = [np.full(OUT_OF_BAND_BYTES - 1, at, "u1") for at in range(100)]
    packed = pack(value)
    assert not packed.buffers
    np.testing.assert_equal(unpack(packed.data), value)


def test_arrays_and_bytes_keep_their_order_out_of_band() -> None:
    value = [
        each for at in range(6) for each in (np.full(70_000, at, "u1"), bytes([at]) * 70_000, bytearray([at] * 70_000))
    ]
    packed = pack(value)
    assert len(packed.buffers) == len(value)
    np.testing.assert_equal(there_and_back(value), value)


def test_pandas_frames_come_back_as_they_were() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"n": np.arange(20_000.0), "text": ["x", "y"] * 10_000, "when": pandas.date_range("2024", periods=20_000)}
    )
    packed = pack(frame)
    assert packed.buffers
    pandas.testing.assert_frame_equal(there_and_back(frame), frame)
    pandas.testing.assert_series_equal(there_and_back({"s": frame["text"]})["s"], frame["text"])


def test_arrow_tables_come_back_without_copies() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"n": np.arange(50_000), "text": ["word"] * 50_000})
    packed = pack(table)
    assert sum(buffer.nbytes for buffer in packed.buffers) > 0.9 * table.nbytes
    assert there_and_back(table).equals(table)


# -- refs ------------------------------------------------------------------------------------------------------------


class Ref:
    def __init__(self, name: bytes) -> None:
        self.name = name
        self.seen: bool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        self.seen = note_ref(self.name)
        return Ref, (self.name,)


def test_refs_inside_are_named_in_order_and_once() -> None:
    a, b, c = Ref(b"a"), Ref(b"b"), Ref(b"c")
    packed = pack(((b, [a, {"c": c}]), {"k": Ref(b"b")}))
    assert packed.refs == (b"b", b"a", b"c")
    assert pack((1, 2)).refs == ()
    assert pack_in_band([c, a]).refs == (b"c", b"a")


def test_refs_in_closures_and_globals_are_named() -> None:
    captured = Ref(b"captured")
    assert pack(lambda: captured).refs == (b"captured",)


def test_a_ref_knows_that_nobody_follows_it() -> None:
    ref = Ref(b"a")
    pickle.dumps(ref)
    assert ref.seen is False
    pack([ref])
    assert ref.seen is True
    with refs_noted() as refs:
        cloudpickle.dumps([ref, Ref(b"b")])
    assert list(refs) == [b"a", b"b"]
    pickle.dumps(ref)
    assert ref.seen is False


def test_a_pack_inside_of_another_has_refs_of_its_own() -> None:
    class Packs:
        inner: Packed

        def __reduce__(self) -> tuple[Any, ...]:
            self.inner = pack([Ref(b"inner"), b"x" * LARGE_BYTES])
            return str, ("packed",)

    packs = Packs()
    packed = pack([Ref(b"before"), packs, Ref(b"after")])
    assert packed.refs == (b"before", b"after")
    assert packs.inner.refs == (b"inner",)
    back = unpack(packed.data)
    assert (back[0].name, back[1], back[2].name) == (b"before", "packed", b"after")


def test_a_failed_pack_leaves_nothing_behind() -> None:
    ref = Ref(b"a")
    with pytest.raises(TypeError):
        pack([ref, LOCK])
    pickle.dumps(ref)
    assert ref.seen is False
    assert pack([1, Ref(b"b")]).refs == (b"b",)
    assert there_and_back([[1], "x"]) == [[1], "x"]


def test_threads_do_not_see_each_others_refs() -> None:
    wrong: list[object] = []

    def work(name: bytes) -> None:
        for turn in range(300):
            value = [Ref(name), turn, [name] * (turn % 40), {"k": name * turn}]
            packed = pack(value)
            back = unpack(packed.data)
            if packed.refs != (name,) or back[1:] != value[1:] or back[0].name != name:
                wrong.append((name, turn))

    threads = [threading.Thread(target=work, args=(bytes([65 + at]),)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_a_registered_ref_class_is_reduced_and_noted() -> None:
    class Handle(Ref):
        def __reduce__(self) -> tuple[Any, ...]:
            note_ref(self.name)
            return bytes, (self.name,)

    register_ref_class(Handle)
    try:
        packed = pack([Handle(b"h")])
    finally:
        deregister_serializer(Handle)
    assert packed.refs == (b"h",)
    assert unpack(packed.data) == [b"h"]


def test_what_was_packed_is_not_kept_alive() -> None:
    class Thing:
        pass

    for wrap in (lambda thing: thing, lambda thing: [thing]):
        thing = Thing()
        gone = weakref.ref(thing)
        pack(wrap(thing))
        del thing
        gc.collect()
        assert gone() is None


# -- code ------------------------------------------------------------------------------------------------------------


def test_what_main_defines_travels_by_value(tmp_path: Path) -> None:
    file = tmp_path / "value.pickle"
    run_script(
        tmp_path,
        """
        import dataclasses, enum, sys, typing
        from collections import namedtuple
        from rabbitry_broker.serialization import pack

        FACTOR = 3

        def triple(x): return x * FACTOR

        @dataclasses.dataclass
        class Point:
            x: int
            y: "int" = 2
            def scaled(self): return triple(self.x)

        class Color(enum.Enum):
            RED = 1

        Pair = namedtuple("Pair", "a b")

        value = {
            "f": triple, "p": Point(5), "lambda": lambda x: triple(x) + 1, "color": Color.RED,
            "pair": Pair(1, 2), "class": Point,
        }
        packed = pack(((value["f"],), {}))
        assert b"FACTOR" in packed.data, "a function of __main__ by reference"
        open(sys.argv[1], "wb").write(pack(value).data)
        """,
        str(file),
    )
    assert load_elsewhere(tmp_path, file, "value['f'](2), value['lambda'](2), value['p'].scaled()") == "(6, 7, 15)"
    assert (
        load_elsewhere(tmp_path, file, "value['pair'].b, value['color'].name, value['class'](1).y") == "(2, 'RED', 2)"
    )


def test_local_functions_and_classes_travel_by_value() -> None:
    offset = 10

    class Adder:
        def __call__(self, x: int) -> int:
            return x + offset

    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    adder, function = there_and_back([Adder(), factorial])
    assert adder(1) == 11
    assert function(5) == 120
    assert function is not factorial


def test_modules_travel_by_name_unless_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_the_script.py").write_text("def f(x):\n    return x + 1\n\nclass C:\n    y = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import beside_the_script as module  # type: ignore[import-not-found]

    try:
        by_name = pack([module.f, module.C()]).data
        cloudpickle.register_pickle_by_value(module)
        try:
            by_value = pack([module.f, module.C()]).data
        finally:
            cloudpickle.unregister_pickle_by_value(module)
        assert pack([module.f, module.C()]).data == by_name
    finally:
        del sys.modules["beside_the_script"]
    assert unpack(by_name)[0](1) == 2
    monkeypatch.undo()
    sys.modules.pop("beside_the_script", None)
    function, instance = unpack(by_value)
    assert function(1) == 2
    assert instance.y == 5
    with pytest.raises(UnpickleError) as caught:
        unpack(by_name)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert "'beside_the_script'" in str(caught.value)
    assert '"working_dir": "auto"' in str(caught.value)


def test_functions_share_their_globals_within_a_value_only() -> None:
    # cloudpickle remembers the globals of a function for the rest of a dump: a pickler must not carry that on.
    for turn in range(5):
        scope: dict[str, Any] = {"__name__": "__main__", "seen": turn}
        exec("def get(): return seen\ndef put(x):\n    global seen\n    seen = x", scope)
        get, put = there_and_back([scope["get"], scope["put"]])
        assert get() == turn
        put("changed")
        assert get() == "changed"


def test_an_instance_of_a_subclass_of_a_builtin_is_not_taken_for_it() -> None:
    class Text(str):
        __slots__ = ("extra",)

    class Number(int):
        pass

    Pair = namedtuple("Pair", "a b")  # type: ignore[name-match]
    Pair.__module__ = "__main__"
    text = Text("x")
    text.extra = 5
    back = there_and_back([text, Number(3), Pair(1, {})])
    assert (back[0].extra, back[1] + 1, back[2].a) == (5, 4, 1)
    assert type(there_and_back(Number(3))).__name__ == "Number"
    assert there_and_back(Pair((1,), {}))._fields == ("a", "b")


# -- serializers of the user's own -----------------------------------------------------------------------------------


class Holder:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.lock = threading.Lock()


@pytest.fixture
def holder_serializer() -> Iterator[None]:
    register_serializer(
        Holder, serializer=lambda holder: {"v": holder.value}, deserializer=lambda data: Holder(data["v"])
    )
    yield
    deregister_serializer(Holder)


@pytest.mark.usefixtures("holder_serializer")
def test_a_registered_serializer_is_used_at_any_depth() -> None:
    back = there_and_back({"a": [Holder(5), (Holder([1]),)]})
    assert back["a"][0].value == 5
    assert back["a"][1][0].value == [1]
    assert there_and_back(Holder("alone")).value == "alone"


@pytest.mark.usefixtures("holder_serializer")
def test_it_is_for_the_class_itself_alone() -> None:
    class Special(Holder):
        pass

    with pytest.raises(TypeError, match=r"lock"):
        pack(Special(1))


@pytest.mark.usefixtures("holder_serializer")
def test_what_a_serializer_returns_may_hold_large_things_and_refs() -> None:
    packed = pack(Holder([np.zeros(100_000), Ref(b"r")]))
    assert packed.refs == (b"r",)
    assert len(packed.buffers) == 1
    assert unpack(packed.data, packed.buffers).value[0].shape == (100_000,)


def test_the_deserializer_travels_along(tmp_path: Path) -> None:
    file = tmp_path / "value.pickle"
    run_script(
        tmp_path,
        """
        import sys, threading
        from rabbitry_broker.pickling import register_serializer
        from rabbitry_broker.serialization import pack

        class Connection:
            def __init__(self, address):
                self.address, self.lock = address, threading.Lock()

        register_serializer(Connection, serializer=lambda c: c.address, deserializer=lambda a: Connection(a + "!"))
        open(sys.argv[1], "wb").write(pack([Connection("here")]).data)
        """,
        str(file),
    )
    assert load_elsewhere(tmp_path, file, "value[0].address, value[0].lock.locked()") == "('here!', False)"


def test_after_deregistering_it_is_as_before() -> None:
    register_serializer(Holder, serializer=lambda holder: 1, deserializer=lambda data: data)
    deregister_serializer(Holder)
    deregister_serializer(Holder)
    with pytest.raises(TypeError, match=r"lock"):
        pack(Holder(1))


def test_a_class_of_cloudpickles_own_table_is_given_back_to_it() -> None:
    register_serializer(property, serializer=lambda p: "sent", deserializer=lambda data: data)
    try:
        assert there_and_back(property(len)) == "sent"
    finally:
        deregister_serializer(property)
    assert there_and_back(property(len)).fget is len


@pytest.mark.parametrize(
    ("cls", "serializer", "deserializer"), [(Holder(1), len, len), (Holder, 5, len), (Holder, len, None)]
)
def test_a_serializer_that_cannot_be_one_is_refused(cls: Any, serializer: Any, deserializer: Any) -> None:
    with pytest.raises(TypeError):
        register_serializer(cls, serializer=serializer, deserializer=deserializer)
    with pytest.raises(TypeError, match=r"lock"):
        pack(Holder(1))


def test_copyreg_is_respected_at_any_time() -> None:
    class Late:
        pass

    pack(Late())
    copyreg.pickle(Late, lambda late: (str, ("late",)))  # type: ignore[arg-type, return-value]
    try:
        assert there_and_back([Late()]) == ["late"]
    finally:
        del copyreg.dispatch_table[Late]


# -- what cannot be sent ---------------------------------------------------------------------------------------------


class Config:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def method(self) -> None:
        pass


class Slotted:
    __slots__ = ("handle", "name")

    def __init__(self, handle: Any) -> None:
        self.name = "x"
        self.handle = handle


def uses_a_global() -> Any:
    return LOCK


uses_a_global.__module__ = "__main__"  # as if the program defined it


def with_closure() -> Callable[[], Any]:
    config = Config(lock=LOCK)
    return lambda: config


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "value: cannot pickle '_thread.lock' object"),
        (((1, {"cfg": Config(lock=LOCK)}), {}), "args[1]['cfg'].lock: cannot pickle '_thread.lock' object"),
        (((), {"config": [0, LOCK]}), "config[1]: "),
        ({"a": [1, (2, LOCK)]}, "value['a'][1][1]: "),
        (Config(inner=Config(lock=LOCK), fine=1), "value.inner.lock: "),
        (Slotted(LOCK), "value.handle: "),
        (functools.partial(print, LOCK), "[0]: "),
        (Config(lock=LOCK).method, "value.__self__.lock: "),
        (with_closure(), "value.<closure config>.lock: "),
        (lambda x, lock=LOCK: x, "value.<default lock>: "),
        (uses_a_global, "value.<global LOCK>: "),
        (lambda: [uses_a_global() for _ in range(2)], "value.<global uses_a_global>.<global LOCK>: "),
        (deque([1, LOCK]), "value[1]: "),
        (defaultdict(list, a=LOCK), "value['a']: "),
        ({"x": io.StringIO, "y": (each for each in "ab")}, "value['y']: "),
        ([sys._getframe()], "value[0]: "),
        ([np.array([None, LOCK], dtype=object)], "value[0]"),
    ],
)
def test_the_message_names_the_path_to_the_culprit(value: Any, path: str) -> None:
    with pytest.raises(TypeError) as caught:
        pack(value)
    assert path in str(caught.value)
    assert "register_serializer" in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)


def test_attributes_that_are_left_out_are_not_blamed() -> None:
    class Careful:
        def __init__(self) -> None:
            self.lock, self.bad = LOCK, [LOCK]

        def __getstate__(self) -> dict[str, Any]:
            return {"bad": self.bad}

    with pytest.raises(TypeError, match=r"serialize value\.bad\[0\]: [^;]*$"):
        pack(Careful())


def test_other_errors_stay_what_they_are() -> None:
    class Broken:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def __getstate__(self) -> object:
            raise self.error

    for error in (ValueError("no state"), pickle.PicklingError("no"), RuntimeError("x"), KeyError("k")):
        with pytest.raises(type(error)) as caught:
            pack({"a": Broken(error)})
        assert caught.value is error
        if sys.version_info >= (3, 11):
            assert any("value['a']" in note for note in error.__notes__)


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: {"a": x}, lambda x: (x,)], ids=["list", "dict", "tuple"])
def test_values_as_deep_as_the_limit_of_recursion_come_back(wrap: Callable[[Any], Any]) -> None:
    limit = sys.getrecursionlimit()
    array = numpy.arange(100_000)
    value: Any = [Ref(b"ref"), array, b"x" * LARGE_BYTES]
    for _ in range(limit):
        value = wrap(value)
    for packed in (pack(value), pack_in_band(value)):
        assert packed.refs == (b"ref",)
        back = unpack(packed.data, packed.buffers)
        for _ in range(limit):
            back = back["a"] if isinstance(back, dict) else back[0]
        assert (back[1] == array).all()
        assert back[2] == b"x" * LARGE_BYTES
    assert sys.getrecursionlimit() == limit
    assert pack([1, [2]]).refs == ()


def test_the_limit_is_raised_while_any_thread_needs_it() -> None:
    limit = sys.getrecursionlimit()
    with deeper_recursion():
        with deeper_recursion():
            assert sys.getrecursionlimit() == FACTOR * limit
        assert sys.getrecursionlimit() == FACTOR * limit
    assert sys.getrecursionlimit() == limit


class Asking:
    """Like the State of FastAPI applications."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def __getattr__(self, name: str) -> Any:
        try:
            return self._state[name]
        except KeyError:
            raise AttributeError(name) from None


class AskingWithSlots(Asking):
    __slots__ = ("extra",)


class AskingList(list[Any]):
    def __getattr__(self, name: str) -> Any:
        try:
            return self.state[name]
        except KeyError:  # Python 3.10 asks for `__getstate__`, which it does not have itself
            raise AttributeError(name) from None


class AskingWithItsOwnWay(Asking):
    def __getstate__(self) -> dict[str, Any]:
        return {"kept": self._state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._state = {"restored": state["kept"]}


def test_instances_that_look_up_attributes_in_an_attribute_come_back() -> None:
    slotted = AskingWithSlots({"a": 1})
    slotted.extra = 5
    listed = AskingList([1, 2])
    listed.state = {"b": 3}
    own = AskingWithItsOwnWay({"c": 4})
    packed = pack([Asking({"a": 1}), slotted, listed, own])
    plain, slotted, listed, own = unpack(packed.data, packed.buffers)
    assert plain.a == 1
    assert (slotted.a, slotted.extra) == (1, 5)
    assert (list(listed), listed.b) == ([1, 2], 3)
    assert own.restored == {"c": 4}


def test_too_deep_nesting_is_a_pickling_error() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(pickle.PicklingError, match="deep"):
        pack(deep)
    while deep:  # freeing it all at once would overflow the C stack of some versions
        (deep,) = deep or [[]]


def test_circles_are_searched_once() -> None:
    nodes = [Config(at=at) for at in range(60)]
    for node in nodes:
        node.others = nodes
    nodes[40].lock = LOCK
    with pytest.raises(TypeError, match=r"\.lock: cannot pickle"):
        pack(nodes)


def test_a_part_that_fails_twice_is_named_once() -> None:
    holder = [LOCK]
    with pytest.raises(TypeError) as caught:
        pack([holder, holder, LOCK])
    assert str(caught.value).count("_thread.lock") == 1


def test_what_fails_without_a_culprit_is_named_itself() -> None:
    class Fickle:
        calls = 0

        def __reduce__(self) -> tuple[Any, ...]:
            Fickle.calls += 1
            if Fickle.calls == 1:
                raise TypeError("not the first time")
            return str, ()

    with pytest.raises(TypeError, match=r"serialize value: not the first time"):
        pack([Fickle()])


def test_no_file_or_module_of_the_search_is_loaded_before_a_failure(tmp_path: Path) -> None:
    printed = run_script(
        tmp_path,
        """
        import sys
        from rabbitry_broker.serialization import pack
        pack([1, {"a": lambda: 1}])
        print("rabbitry_broker.unpicklable" in sys.modules, "numpy" in sys.modules)
        """,
    )
    assert printed == "False False"


def test_idle_packers_are_few() -> None:
    for _ in range(100):
        pack([1, 2, [3]])
    assert len(serialization._idle) <= threading.active_count() + 8
