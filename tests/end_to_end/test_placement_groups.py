"""Placement groups on one node, on both engines: made, used, removed; what is reserved, and what comes back."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import (
    ActorDiedError,
    ActorUnschedulableError,
    GetTimeoutError,
    RabbitrySystemError,
    TaskError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from rabbitry.util import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from rabbitry.util.placement_group import PlacementGroup
from tests.end_to_end import groups
from tests.end_to_end.conftest import node_environment
from tests.end_to_end.groups import inside
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.usefixtures("session")

Inside = Callable[..., dict[str, Any]]


@pytest.fixture
def make() -> Iterator[Callable[..., PlacementGroup]]:
    """Makes groups that are removed, with all that they had, when the test ends."""
    yield from groups.maker()


def free(name: str = "CPU") -> float:
    return rabbitry.available_resources().get(name, 0.0)


def state(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


@rabbitry.remote
def facts() -> dict[str, Any]:
    context = rabbitry.get_runtime_context()
    return {
        "resources": context.get_assigned_resources(),
        "gpus": rabbitry.get_gpu_ids(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "group": context.get_placement_group_id(),
        "captures": context.should_capture_child_tasks_in_placement_group,
    }


@rabbitry.remote
def block(path: str) -> int:
    Path(path).touch()
    time.sleep(1000)
    return 0


@rabbitry.remote(num_cpus=1)
class Held:
    def pid(self) -> int:
        return os.getpid()

    def facts(self) -> Any:
        return rabbitry.get(facts.options(num_cpus=0).remote()), rabbitry.get_runtime_context().get_placement_group_id()

    def block(self, path: str) -> None:
        Path(path).touch()
        time.sleep(1000)


def test_a_group_is_reserved_used_and_given_back(make):
    group = make({"CPU": 1, "GPU": 1}, {"CPU": 1, "license": 1})
    wait_until(lambda: (free(), free("GPU"), free("license")) == (0.0, 1.0, 1.0))
    assert group.wait(5)
    found = rabbitry.get(facts.options(num_gpus=1, scheduling_strategy=inside(group, 0)).remote(), timeout=20)
    assert found["resources"] == {"CPU": 1.0, "GPU": 1.0}
    assert (found["gpus"], found["group"], found["captures"]) == ([int(found["visible"])], group.id.hex(), False)
    anywhere = facts.options(scheduling_strategy=inside(group))
    assert {each["group"] for each in rabbitry.get([anywhere.remote() for _ in range(20)], timeout=20)} == {
        group.id.hex()
    }
    nothing = facts.options(num_cpus=0, scheduling_strategy=inside(group, 1)).remote()
    assert rabbitry.get(nothing, timeout=20)["resources"] == {}
    remove_placement_group(group)
    wait_until(lambda: (free(), free("GPU"), free("license")) == (2.0, 2.0, 2.0))


def test_handles(make):
    group = make({"CPU": 1, "GPU": 0}, {"license": 0.5})
    assert group.bundle_specs == [{"CPU": 1.0, "GPU": 0.0}, {"license": 0.5}]
    assert (group.bundle_count, group.is_empty) == (2, False)
    again = pickle.loads(pickle.dumps(group))
    assert (again, hash(again)) == (group, hash(group))
    looked_up = PlacementGroup(group.id)
    assert looked_up.bundle_specs == [{"CPU": 1.0, "GPU": 0.0}, {"license": 0.5}]
    assert rabbitry.get(rabbitry.put(group)) == group
    none = PlacementGroup.empty()
    assert none.is_empty
    assert rabbitry.get(none.ready()).is_empty
    assert not none.wait(0.1)
    with pytest.raises(KeyError, match="bundles"):
        _ = none.bundle_specs
    assert none != group
    assert rabbitry.get(facts.options(scheduling_strategy=inside(none)).remote(), timeout=20)["group"] is None


def test_names(make):
    group = make({"license": 1}, name="mine")
    assert get_placement_group("mine") == group
    with pytest.raises(RabbitrySystemError, match="because name 'mine' already exists"):
        placement_group([{"license": 1}], name="mine")
    with pytest.raises(ValueError, match="name: other"):
        get_placement_group("other")
    with pytest.raises(ValueError, match="non-empty"):
        get_placement_group("")
    remove_placement_group(group)
    with pytest.raises(ValueError, match="name: mine"):
        get_placement_group("mine")
    make({"license": 1}, name="mine")


def test_the_table_says_how_groups_fare(make):
    group = make({"CPU": 1}, strategy="SPREAD", name="tabled")
    (node,) = {each["NodeID"] for each in rabbitry.nodes() if each["Alive"]}
    found = placement_group_table(group)
    stats = found.pop("stats")
    assert found == {
        "placement_group_id": group.id.hex(),
        "name": "tabled",
        "bundles": {0: {"CPU": 1.0}},
        "bundles_to_node_id": {0: node},
        "strategy": "SPREAD",
        "state": "CREATED",
    }
    assert (stats["scheduling_state"], stats["scheduling_attempt"]) == ("FINISHED", 1)
    assert stats["end_to_end_creation_latency_ms"] > 0
    waits = make({"CPU": 2}, ready=False)
    never = make({"CPU": 100}, ready=False)
    wait_until(lambda: placement_group_table(waits)["stats"]["scheduling_state"] == "NO_RESOURCES")
    wait_until(lambda: placement_group_table(never)["stats"]["scheduling_state"] == "INFEASIBLE")
    assert {each["state"] for each in map(placement_group_table, (waits, never))} == {"PENDING"}
    assert {group.id.hex(), waits.id.hex(), never.id.hex()} <= set(placement_group_table())
    remove_placement_group(never)
    assert (state(never), placement_group_table()[never.id.hex()]["state"]) == ("REMOVED", "REMOVED")


def test_a_group_waits_for_room_and_starts_as_soon_as_it_is_there(make):
    first = make({"CPU": 2})
    second = make({"CPU": 2}, ready=False)
    ready = second.ready()
    assert not second.wait(0.2)
    assert second.ready() == ready
    with pytest.raises(GetTimeoutError):
        rabbitry.get(ready, timeout=0.1)
    remove_placement_group(first)
    assert rabbitry.get(ready, timeout=20) == second
    assert rabbitry.get(facts.options(scheduling_strategy=inside(second)).remote(), timeout=20)


def test_a_group_waits_for_tasks_to_end(make, tmp_path):
    running = [block.remote(str(tmp_path / str(at))) for at in range(2)]
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    group = make({"CPU": 1}, ready=False)
    assert not group.wait(0.2)
    rabbitry.cancel(running[0], force=True)
    assert group.wait(20)
    rabbitry.cancel(running[1], force=True)


def test_what_cannot_fit_fails_at_submit(make):
    group = make({"CPU": 1}, {"license": 1})
    with pytest.raises(ValueError, match=r"Cannot schedule facts .* resource request \{'CPU': 2\} cannot fit into any"):
        facts.options(num_cpus=2, scheduling_strategy=inside(group)).remote()
    with pytest.raises(ValueError, match="bundle index 2 is invalid"):
        facts.options(scheduling_strategy=inside(group, 2)).remote()
    with pytest.raises(ValueError, match="index must be -1"):
        facts.options(scheduling_strategy=inside(None, 0)).remote()
    licensed = make({"license": 1})
    with pytest.raises(ValueError, match="the actor requires 1 CPU for creation"):
        rabbitry.remote(type("Default", (), {})).options(scheduling_strategy=inside(licensed)).remote()
    # It fits one bundle of the group, but not the one that is asked for.
    ref = facts.options(scheduling_strategy=inside(group, 1)).remote()
    with pytest.raises(TaskUnschedulableError, match="no bundle of its placement group has"):
        rabbitry.get(ref, timeout=20)


def test_what_waits_for_room_in_its_bundle_waits_there_only(make, tmp_path):
    group = make({"CPU": 1})
    running = block.options(scheduling_strategy=inside(group, 0)).remote(str(tmp_path / "runs"))
    wait_until((tmp_path / "runs").exists)
    waiting = facts.options(scheduling_strategy=inside(group, 0)).remote()
    assert rabbitry.get(facts.remote(), timeout=20)["group"] is None
    assert rabbitry.wait([waiting], timeout=0.3)[0] == []
    rabbitry.cancel(running, force=True)
    assert rabbitry.get(waiting, timeout=20)["group"] == group.id.hex()


def test_tasks_submitted_before_the_group_stands_run_when_it_does(make):
    first = make({"CPU": 2})
    group = make({"CPU": 1}, {"CPU": 1}, ready=False)
    refs = [facts.options(scheduling_strategy=inside(group, at % 3 - 1)).remote() for at in range(9)]
    actor = Held.options(scheduling_strategy=inside(group, 1)).remote()
    assert rabbitry.wait([*refs, actor.pid.remote()], timeout=0.3)[0] == []
    remove_placement_group(first)
    assert {each["group"] for each in rabbitry.get(refs, timeout=20)} == {group.id.hex()}
    assert rabbitry.get(actor.pid.remote(), timeout=20)


@rabbitry.remote
def parent(strategy: Any = None) -> Any:
    plain = rabbitry.get(facts.remote())["group"]
    out = rabbitry.get(facts.options(scheduling_strategy=inside(None)).remote())["group"]
    default = rabbitry.get(facts.options(scheduling_strategy="DEFAULT").remote())["group"]
    current = get_current_placement_group()
    return plain, out, default, current and current.id.hex()


def test_children_are_captured_where_that_is_asked_for(make):
    group = make({"CPU": 1})
    captures = inside(group, 0, placement_group_capture_child_tasks=True)
    mine = group.id.hex()
    # By turns in the same executors: what was planned for one must not hold for the other.
    for _ in range(3):
        assert rabbitry.get(parent.options(scheduling_strategy=captures).remote(), timeout=20) == (
            mine, None, None, mine,
        )  # fmt: skip
        assert rabbitry.get(parent.options(scheduling_strategy=inside(group, 0)).remote(), timeout=20) == (
            None, None, None, mine,
        )  # fmt: skip
        assert rabbitry.get(parent.remote(), timeout=20) == (None, None, None, None)
    assert get_current_placement_group() is None

    @rabbitry.remote
    def too_much() -> Any:
        return rabbitry.get(facts.options(num_cpus=2).remote())

    with pytest.raises(TaskError, match="cannot fit into any bundles"):
        rabbitry.get(too_much.options(scheduling_strategy=captures).remote(), timeout=20)


def test_actors_live_in_bundles_and_come_back_there(make):
    group = make({"CPU": 1})
    captures = inside(group, 0, placement_group_capture_child_tasks=True)
    actor = Held.options(scheduling_strategy=captures, max_restarts=1, max_task_retries=2).remote()
    child, own = rabbitry.get(actor.facts.remote(), timeout=20)
    assert (child["group"], own) == (group.id.hex(), group.id.hex())
    os.kill(rabbitry.get(actor.pid.remote(), timeout=20), signal.SIGKILL)
    child, own = rabbitry.get(actor.facts.remote(), timeout=20)
    assert (child["group"], own) == (group.id.hex(), group.id.hex())
    assert state(group) == "CREATED"


def test_blocked_tasks_lend_their_cpu_within_their_bundle(make):
    group = make({"CPU": 1})

    @rabbitry.remote
    def deep(depth: int) -> int:
        return 0 if not depth else 1 + rabbitry.get(deep.remote(depth - 1))

    captures = inside(group, -1, placement_group_capture_child_tasks=True)
    assert rabbitry.get(deep.options(scheduling_strategy=captures).remote(4), timeout=30) == 4


def test_a_group_may_be_made_inside_another(make):
    group = make({"CPU": 1})

    @rabbitry.remote
    def nested() -> Any:
        inner = placement_group([{"CPU": 1}])
        rabbitry.get(inner.ready())
        found = rabbitry.get(facts.options(scheduling_strategy=inside(inner)).remote())
        remove_placement_group(inner)
        return inner.id.hex(), found["group"]

    made, used = rabbitry.get(nested.options(scheduling_strategy=inside(group)).remote(), timeout=20)
    assert made == used != group.id.hex()


def test_removal_ends_what_runs_and_fails_what_waits(make, tmp_path):
    group = make({"CPU": 1}, {"CPU": 1})
    actor = Held.options(scheduling_strategy=inside(group, 0), max_restarts=5).remote()
    call = actor.block.remote(str(tmp_path / "call"))
    once = block.options(max_retries=0, scheduling_strategy=inside(group, 1)).remote(str(tmp_path / "once"))
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    waiting = facts.options(scheduling_strategy=inside(group, 1)).remote()
    placed = Held.options(scheduling_strategy=inside(group, 1)).remote()
    waiting_call = placed.pid.remote()
    dependant = facts.options(scheduling_strategy=inside(group, 1))
    remove_placement_group(group)
    with pytest.raises(ActorDiedError, match="placement group was removed"):
        rabbitry.get(call, timeout=20)
    with pytest.raises(WorkerCrashedError):
        rabbitry.get(once, timeout=20)
    with pytest.raises(TaskPlacementGroupRemoved):
        rabbitry.get(waiting, timeout=20)
    wait_until(lambda: not current.client().in_flight)  # the creation has ended too
    with pytest.raises(ActorUnschedulableError, match="placement group was removed"):
        rabbitry.get(waiting_call, timeout=20)
    with pytest.raises(ActorDiedError):
        rabbitry.get(actor.pid.remote(), timeout=20)
    wait_until(lambda: free() == 2.0)
    # Later too.
    with pytest.raises(TaskPlacementGroupRemoved):
        rabbitry.get(dependant.remote(), timeout=20)
    with pytest.raises(TaskPlacementGroupRemoved):
        rabbitry.get(group.ready(), timeout=20)
    with pytest.raises(Exception, match="does not exist"):
        group.wait(5)
    remove_placement_group(group)
    assert state(group) == "REMOVED"


def test_what_runs_and_may_be_tried_again_fails_with_its_group(make, tmp_path):
    group = make({"CPU": 1})
    ref = block.options(max_retries=3, scheduling_strategy=inside(group)).remote(str(tmp_path / "runs"))
    wait_until((tmp_path / "runs").exists)
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        rabbitry.get(ref, timeout=20)


def test_who_waits_for_a_group_that_is_removed_is_told(make):
    group = make({"CPU": 100}, ready=False)
    task = facts.options(scheduling_strategy=inside(group)).remote()
    ready = group.ready()
    remove_placement_group(group)
    for ref in (ready, task):
        with pytest.raises(TaskPlacementGroupRemoved):
            rabbitry.get(ref, timeout=20)


def test_a_ready_ref_is_an_object_like_others(make):
    first = make({"CPU": 2})
    group = make({"CPU": 1}, ready=False)

    @rabbitry.remote(num_cpus=0)
    def count(handle: PlacementGroup, others: list[Any]) -> tuple[int, int]:
        return handle.bundle_count, rabbitry.get(others[0]).bundle_count

    counted = count.remote(group.ready(), [group.ready()])
    remove_placement_group(first)
    assert rabbitry.get(counted, timeout=20) == (1, 1)


def test_many_groups_come_and_go(make):
    for _ in range(30):
        group = placement_group([{"CPU": 1}, {"CPU": 1}])
        rabbitry.get(group.ready(), timeout=20)
        remove_placement_group(group)
    groups = [placement_group([{"CPU": 0.01}, {"CPU": 0.01}]) for _ in range(50)]
    rabbitry.get([group.ready() for group in groups], timeout=20)
    for group in groups:
        remove_placement_group(group)
    wait_until(lambda: free() == 2.0)


DRIVER = """
import sys, time
import rabbitry
from rabbitry import current
from rabbitry.util import placement_group
rabbitry.init(address="auto", namespace="drivers", log_to_driver=False)
for name, lifetime in (("kept", "detached"), ("bound", None)):
    group = placement_group([{"license": 0.5}], name=name, lifetime=lifetime)
    rabbitry.get(group.ready(), timeout=20)
    print(group.id.hex(), flush=True)
print("made", flush=True)
sys.stdin.readline()
"""


def test_detached_groups_outlive_their_driver_and_others_do_not(make):
    for leaves in (True, False):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            env={**node_environment(), "RABBITRY_ADDRESS": os.environ.get("RABBITRY_ADDRESS", "")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with driver:
            assert driver.stdout is not None
            lines = [driver.stdout.readline().strip() for _ in range(3)]
            assert lines[2] == "made"
            kept, bound = lines[:2]
            if leaves:
                driver.communicate("\n", timeout=30)
            else:
                driver.kill()
        # Where it is busy, the record of what has ended may be gone before we look.
        wait_until(lambda bound=bound: placement_group_table().get(bound, {"state": "REMOVED"})["state"] == "REMOVED")
        assert placement_group_table()[kept]["state"] == "CREATED"
        remove_placement_group(PlacementGroup(rabbitry.PlacementGroupID.from_hex(kept)))


def test_a_group_ends_with_the_actor_that_made_it(make):
    @rabbitry.remote(num_cpus=0)
    class Maker:
        def make(self) -> PlacementGroup:
            group = placement_group([{"license": 0.5}])
            rabbitry.get(group.ready())
            return group

    maker = Maker.remote()
    group = rabbitry.get(maker.make.remote(), timeout=20)
    assert state(group) == "CREATED"
    rabbitry.kill(maker)
    wait_until(lambda: state(group) == "REMOVED")


def test_groups_are_made_from_several_threads_at_once(make):
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                group = placement_group([{"CPU": 1}])
                rabbitry.get(group.ready(), timeout=20)
                assert rabbitry.get(facts.options(scheduling_strategy=inside(group)).remote(), timeout=20)
                remove_placement_group(group)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_two_that_each_ask_for_most_of_it_never_hold_half(make):
    """Each asks for 2 x 60 % of what there is; with half of both nobody could go on."""

    def work(errors: list[BaseException]) -> None:
        try:
            for _ in range(25):
                group = placement_group([{"CPU": 0.6}, {"CPU": 0.6}])
                rabbitry.get(group.ready(), timeout=30)
                remove_placement_group(group)
        except BaseException as error:
            errors.append(error)

    errors: list[BaseException] = []
    threads = [threading.Thread(target=work, args=(errors,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
