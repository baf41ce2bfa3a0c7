"""`request_resources` refuses what Ray refuses, and what could never be."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry.autoscaler import sdk
from rabbitry.demand import Need, read_requests, write_request
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys

KEYS, SIGNER = Keys.of(Endpoint("redis://nowhere", None, (b"s" * 32,))), Signer((b"s" * 32,))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"num_cpus": 1.5}, TypeError),
        ({"num_cpus": True}, TypeError),
        ({"bundles": {}}, TypeError),
        ({"bundles": [1]}, TypeError),
        ({"bundles": [{"CPU": True}]}, TypeError),
        ({"bundles": [{1: 1}]}, TypeError),
        ({"bundles": [{"CPU": "1"}]}, TypeError),
        ({"bundles": [{"CPU": -1}]}, ValueError),
        ({"bundles": [{"CPU": float("inf")}]}, ValueError),
        ({"bundle_label_selectors": [{}]}, ValueError),
        ({"bundles": [{"CPU": 1}], "bundle_label_selectors": []}, ValueError),
        ({"bundles": [{"CPU": 1}], "bundle_label_selectors": [{"a b": "c"}]}, ValueError),
        ({"bundles": [{"CPU": 1}], "bundle_label_selectors": [{1: "c"}]}, ValueError),
        ({"num_cpus": 10**9}, ValueError),
    ],
)
def test_what_cannot_be_requested(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        sdk._needs(
            **{
                "num_cpus": None,
                "bundles": None,
                "selectors": arguments.pop("bundle_label_selectors", None),
                **arguments,
            }
        )


def test_a_session_is_needed() -> None:
    with pytest.raises(RuntimeError, match="init"):
        sdk.request_resources(num_cpus=1)


@pytest.mark.parametrize(("num_cpus", "bundles"), [(None, None), (0, []), (-3, [{}]), (None, [{"CPU": 0}])])
def test_nothing_is_requested(num_cpus: Any, bundles: Any) -> None:
    assert sdk._needs(num_cpus, bundles, None) == []


class Store:
    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}

    def call(self, word: bytes, key: bytes, *rest: Any) -> Any:
        assert key == KEYS.requested
        if word == b"HSET":
            self.data[rest[0]] = rest[1]
        elif word == b"HDEL":
            self.data.pop(rest[0], None)
        else:
            return [part for pair in self.data.items() for part in pair]
        return 1


def test_requests_of_jobs_add_up_and_what_nobody_of_ours_wrote_does_not_count() -> None:
    store = Store()
    write_request(store, KEYS, SIGNER, b"one", [Need("CPU=1", "", 2), Need("GPU=1", "zone=a", 1)])
    write_request(store, KEYS, SIGNER, b"two", [Need("CPU=1", "", 5)])
    write_request(store, KEYS, SIGNER, b"two", [Need("CPU=1", "", 3)])
    store.data[b"three"] = b"nonsense"
    store.data[b"four"] = store.data[b"one"]
    assert read_requests(store, KEYS, SIGNER) == [Need("CPU=1", "", 5), Need("GPU=1", "zone=a", 1)]
    write_request(store, KEYS, SIGNER, b"two", [])
    assert b"two" not in store.data
