"""Stored errors: see `rabbitry.core.failures`."""

from __future__ import annotations

import pytest

from rabbitry.core import failures
from rabbitry.exceptions import (
    ActorDiedError,
    ObjectStoreFullError,
    OutOfDiskError,
    OwnerDiedError,
    TaskCancelledError,
    load_task_error,
    store_error,
)
from rabbitry_broker.ids import object_id
from rabbitry_broker.messages import DYNAMIC, STREAMING
from rabbitry_broker.store.spill import OutOfDisk
from tests.api.core.fakes import full, result_id, task_id


def test_a_failed_task_fills_each_of_its_results() -> None:
    task = task_id(1)
    assert failures.result_keys(task, 0) == []
    assert failures.result_keys(task, 2) == [object_id(task, 1), object_id(task, 2)]
    assert failures.result_keys(task, DYNAMIC) == [object_id(task, 1)]
    assert failures.result_keys(task, STREAMING) == [object_id(task, 1), object_id(task, 0)], "an item, then the end"
    assert failures.failed_results(task, 1, b"E") == [object_id(task, 1), b"E"]


def test_who_waits_for_a_dead_owner_is_told_so() -> None:
    key, record = failures.orphan_items([result_id(1)])
    assert key == result_id(1)
    assert isinstance(load_task_error(record[1:]), OwnerDiedError)


def test_the_causes_of_an_actor_s_death_can_be_read_back() -> None:
    for cause in (failures.killed_cause, failures.owner_gone_cause, failures.handles_gone_cause):
        error = load_task_error(cause(b"a" * 16))
        assert isinstance(error, ActorDiedError)
        assert error.actor_id == (b"a" * 16).hex()


def test_a_full_store_and_a_full_disk_are_different_errors() -> None:
    assert type(failures.store_full(full())) is ObjectStoreFullError
    assert type(failures.store_full(OutOfDisk(10, 0, "the disk"))) is OutOfDiskError


@pytest.mark.parametrize("size", [4, 16, 24, 28])
def test_errors_that_differ_by_an_id_alone_are_what_they_would_be_without_a_template(size: int) -> None:
    ids = [bytes([number]) * size for number in (0, 48, 255)]
    for id in ids:
        assert failures.cancelled_error(id) == store_error(TaskCancelledError(id.hex()))
        assert failures.orphan_record(id)[1:] == store_error(OwnerDiedError(id.hex()))
        error = load_task_error(failures.cancelled_error(id))
        assert isinstance(error, TaskCancelledError) and str(error) == str(TaskCancelledError(id.hex()))
