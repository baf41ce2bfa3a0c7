"""`rabbitry.experimental`: the store of keys and values, where objects are."""

from __future__ import annotations

import numpy
import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import RpcError
from rabbitry.experimental import get_local_object_locations, get_object_locations, internal_kv
from rabbitry_broker.signing import ForgedMessage

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


@rabbitry.remote(num_cpus=0)
def make(count: int) -> numpy.ndarray:
    return numpy.zeros(count, numpy.uint8)


@rabbitry.remote(num_cpus=0)
def keep(key: str, value: str) -> bool:
    return internal_kv._internal_kv_put(key, value, namespace="tasks")


def test_keys_are_shared_by_all_processes_of_a_cluster() -> None:
    assert rabbitry.get(keep.remote("a", "1"), timeout=TIMEOUT) is False
    assert internal_kv._internal_kv_get("a", namespace="tasks") == b"1"
    assert internal_kv._internal_kv_get("a") is None
    assert rabbitry.get(keep.remote("a", "2"), timeout=TIMEOUT) is True
    assert internal_kv._internal_kv_del("a", namespace="tasks") == 1


def test_a_value_that_others_wrote_into_redis_is_refused() -> None:
    client = current.client()
    internal_kv._internal_kv_put("one", "1", namespace="forged")
    internal_kv._internal_kv_put("two", "2", namespace="forged")
    where = client.keys.values(b"forged")
    client.store.call(b"HSET", where, b"two", client.store.call(b"HGET", where, b"one"))
    with pytest.raises(ForgedMessage):
        internal_kv._internal_kv_get("two", namespace="forged")
    assert internal_kv._internal_kv_del("", del_by_prefix=True, namespace="forged") == 2


def test_a_value_that_redis_does_not_take_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internal_kv, "MAX_VALUE_BYTES", 1000)
    with pytest.raises(RpcError, match="bytes, and Redis 1000 at most") as caught:
        internal_kv._internal_kv_put("large", bytes(1001))
    assert caught.value.rpc_code == 8
    assert internal_kv._internal_kv_get("large") is None


def test_where_objects_are() -> None:
    small, large = rabbitry.put(1), rabbitry.put(numpy.zeros(1_000_000, numpy.uint8))
    made, never = make.remote(200_000), rabbitry.ObjectRef.from_random()
    rabbitry.wait([made], timeout=TIMEOUT)
    here = [node["NodeID"] for node in rabbitry.nodes()]
    for look in (get_object_locations, get_local_object_locations):
        found = look([small, large, made, never])
        assert found[small]["node_ids"] == [] and 0 < found[small]["object_size"] < 100
        assert found[large]["node_ids"] == here and 1_000_000 < found[large]["object_size"] < 1_001_000
        assert found[made]["node_ids"] == here and 200_000 < found[made]["object_size"] < 201_000
        assert found[never] == {"node_ids": [], "object_size": None, "did_spill": False}
        with pytest.raises(TypeError, match="list of ObjectRefs"):
            look([1])  # type: ignore[list-item]


def test_a_borrowed_ref_is_looked_up() -> None:
    large = rabbitry.put(numpy.zeros(300_000, numpy.uint8))

    @rabbitry.remote(num_cpus=0)
    def look(refs: list[rabbitry.ObjectRef]) -> int:
        return get_object_locations(refs, timeout_ms=10_000)[refs[0]]["object_size"]

    assert rabbitry.get(look.remote([large]), timeout=TIMEOUT) > 300_000
