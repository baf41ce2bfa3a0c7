"""The adapters give what Ray's own core gives; the values are those that Ray 2.60 printed."""

from __future__ import annotations

import threading
from typing import NamedTuple

import pytest

from rabbitry import cloudpickle
from rabbitry.ray_alias import table
from rabbitry.ray_alias.adapters import addresses, client, raylet, serialization, services
from rabbitry.ray_alias.adapters.time_series import merge_instantaneous_total, time_weighted_average

UNSET = float("-inf")


class At(NamedTuple):
    timestamp: float
    value: float


def series(*points: tuple[float, float]) -> list[At]:
    return [At(*point) for point in points]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([series((1, 1), (2, 3)), series((1.5, 2), (3, 0))], [(1.0, 1.0), (1.5, 3.0), (2.0, 5.0), (3.0, 3.0)]),
        ([series((1, 1), (2, 3), (3, 3))], series((1, 1), (2, 3), (3, 3))),
        ([], []),
        (
            [series((1.001, 2), (1.004, 5), (2, 1)), series((1.002, 1), (2.0, 1), (3, 0))],
            [(1.0, 6.0), (2.0, 2.0), (3.0, 1.0)],
        ),
        ([series((1, 1), (2, 1)), series((2, 0), (3, 1))], [(1.0, 1.0), (3.0, 2.0)]),
    ],
)
def test_step_functions_are_added_up(given: list[list[At]], expected: list[object]) -> None:
    assert merge_instantaneous_total(given) == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (1, 4, 2.3333333333333335),
        (0, 2, 0.5),
        (3, 10, 0.42857142857142855),
        (5, 6, 0.0),
        (2, 2, None),
        (3, 2, None),
        (UNSET, UNSET, 1.75),
        (UNSET, 3, 2.0),
        (2, UNSET, 2.0),
    ],
)
def test_the_mean_over_a_window(start: float, end: float, expected: float | None) -> None:
    assert time_weighted_average(series((1, 1), (2, 3), (4, 0)), start, end, 1.0) == expected


def test_no_points_have_no_mean() -> None:
    assert time_weighted_average([], UNSET, UNSET, 1.0) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:1", ("a", "1")), ("[::1]:2", ("::1", "2")), ("nope", None), ("1.2.3.4:5", ("1.2.3.4", "5")), ("::1", None)],
)
def test_addresses_are_taken_apart(text: str, expected: tuple[str, str] | None) -> None:
    assert addresses.parse_address(text) == expected
    if expected is not None:
        assert addresses.build_address(*expected) == text


def test_which_hosts_are_this_one() -> None:
    assert [addresses.is_localhost(host) for host in ("localhost", "127.0.0.1", "::1", "127.0.0.2", "a")] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"a": "x"}, True),
        ({"a": "!x"}, False),
        ({"a": "in(x,y)"}, True),
        ({"a": "!in(x,y)"}, False),
        ({"b": "x"}, False),
        ({"b": "!x"}, True),
    ],
)
def test_labels_fulfil_selectors(selector: dict[str, str], expected: bool) -> None:
    assert raylet.node_labels_match_selector({"a": "x"}, selector) == expected


def test_plain_values_travel_as_messagepack() -> None:
    packed = raylet.MessagePackSerializer.dumps({"a": [1, b"x"]})
    assert packed == b"\x81\xa1a\x92\x01\xc4\x01x"
    assert raylet.MessagePackSerializer.loads(packed) == {"a": [1, b"x"]}


def test_settings_of_rays_core_are_methods() -> None:
    assert raylet._config.grpc_client_keepalive_time_ms() == 300_000
    with pytest.raises(AttributeError, match="no setting nothing"):
        raylet._config.nothing()


def test_there_is_no_connection_of_a_remote_driver() -> None:
    assert client.ray.get_context().is_connected() is False


def test_types_of_rays_servers_can_be_named_but_not_made() -> None:
    assert services.ProcessInfo._fields[0] == "process"
    for make in (raylet.GlobalStateAccessor, raylet.GcsClientOptions.create):
        with pytest.raises(NotImplementedError, match=r"no head node.*ray\.nodes"):
            make("127.0.0.1:6379")


def test_what_serve_of_an_older_ray_pickles_is_read_again_or_said_to_be_no_good() -> None:
    assert cloudpickle.loads(serialization.pickle_dumps([1], "no")) == [1]
    with pytest.raises(TypeError, match=r"the deployment: cannot pickle '_thread.lock'"):
        serialization.pickle_dumps(threading.Lock(), "the deployment")
    assert table.ADAPTERS["_private.serialization"] == "serialization"


@pytest.mark.parametrize("name", ["scripts.scripts", "util.client.worker", "util.client.server.proxier"])
def test_a_module_that_cannot_work_says_what_to_do(name: str) -> None:
    from rabbitry.ray_alias.finder import _never

    why = _never(name)
    assert why is not None and ("`rabbitry start`" in why or "init(address=...)" in why)
    assert _never("util.client.api") is None


def test_connecting_as_a_remote_driver_says_what_to_write() -> None:
    import rabbitry
    from rabbitry.ray_alias.adapters import client_helpers

    with pytest.raises(NotImplementedError, match=r"connect\('host:10001'\).*init\(address="):
        rabbitry.util.connect("host:10001")
    with pytest.raises(NotImplementedError, match=r"init\(address="):
        client_helpers.ray_start_client_server()
    rabbitry.util.disconnect()


def test_a_function_descriptor_names_what_was_written() -> None:
    import uuid

    from rabbitry.ray_alias.adapters.raylet import PythonFunctionDescriptor

    which = uuid.uuid4()
    of = PythonFunctionDescriptor.from_function(test_a_function_descriptor_names_what_was_written, which)
    assert (of.module_name, of.class_name, of.function_hash) == (__name__, "", which.hex)
    assert of.repr == f"{__name__}.test_a_function_descriptor_names_what_was_written"
    assert of == PythonFunctionDescriptor(of.module_name, of.function_name, "", which.hex)
    assert of.function_id == PythonFunctionDescriptor(**{k: of.to_dict()[k] for k in of.__struct_fields__}).function_id
    constructor = PythonFunctionDescriptor.from_class(uuid.UUID)
    assert constructor.repr == "uuid.UUID.__init__" and constructor.is_actor_method() and not of.is_actor_method()


def test_each_kind_of_state_has_its_class() -> None:
    from rabbitry.util.state.common import StateResource, dict_to_state, resource_to_schema
    from rabbitry.util.state.exception import RayStateApiException

    assert {resource_to_schema(each).__name__ for each in StateResource} >= {"TaskState", "ActorState", "NodeState"}
    with pytest.raises(RayStateApiException, match="no row of tasks"):
        dict_to_state({"bogus": 1}, StateResource.TASKS)
