"""Objects as users see them: large ones without copies, thousands of refs, values with a way of their own."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from typing import Any

import numpy
import pytest

import rabbitry
from rabbitry import current
from rabbitry.util import deregister_serializer, inspect_serializability, register_serializer
from rabbitry_broker import machine, records
from tests.end_to_end.inspection import DIRECTORY, assert_kept, files_of_objects, wait_until

pytestmark = pytest.mark.usefixtures("session")

GIBIBYTE = 1 << 30


@rabbitry.remote
def identity(value: Any) -> Any:
    return value


@rabbitry.remote
def total(*numbers: int, first: Any = None) -> int:
    return sum(numbers)


@rabbitry.remote
def is_writeable(array: Any) -> bool:
    return bool(array.flags.writeable)


def mapped_files() -> set[str]:
    """Return the shared-memory files that this process has mapped, but for those that wait to be used again."""
    with open("/proc/self/maps") as maps:
        files = {line.split(maxsplit=5)[5] for line in maps if "/dev/shm/rabbitry-" in line}
    return {file for file in files if "-pool." not in file and "-free." not in file}


def requests_read() -> int:
    """Return how often the session's Redis has read from its connections."""
    text = current.client().store.call(b"INFO", b"stats")
    return int(dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)[b"total_reads_processed"])


# -- large values ----------------------------------------------------------------------------------------------------


def test_arrays_are_mapped_not_copied() -> None:
    ref = rabbitry.put(numpy.arange(1_000_000))
    before = mapped_files()
    first, second = rabbitry.get(ref), rabbitry.get([ref])[0]
    assert len(mapped_files() - before) == 1
    assert not first.flags.writeable
    assert not second.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    assert not rabbitry.get(is_writeable.remote(ref))
    result = rabbitry.get(identity.remote(ref))
    assert not result.flags.owndata
    part = first[10:20]
    del first, second, result, ref
    gc.collect()
    assert_kept()
    assert part.tolist() == list(range(10, 20))
    wait_until(lambda: len(mapped_files() - before) == 1, text=mapped_files)
    del part
    wait_until(lambda: mapped_files() <= before, text=mapped_files)


@rabbitry.remote
def written_natively(array: Any) -> tuple[float, float]:
    """Write into an argument as code below Python does (`torch.from_numpy(array).add_(1)`), which only warns."""
    before = float(array[0])
    ctypes.memmove(array.ctypes.data, numpy.ones(1).ctypes.data, 8)
    return before, float(array[0])


@pytest.mark.parametrize("count", [10, 1 << 10, 1 << 20])
def test_code_below_python_that_writes_into_an_argument_ends_no_process(count: int) -> None:
    ref = rabbitry.put(numpy.zeros(count))
    before, after = rabbitry.get(written_natively.options(max_retries=0).remote(ref), timeout=30)
    assert (before, after) == (0, 1)
    if count > 1 << 13:
        assert rabbitry.get(ref)[0] == 0, "the object is what it was"


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes_keep_their_type(kind: type) -> None:
    value = kind(bytes(range(256)) * 4096)
    assert rabbitry.get(rabbitry.put(value)) == value
    back = rabbitry.get(identity.remote(value))
    assert type(back) is kind
    assert back == value


def test_several_buffers_and_odd_shapes() -> None:
    value = {
        "empty": numpy.empty((0, 5)),
        "fortran": numpy.asfortranarray(numpy.arange(200_000.0).reshape(400, 500)),
        "strided": numpy.arange(400_000)[::2],
        "many": [numpy.full(20_000, at) for at in range(50)],
        "text": "x" * 300_000,
    }
    for back in rabbitry.get([rabbitry.put(value), identity.remote(value)]):
        assert back["empty"].shape == (0, 5)
        assert (back["fortran"] == value["fortran"]).all()
        assert back["fortran"].flags.f_contiguous
        assert (back["strided"] == value["strided"]).all()
        assert [int(each[-1]) for each in back["many"]] == list(range(50))
        assert back["text"] == value["text"]


def test_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": range(100_000), "b": numpy.arange(100_000.0)})
    pandas.testing.assert_frame_equal(rabbitry.get(identity.remote(rabbitry.put(frame))), frame)


def test_arrow_tables() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": list(range(100_000))})
    assert rabbitry.get(identity.remote(rabbitry.put(table))).equals(table)


def test_an_object_of_more_than_two_gibibytes() -> None:
    size = 2 * GIBIBYTE + 4096
    if machine.available_memory() < 8 * GIBIBYTE:
        pytest.skip("needs 8 GiB of free memory")
    value = numpy.zeros(size, numpy.uint8)
    value[-1] = value[size // 2] = 7
    ref = rabbitry.put(value)
    del value
    back = rabbitry.get(ref)
    assert back.nbytes == size
    assert int(back[-1]) == int(back[size // 2]) == 7
    assert rabbitry.get(total.remote(1, first=ref), timeout=50) == 1
    rabbitry.free(ref)
    del back, ref
    gc.collect()
    assert_kept()


# -- many refs -------------------------------------------------------------------------------------------------------


def test_thousands_of_refs_take_few_round_trips() -> None:
    refs = rabbitry.get(put_many.remote(3000))  # of another owner: nobody tells us of their values by itself
    before = requests_read()
    assert rabbitry.get(refs) == list(range(3000))
    ready, rest = rabbitry.wait(refs, num_returns=3000, timeout=10)
    assert (len(ready), rest) == (3000, [])
    assert requests_read() - before < 200
    del refs, ready


@rabbitry.remote
def put_many(count: int) -> list[Any]:
    return [rabbitry.put(at) for at in range(count)]


def test_an_object_that_holds_ten_thousand_refs() -> None:
    outer = rabbitry.put([rabbitry.put(at) for at in range(10_000)])
    gc.collect()
    inner = rabbitry.get(outer)
    del outer
    gc.collect()
    assert rabbitry.get(inner) == list(range(10_000))
    del inner
    gc.collect()
    assert_kept()


def test_a_task_with_ten_thousand_refs_as_arguments() -> None:
    refs = [rabbitry.put(at) for at in range(10_000)]
    assert rabbitry.get(total.remote(*refs), timeout=40) == sum(range(10_000))
    results = [identity.remote(at) for at in range(1000)]
    assert rabbitry.get(total.remote(*results, *refs[:100]), timeout=40) == sum(range(1000)) + sum(range(100))
    del refs, results
    gc.collect()
    assert_kept()


@pytest.mark.parametrize("fetch_local", [True, False])
def test_wait_with_and_without_fetching(fetch_local: bool) -> None:
    refs = [rabbitry.put(numpy.ones(100_000)), identity.remote(numpy.ones(100_000)), identity.remote(1)]
    ready, rest = rabbitry.wait(refs, num_returns=3, timeout=20, fetch_local=fetch_local)
    assert (ready, rest) == (refs, [])
    assert rabbitry.get(ready[1]).sum() == 100_000


def test_wait_brings_what_another_host_made(session: str) -> None:
    if session == "embedded":
        pytest.skip("it has one host")
    ref = identity.remote(numpy.full(100_000, 2.0))
    assert rabbitry.wait([ref], timeout=20, fetch_local=False) == ([ref], [])
    client = current.client()

    def is_copied() -> bool:
        (record,) = client.store.fetch([ref._id])
        return record is not None and not records.read_manifest(record).is_on_host_only

    wait_until(is_copied)  # what is to outlive its host is, soon
    for name in files_of_objects():
        os.unlink(os.path.join(DIRECTORY, name))  # as on a host where it was not made
    rabbitry.wait([ref], timeout=20, fetch_local=False)
    rabbitry.wait([ref], timeout=0)
    assert files_of_objects() == []
    assert rabbitry.wait([ref], timeout=20) == ([ref], [])
    assert len(files_of_objects()) == 1
    assert rabbitry.get(ref).sum() == 200_000


# -- values with a way of their own ----------------------------------------------------------------------------------


class Handle:
    """Cannot be pickled: it has a lock."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()


def test_a_registered_serializer_is_used_on_the_way_there_and_back() -> None:
    with pytest.raises(TypeError, match="lock"):
        rabbitry.put({"handles": [Handle("a")]})
    register_serializer(Handle, serializer=lambda handle: handle.name, deserializer=Handle)
    try:
        assert rabbitry.get(rabbitry.put({"handles": [Handle("a")]}))["handles"][0].name == "a"

        @rabbitry.remote
        def name_of(handle: Any) -> str:
            return str(handle.name)

        assert rabbitry.get(name_of.remote(Handle("b"))) == "b"
    finally:
        deregister_serializer(Handle)
    with pytest.raises(TypeError, match="lock"):
        identity.remote(Handle("c"))


def test_the_path_to_what_cannot_be_pickled_is_told() -> None:
    culprit = {"config": [1, {"deep": threading.Lock()}]}
    with pytest.raises(TypeError, match=r"\['config'\]\[1\]\['deep'\]"):
        rabbitry.put(culprit)
    with pytest.raises(TypeError, match="deep"):
        identity.remote(culprit)

    @rabbitry.remote(max_retries=0)
    def returns_it() -> Any:
        return {"deep": threading.Lock()}

    with pytest.raises(TypeError, match="deep"):
        rabbitry.get(returns_it.remote())
    ok, failures = inspect_serializability(culprit, name="culprit", print_file=open("/dev/null", "w"))  # noqa: SIM115
    assert not ok
    assert failures


def test_a_value_that_breaks_when_it_is_read() -> None:
    class Breaks:
        def __reduce__(self) -> Any:
            return int, ("not a number",)

    ref = rabbitry.put([Breaks()])
    with pytest.raises(rabbitry.exceptions.RabbitrySystemError, match="not a number"):
        rabbitry.get(ref)
    with pytest.raises(rabbitry.exceptions.RabbitrySystemError, match="not a number"):
        rabbitry.get(identity.remote(ref))
