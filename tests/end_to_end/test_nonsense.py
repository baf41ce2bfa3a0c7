"""Nothing that a user sends stops a node, whatever checks it got round: crafted work, then ordinary work."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry import current
from rabbitry.client import Client
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rabbitry_broker import queue_names as names
from rabbitry_broker.ids import new_actor_id
from rabbitry_broker.messages import (
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    ActorSpec,
    TaskHeader,
    encode,
    encode_frame,
    encode_header,
)
from tests.end_to_end.where_work_runs import where

NODES = 3
ORDINARY = 100  # tasks for each node

DEEP = "[" * 100_000 + "]" * 100_000
ENVIRONMENTS: list[Any] = [
    json.dumps({"A": "\ud800"}),
    json.dumps({"A": 10**30}),
    '{"A": NaN}',
    json.dumps({"A=B": "C", "": ""}),
    json.dumps({"A": "\0"}),
    json.dumps({"A": "x" * 5_000_000}),
    DEEP,
    "[1, 2]",
    "nonsense",
    "\0",
]
FIELDS: list[dict[str, Any]] = [
    *[{"env": each.encode()} for each in ENVIRONMENTS],
    *[
        {"resources": each}
        for each in ("", "CPU", "CPU=", "CPU=-1", "CPU=1e9", f"CPU={10**30}", "GPU=1.5", "%ZZ=1", "x")
    ],
    *[{"priority": each} for each in (-1, 10, 2**62)],
    *[{"num_returns": each} for each in (-3, 0, 2**62)],
    *[{"retry_delay": each} for each in (float("nan"), float("inf"), -1.0, 1e308, 5e-324)],
    *[{"max_retries": each} for each in (-(2**62), 2**62, 0)],
    *[{"max_calls": each} for each in (-1, 2**62)],
    *[{"backpressure": each} for each in (-1, 2**62)],
    *[{"kind": each} for each in (-1, 3, 99)],
    *[{"owner": each} for each in (b"", b"x", b"x" * 100)],
    *[{"job": each} for each in (b"", b"x" * 1000)],
    *[{"function": each} for each in (b"", b"\0" * 1000)],
    *[{"name": each} for each in ("", "\0", "\U0010ffff", "x" * 1_000_000)],
    *[{"retry_exceptions": each} for each in (b"nonsense", b"\x80\x05.", b"*" * 100)],
    *[{"elsewhere": each, "impatient": True} for each in ("nonsense", "dead-letter", "task.", "node.zz", "x" * 1000)],
    {"lifetime": "nonsense"},
    {"kind": KIND_ACTOR_CREATION},
    {"kind": KIND_ACTOR_CREATION, "actor": new_actor_id(b"jjjj"), "extra": b"nonsense"},
    {"kind": KIND_ACTOR_CREATION, "actor": new_actor_id(b"jjjj"), "extra": encode([DEEP[:100]])},
    {
        "kind": KIND_ACTOR_CREATION,
        "actor": new_actor_id(b"jjjj"),
        "extra": encode(ActorSpec("CPU=-1", -1, {"": -1}, True, "nonsense", "\0", "", b"")),
    },
    {
        "kind": KIND_ACTOR_CREATION,
        "actor": new_actor_id(b"jjjj"),
        "extra": encode(ActorSpec("CPU=1", 2**62, {"a": 2**62}, True, "always", "\0", "", b"")),
    },
    {"kind": KIND_ACTOR_CALL},
    {"kind": KIND_ACTOR_CALL, "actor": b"x", "method": "\0"},
]
# What differs from a good task: arguments, attempts, dependencies, records that came along, position.
TASKS: list[dict[int, Any]] = [
    {0: b""},
    {0: b"x" * 1000},
    {1: b"P" + b"nonsense"},
    {1: b"nonsense"},
    {1: b"X" + b"x" * 28},
    {2: -(2**63)},
    {2: 2**63 - 1},
    {3: [b""]},
    {3: [b"x" * 28] * 1000},
    {4: {b"": b""}},
    {5: -(2**63)},
    {5: 2**63 - 1},
]
CONTROL: list[Any] = [
    None,
    [],
    {},
    [[]],
    ["cancel"],
    ["cancel", [], [], 1],
    ["cancel", b"", b"", True, True],
    ["cancel", [b""], b"", True, True],
    ["cancel", [[]], b"", True, True],
    ["kill-actor", None, None, None],
    ["kill-actor", b"", False, b""],
    ["drain", []],
    ["job-ended", []],
    ["job-ended", {}],
    ["job-ended", b"x"],
]


def crafted(client: Client, good: TaskHeader) -> Iterator[bytes]:
    """Yield messages that no client would send."""
    fields = {name: getattr(good, name) for name in TaskHeader.__struct_fields__}

    def frame(header: TaskHeader) -> bytes:
        return encode_frame(client.signer, encode_header(header), [(client.task_ids.next(), b"", 0, [], {}, 0)])

    for different in FIELDS:
        yield frame(TaskHeader(**{**fields, **different}))
        if "env" not in different:
            yield frame(TaskHeader(**{**fields, "max_retries": 0, **different}))
    for changed in TASKS:
        task: list[Any] = [client.task_ids.next(), b"", 0, [], {}, 0]
        for at, value in changed.items():
            task[at] = value
        yield encode_frame(client.signer, encode_header(good), [tuple(task)])  # type: ignore[list-item]
    sign = client.signer.sign
    for payload in (
        b"",
        b"\xc1",
        encode(None),
        encode([b"", []]),
        b"\x91" * 100_000,
        encode([encode_header(good), {}]),
    ):
        yield b"W1" + len(payload).to_bytes(4, "big") + sign(b"frame", payload) + payload
    yield b""
    yield b"W1"
    yield os.urandom(1000)


MESSAGES = 2000
ODD: list[Any] = [
    *(
        "",
        "\0",
        "\U0010ffff",
        "x" * 10_000,
        "CPU=1",
        "CPU=nan",
        "CPU=1e309",
        "CPU=" + "9" * 400,
        "node.zz",
        "task.CPU=1",
    ),
    *(-1, 0, 1, 2**63 - 1, -(2**63), 2**64 - 1, 1e308, float("nan"), float("inf"), -0.0, True, False, None),
    *(b"", b"x", b"\xff" * 28, b"x" * 10_000, b"[]", b'{"A":1e999}', b'{"A":{"B":[]}}', b'{"A":"\\ud800"}'),
    *([], {}, [1] * 500, {"a": b"x"}, {b"": b""}, new_actor_id(b"jjjj")),
]


def random_frame(chance: random.Random, client: Client, good: TaskHeader) -> bytes:
    """Return a signed message with some fields of a good one replaced, missing or too many."""
    fields = {name: getattr(good, name) for name in TaskHeader.__struct_fields__}
    if chance.random() < 0.4:
        fields |= {"kind": chance.choice([KIND_ACTOR_CREATION, KIND_ACTOR_CALL]), "actor": new_actor_id(b"jjjj")}
    header = list(fields.values())
    task: list[Any] = [client.task_ids.next(), b"", 0, [], {}, 0]
    for _ in range(chance.choice([0, 1, 1, 2, 3, 5])):
        header[chance.randrange(len(header))] = chance.choice(ODD)
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        task[chance.randrange(len(task))] = chance.choice(ODD)
    if chance.random() < 0.1:
        header = header[: chance.randrange(len(header))]
    if chance.random() < 0.1:
        header.append(chance.choice(ODD))
    payload = msgspec.msgpack.encode([msgspec.msgpack.encode(header), [task] * chance.choice([1, 1, 2, 20])])
    body = b"W1" + len(payload).to_bytes(4, "big") + client.signer.sign(b"frame", payload) + payload
    return body * chance.choice([1, 1, 1, 2])


def on(node: str) -> Any:
    return where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False), num_cpus=0.5)


def ordinary(node: str) -> list[Any]:
    function = on(node)
    return [function.remote() for _ in range(ORDINARY)]


def test_crafted_work_stops_no_node(start_cluster):
    cluster = start_cluster(*[{"num_cpus": 1} for _ in range(NODES)])
    nodes = [node.node_id for node in cluster.list_all_nodes()]
    rabbitry.get([ref for node in nodes for ref in ordinary(node)], timeout=60)
    client = current.client()
    a_function = on(nodes[0])
    rabbitry.get(a_function.remote())
    good = a_function._plan.header
    for queue in [*(names.node_queue(bytes.fromhex(node)) for node in nodes), "task.CPU=1"]:
        for message in crafted(client, good):
            client.publisher.publish(queue, message)
    for message in CONTROL:
        client.store.call(b"PUBLISH", client.keys.control_channel, client.signer.seal(b"control", encode(message)))
    ran = Counter(rabbitry.get([ref for node in nodes for ref in ordinary(node)], timeout=60))
    assert ran == dict.fromkeys(nodes, ORDINARY)
    assert all(node.alive for node in cluster.list_all_nodes())


@pytest.mark.parametrize("seed", [77])
def test_random_signed_frames_leave_room_for_ordinary_work(start_cluster, seed):
    cluster = start_cluster(*[{"num_cpus": 1} for _ in range(NODES)])
    nodes = [node.node_id for node in cluster.list_all_nodes()]
    client = current.client()
    a_function = on(nodes[0])
    rabbitry.get(a_function.remote())
    good = a_function._plan.header
    queues = [*(names.node_queue(bytes.fromhex(node)) for node in nodes), "task.CPU=1"]
    chance = random.Random(seed)
    for _ in range(MESSAGES):
        client.publisher.publish(chance.choice(queues), random_frame(chance, client, good))
    anywhere = [where.options(num_cpus=1).remote() for _ in range(ORDINARY)]  # the class whose queue had them too
    ran = Counter(rabbitry.get([ref for node in nodes for ref in ordinary(node)], timeout=60))
    assert ran == dict.fromkeys(nodes, ORDINARY)
    rabbitry.get(anywhere, timeout=60)
    assert all(node.alive for node in cluster.list_all_nodes())
