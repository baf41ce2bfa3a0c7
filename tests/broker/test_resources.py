"""Amounts are exact, equal requests have equal class names, and a class name says it all."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry_broker import machine
from rabbitry_broker.resources import UNITS, ResourceRequest, detect_totals

request_of = ResourceRequest.from_floats
NAMES = st.one_of(st.sampled_from(["CPU", "memory", "license", "none"]), st.text(min_size=1, max_size=8))
AMOUNTS = st.dictionaries(NAMES, st.integers(0, 2**60), max_size=5).filter(lambda amounts: "GPU" not in amounts)


@given(AMOUNTS)
def test_class_name_comes_back_as_the_request(amounts: dict[str, int]) -> None:
    request = ResourceRequest.from_units(amounts)
    again = ResourceRequest.parse(request.class_name)
    assert again == request and again.units == request.units
    assert again.to_units() == {name: units for name, units in amounts.items() if units}


@given(AMOUNTS)
def test_class_name_holds_only_plain_characters(amounts: dict[str, int]) -> None:
    name = ResourceRequest.from_units(amounts).class_name
    assert name.isascii() and name.isprintable() and not set(name) & set(" {}/\"'*#")


@given(AMOUNTS, st.randoms())
def test_order_of_writing_does_not_matter(amounts: dict[str, int], random: object) -> None:
    items = list(amounts.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    one, other = ResourceRequest.from_units(amounts), ResourceRequest.from_units(dict(items))
    assert one == other and hash(one) == hash(other) and one.class_name == other.class_name


@given(st.lists(st.integers(1, 99_999), min_size=1, max_size=50))
def test_sums_of_floats_do_not_drift(units: list[int]) -> None:
    total = 0.0
    for one in units:
        total += one / UNITS
    assert request_of({"CPU": total}) == ResourceRequest.from_units({"CPU": sum(units)})


@pytest.mark.parametrize(
    ("amounts", "name"),
    [
        ({}, "none"),
        ({"CPU": 0, "license": 0.0}, "none"),
        ({"CPU": 1}, "CPU=1"),
        ({"license": 1, "CPU": 0.5}, "CPU=0.5,license=1"),
        ({"CPU": 0.1 + 0.2}, "CPU=0.3"),
        ({"b": 1, "a": 1, "memory": 2**40, "GPU": 2, "CPU": 10}, "CPU=10,GPU=2,memory=1099511627776,a=1,b=1"),
        ({"node:10.0.0.1": 0.001}, "node:10.0.0.1=0.001"),
        ({"a=b,{c}/ %": 1}, "a%3Db%2C%7Bc%7D%2F%20%25=1"),
        ({"größe": 1}, "gr%C3%B6%C3%9Fe=1"),
        ({"none": 1}, "none=1"),
    ],
)
def test_class_names(amounts: dict[str, float], name: str) -> None:
    assert request_of(amounts).class_name == name


@pytest.mark.parametrize(
    ("amounts", "error", "text"),
    [
        ({"CPU": -1}, ValueError, "'CPU' has a negative amount -1"),
        ({"CPU": -0.5}, ValueError, "negative amount -0.5"),
        ({"GPU": 1.5}, ValueError, "GPU=1.5 is not possible"),
        ({"CPU": float("inf")}, ValueError, "finite"),
        ({"CPU": float("nan")}, ValueError, "finite"),
        ({"CPU": 0.00001}, ValueError, "finest possible is 0.0001"),
        ({"CPU": "two"}, TypeError, "'two', which is not a number"),
        ({"CPU": None}, TypeError, "not a number"),
        ({1: 1}, TypeError, "not text"),
        ({"": 1}, ValueError, "empty name"),
    ],
)
def test_impossible_amounts_are_refused(amounts: dict[str, float], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        request_of(amounts)


@pytest.mark.parametrize(
    "name",
    ["", "CPU", "CPU=", "=1", "CPU=1,", "CPU=1,CPU=2", "CPU=-1", "CPU=1.00001", "CPU=\u0661", "a%zz=1", "%ff=1", "1e3"],
)
def test_what_is_no_class_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="resource class"):
        ResourceRequest.parse(name)


@pytest.mark.parametrize("gpus", [0.25, 1, 4, 0])
def test_fractional_or_whole_gpus_are_possible(gpus: float) -> None:
    assert request_of({"GPU": gpus}).amount("GPU") == gpus * UNITS


def test_requests_cannot_be_changed_and_survive_pickling() -> None:
    request = request_of({"CPU": 0.5, "x": 2})
    with pytest.raises(AttributeError):
        request.class_name = "CPU=1"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(request)).to_floats() == {"CPU": 0.5, "x": 2.0}


def test_request_fits_in_what_has_as_much_of_all() -> None:
    node = request_of({"CPU": 2, "license": 1})
    assert request_of({"CPU": 2}).fits_in(node)
    assert request_of({}).fits_in(node)
    assert not request_of({"CPU": 2.0001}).fits_in(node)
    assert not request_of({"GPU": 0.1}).fits_in(node)


@pytest.mark.parametrize(
    ("request_", "nodes", "text"),
    [
        ({"CPU": 1}, [], "no node"),
        ({"CPU": 1}, [{"CPU": 1}], ""),
        ({"CPU": 4}, [{"CPU": 1}, {"CPU": 2}], "CPU: 4 needed, at most 2 on one node"),
        ({"GPU": 1, "CPU": 1}, [{"CPU": 1}], "GPU: 1 needed, no node has any"),
        ({"memory": 2**31}, [{"memory": 2**30}], "2.00 GiB"),
        ({"a": 1, "b": 1}, [{"a": 1}, {"b": 1}], "no single node has all of a=1,b=1"),
    ],
)
def test_missing_resources_are_named(request_: dict[str, float], nodes: list[dict[str, float]], text: str) -> None:
    missing = request_of(request_).missing_from([request_of(node) for node in nodes])
    assert text in missing and bool(missing) == bool(text)


def test_totals_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    totals = detect_totals(resources={"license": 2}).to_floats()
    assert totals["CPU"] == machine.usable_cpus()
    assert totals["GPU"] == 2 and totals["license"] == 2 and totals["memory"] > 0


def test_given_totals_are_taken() -> None:
    assert detect_totals(num_cpus=0.5, num_gpus=0, memory=0).class_name == "CPU=0.5"
    assert detect_totals(num_cpus=0, num_gpus=0, memory=10).class_name == "memory=10"


def test_more_gpus_than_visible_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES='4,5' shows 2"):
        detect_totals(num_gpus=3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert detect_totals(num_gpus=3).amount("GPU") == 3 * UNITS
    with pytest.raises(ValueError, match="whole GPUs"):
        detect_totals(num_gpus=0.5)


@pytest.mark.parametrize(("name", "option"), [("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory")])
def test_named_resources_are_not_custom(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=option):
        detect_totals(resources={name: 1})
