"""Ids: their lengths, forms and what can be read from them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from rabbitry.ids import (
    ActorClassID,
    ActorID,
    BaseID,
    ClusterID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from rabbitry_broker import ids as raw

SIZES: dict[type[BaseID], int] = {
    JobID: 4,
    ActorID: 16,
    PlacementGroupID: 18,
    TaskID: 24,
    UniqueID: 28,
    NodeID: 28,
    WorkerID: 28,
    FunctionID: 28,
    ActorClassID: 28,
    ClusterID: 28,
}
each_class = pytest.mark.parametrize("cls", SIZES, ids=lambda cls: cls.__name__)


@each_class
def test_forms(cls: type[BaseID]) -> None:
    size = SIZES[cls]
    data = bytes(range(size))
    made = cls(data)
    assert (cls.size(), made.binary(), bytes(made), made.hex()) == (size, data, data, data.hex())
    assert cls.from_binary(data) == cls.from_hex(data.hex()) == cls.from_hex(data.hex().encode()) == made
    assert repr(made) == str(made) == f"{cls.__name__}({data.hex()})"
    assert pickle.loads(pickle.dumps(made)) == made
    assert {made: 1}[cls(data)] == 1
    assert not made.is_nil()
    assert cls.nil().is_nil()
    assert cls.nil().binary() == b"\xff" * size


@each_class
def test_refusals(cls: type[BaseID]) -> None:
    with pytest.raises(ValueError, match=f"has {SIZES[cls]} bytes, not 1"):
        cls(b"x")
    with pytest.raises(TypeError, match="made of bytes"):
        cls("x")  # type: ignore[arg-type]
    for text in ("zz", "ab", "", "ä" * 2 * SIZES[cls]):
        with pytest.raises(ValueError, match=f"{2 * SIZES[cls]} hex digits"):
            cls.from_hex(text)
    with pytest.raises(AttributeError, match="cannot be changed"):
        cls.nil()._bytes = b""
    with pytest.raises(TypeError):
        cls.nil() < cls.nil()  # type: ignore[operator]  # noqa: B015


@pytest.mark.parametrize("cls", [NodeID, WorkerID, UniqueID, ActorID, PlacementGroupID])
def test_random_ids_differ(cls: Any) -> None:
    assert cls.from_random() != cls.from_random()


def test_tasks_and_jobs_are_not_made_at_random() -> None:
    assert not hasattr(TaskID, "from_random")
    assert not hasattr(JobID, "from_random")


def test_ids_of_different_classes_differ() -> None:
    assert NodeID.nil() != WorkerID.nil()
    assert len({NodeID.nil(), WorkerID.nil()}) == 2


def test_the_job_can_be_read_from_tasks_actors_and_groups() -> None:
    job = raw.new_job_id()
    task = TaskID(raw.TaskIds(raw.new_client_id(), job).next())
    assert task.job_id() == JobID(job)
    assert task.actor_id().job_id == JobID(job)
    assert task.actor_id().binary()[:12] == b"\xff" * 12
    assert ActorID(raw.new_actor_id(job)).job_id == JobID(job)
    assert PlacementGroupID.of(JobID(job)).binary()[-4:] == job
    assert NodeID(raw.new_node_id()).size() == 28


def test_job_numbers() -> None:
    assert JobID.from_int(5).binary() == b"\x05\0\0\0"
    assert JobID.from_int(5).int() == 5
    with pytest.raises(AssertionError):
        JobID.from_int(2**32)
    with pytest.raises(OverflowError):
        JobID.from_int(-1)
