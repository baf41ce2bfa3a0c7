"""Whatever stands in the queues and keys that rabbitry reads: nothing unsigned is unpickled, and nothing crashes.

Every forged message carries a pickle that leaves a file behind if anybody loads it.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rabbitry
from rabbitry import current
from rabbitry_broker import queue_names as names
from rabbitry_broker.messages import FRAME_MAGIC, encode_frame
from rabbitry_broker.queues import open_publisher
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.actors import DEAD
from tests.chaos.conftest import LONG
from tests.chaos.stage import Stage
from tests.chaos.workload import Counter, Echo, plain
from tests.servers import wait_until

EXAMPLES = 400 if LONG else 60
PROFILE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (self.path,)


@pytest.fixture(autouse=True)
def forged(stage: Stage) -> None:
    """What these tests write stays where nobody looks, such as the queue of a node that has left."""
    stage.forged = True


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Where a bomb that goes off leaves its mark; the test fails if one did."""
    path = tmp_path / "unpickled"
    yield path
    assert not path.exists(), "something that nobody signed was unpickled"


def forgeries(bomb: bytes, valid: bytes) -> st.SearchStrategy[bytes]:
    """Return what to write: noise, and messages that are almost right."""
    stranger = Signer((secrets.token_bytes(32),))
    header = b"\x95\xa1x"

    def flip(at: int) -> bytes:
        place = at % len(valid)
        return valid[:place] + bytes([valid[place] ^ 1 << at % 8]) + valid[place + 1 :]

    size = len(bomb).to_bytes(4, "big")
    return st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=50).map(lambda data: data + bomb),
        st.integers(0, len(valid) - 1).map(lambda length: valid[:length]),
        st.integers(0, 10_000).map(flip),
        st.binary(min_size=1, max_size=50).map(lambda data: valid + data),
        st.binary(min_size=2, max_size=2).filter(lambda v: v != FRAME_MAGIC).map(lambda version: version + valid[2:]),
        st.binary(min_size=16, max_size=16).map(lambda signature: FRAME_MAGIC + size + signature + bomb),
        st.integers(2**24, 2**32 - 1).map(lambda length: FRAME_MAGIC + length.to_bytes(4, "big") + bomb),
        st.just(encode_frame(stranger, header, [])),
        st.binary(max_size=50).map(lambda context: stranger.seal(context, bomb)),
    )


@pytest.mark.in_every_run
def test_no_forgery_is_unpickled_and_work_goes_on(stage: Stage, marker: Path, tmp_path: Path):
    logging.getLogger("rabbitry").setLevel(logging.CRITICAL)
    client = current.client()
    store, keys = client.store, client.keys
    effects = str(tmp_path / "effects")
    echo = Echo.remote(effects)
    counter = Counter.remote()
    assert rabbitry.get([echo.say.remote("first", 1), counter.increment.remote()], timeout=20) == [1, 1]
    bomb = pickle.dumps(Bomb(str(marker)))
    valid = encode_frame(client.signer, b"not a header, but signed in another life", [])[:-1] + b"!"
    publisher = open_publisher(client.endpoint, name="stranger")
    node = bytes.fromhex(stage.nodes()[0].node_id)
    own = rabbitry.put("mine")

    def publish(queue: str) -> Callable[[bytes], object]:
        return lambda data: publisher.publish(queue, data)

    targets: dict[str, Callable[[bytes], object]] = {
        "task queue": publish("task.CPU=1"),
        "actor queue": publish(names.actor_queue(echo._actor_id.binary())),
        "durable actor's queue": publish(names.actor_queue(counter._actor_id.binary())),
        "node queue": publish(names.node_queue(node)),
        "inbox": lambda data: store.call(b"RPUSH", keys.inbox(client.id), data),
        "control channel": lambda data: store.call(b"PUBLISH", keys.control_channel, data),
        "announcements": lambda data: store.call(b"PUBLISH", keys.queues_channel, data),
        "log channel": lambda data: store.call(b"PUBLISH", keys.logs_channel(client.job), data),
        "object": lambda data: store.fetch([_write_object(data)]),
        "node record": lambda data: store.call(b"SET", keys.node(secrets.token_bytes(28)), data, b"PX", 2000),
        "announced queues": lambda data: store.call(b"SADD", keys.queues, data),
        "names": lambda data: _look_up(data),
    }

    def _write_object(data: bytes) -> bytes:
        object_id = client.id + secrets.token_bytes(16)
        store.call(b"SET", keys.object(object_id), data, b"PX", 60_000)
        return object_id

    def _look_up(data: bytes) -> None:
        store.call(b"HSET", keys.names, client.namespace.encode() + b"\0forged", data)
        with pytest.raises(ValueError):
            rabbitry.get_actor("forged")
        store.call(b"HDEL", keys.names, client.namespace.encode() + b"\0forged")

    count = lambda: int(store.call(b"GET", keys.put_aside + b":count") or 0)  # noqa: E731
    written = 0

    @PROFILE
    @given(st.sampled_from(sorted(targets)), forgeries(bomb, valid))
    def forge(target: str, data: bytes) -> None:
        nonlocal written
        targets[target](data)
        written += target in ("task queue", "actor queue", "node queue", "inbox", "object", "control channel")

    before = count()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forge()
    assert publisher.flush(10)
    publisher.close()
    assert rabbitry.get(plain.remote(effects, "probe", 1), timeout=20) == 4
    assert rabbitry.get([echo.say.remote("last", 2), counter.increment.remote()], timeout=20) == [2, 2]
    assert rabbitry.get(own, timeout=5) == "mine"
    wait_until(lambda: count() - before > written // 2, f"forgeries are counted ({count() - before} of {written})")
    print(f"{EXAMPLES} forgeries, {count() - before} put aside")
    assert store.call(b"LLEN", keys.put_aside) > 0
    assert len(stage.nodes()) == 2
    assert "Traceback" not in stage.logs()
    for member in store.call(b"SMEMBERS", keys.queues):
        if b"task." not in member and b"node." not in member and b"actor." not in member:
            store.call(b"SREM", keys.queues, member)


@pytest.mark.in_every_run
def test_a_forged_function_is_not_loaded(stage: Stage, marker: Path):
    client = current.client()

    @rabbitry.remote(max_retries=0)
    def honest() -> int:
        return 1

    assert rabbitry.get(honest.remote(), timeout=20) == 1
    (key,) = client.store.call(b"KEYS", client.keys.prefix + b"f:" + b"[0-9a-f]" * 32)
    client.store.call(b"SET", key, secrets.token_bytes(16) + pickle.dumps(Bomb(str(marker))))
    elsewhere = honest.options(runtime_env={"env_vars": {"FRESH": "1"}})  # an executor that has it not in its cache
    with pytest.raises(ForgedMessage):
        rabbitry.get(elsewhere.remote(), timeout=20)
    assert int(client.store.call(b"GET", client.keys.put_aside + b":count")) > 0


@pytest.mark.in_every_run
def test_a_client_with_another_secret_gets_nothing_done(stage: Stage, marker: Path, tmp_path: Path):
    """A whole forged task, right in every byte but for the secret."""
    client = current.client()
    bomb = pickle.dumps(Bomb(str(marker)))
    stranger = Signer((secrets.token_bytes(32),))
    path = str(tmp_path / "effects")
    assert rabbitry.get(plain.remote(path, "first", 1), timeout=20) == 4  # so that the queue is consumed
    before = int(client.store.call(b"GET", client.keys.put_aside + b":count") or 0)
    task = (client.id + secrets.token_bytes(12), bomb, 0, [], {}, b"")
    publisher = open_publisher(client.endpoint, name="stranger")
    publisher.publish("task.CPU=1", encode_frame(stranger, b"\x90", [task]))  # type: ignore[list-item]
    assert publisher.flush(10)
    publisher.close()

    def counted() -> bool:
        return int(client.store.call(b"GET", client.keys.put_aside + b":count") or 0) == before + 1

    wait_until(counted, "the forged task is put aside")
    assert rabbitry.get(plain.remote(path, "probe", 1), timeout=20) == 4


@pytest.mark.in_every_run
def test_a_forged_cause_of_an_actors_death_is_not_unpickled(stage: Stage, marker: Path):
    """The error that calls to a dead actor get comes from its record: it is a pickle as any other."""

    @rabbitry.remote(num_cpus=0)
    class Sleeper:
        def sleep(self) -> None:
            time.sleep(600)

        def ready(self) -> bool:
            return True

    client = current.client()
    sleeper = Sleeper.remote()
    assert rabbitry.get(sleeper.ready.remote(), timeout=20)
    asleep = sleeper.sleep.remote()
    actor_id = sleeper._actor_id.binary()
    bomb = msgspec.msgpack.encode((1, False, pickle.dumps(Bomb(str(marker))), "forged"))
    before = int(client.store.call(b"GET", client.keys.put_aside + b":count") or 0)
    client.store.call(b"HSET", client.keys.actor(actor_id), "state", DEAD, "cause", bomb)
    with pytest.raises(rabbitry.exceptions.ActorDiedError):
        rabbitry.get(asleep, timeout=20)
    assert int(client.store.call(b"GET", client.keys.put_aside + b":count")) > before
    assert not marker.exists()
    rabbitry.kill(sleeper)
