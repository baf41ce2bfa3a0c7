"""Placement groups come and go while nodes (the planner among them) and servers are killed.

Every group ends CREATED, waits for a reason that the table says, or is REMOVED; what was submitted into it has a result
or an error that says why it has none; and all resources are free in the end.
"""

from __future__ import annotations

import threading
import time
import traceback
from contextlib import suppress
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import RabbitryError
from rabbitry.util import placement_group, placement_group_table, remove_placement_group
from rabbitry.util.placement_group import PlacementGroup
from rabbitry.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.chaos.conftest import LONG
from tests.chaos.stage import NODE_CPUS, Stage
from tests.servers import wait_until

GROUPS = 200 if LONG else 30
FAULTS = 20 if LONG else 4
PAUSE_SECONDS = 3.0 if LONG else 1.0
WAITS = ("NO_RESOURCES", "INFEASIBLE", "QUEUED", "SCHEDULING_STARTED")
STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


@rabbitry.remote(max_retries=20)
def inside(number: int) -> tuple[int, Any]:
    time.sleep(0.01)
    return number, rabbitry.get_runtime_context().get_placement_group_id()


@rabbitry.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0.1)
class Resident:
    def group(self) -> Any:
        return rabbitry.get_runtime_context().get_placement_group_id()


class Guests:
    """Asks for groups, uses them, and removes them; two of it are at work at a time."""

    def __init__(self, stage: Stage, count: int) -> None:
        self.random = stage.random
        self.count = count
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            for number in range(self.count):
                self._visit(number)
        except BaseException as error:
            traceback.print_exc()
            print({at: (each["state"], each["stats"]) for at, each in placement_group_table().items()})
            self.errors.append(error)

    def _visit(self, number: int) -> None:
        bundles = [{"CPU": self.random.choice((0.1, 0.25, 0.5))} for _ in range(self.random.randint(1, 2))]
        group = placement_group(bundles, strategy=self.random.choice(STRATEGIES))
        strategy = PlacementGroupSchedulingStrategy(group)
        tasks = [inside.options(num_cpus=0.1, scheduling_strategy=strategy).remote(at) for at in range(5)]
        if self.random.random() < 0.2:
            remove_placement_group(group)
            for task in tasks:
                with suppress(RabbitryError):  # some may have run
                    rabbitry.get(task, timeout=60)
            assert state(group) == "REMOVED"
            return
        assert rabbitry.get(group.ready(), timeout=60) == group
        assert rabbitry.get(tasks, timeout=60) == [(at, group.id.hex()) for at in range(5)]
        if number % 4 == 0:
            resident = Resident.options(scheduling_strategy=strategy).remote()
            assert rabbitry.get(resident.group.remote(), timeout=60) == group.id.hex()
        remove_placement_group(group)


def state(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


@pytest.mark.in_every_run
def test_groups_come_and_go_while_everything_is_killed(stage: Stage):
    guests = [Guests(stage, GROUPS // 2) for _ in range(2)]
    stays = placement_group([{"CPU": 0.25}, {"CPU": 0.25}], strategy="STRICT_SPREAD", name="stays")
    never = placement_group([{"CPU": 100}])
    for each in guests:
        each.thread.start()
    faults = [stage.kill_node, stage.restart_redis, stage.restart_rabbitmq, stage.kill_worker, stage.kill_clients]
    for at in range(FAULTS):
        time.sleep(PAUSE_SECONDS)
        faults[at % len(faults)]()
        stage.healed()
    for each in guests:
        each.thread.join()
    assert [error for each in guests for error in each.errors] == []

    def all_is_told() -> bool:
        table = placement_group_table()
        return all(
            group["state"] in ("CREATED", "REMOVED")
            or (group["state"] in ("PENDING", "RESCHEDULING") and group["stats"]["scheduling_state"] in WAITS)
            for group in table.values()
        )

    wait_until(all_is_told, "every group is created, removed, or waits for a reason", 30.0)
    assert placement_group_table(never)["stats"]["scheduling_state"] == "INFEASIBLE"
    assert rabbitry.get(stays.ready(), timeout=30) == stays
    task = inside.options(num_cpus=0.1, scheduling_strategy=PlacementGroupSchedulingStrategy(stays, 1)).remote(7)
    assert rabbitry.get(task, timeout=30) == (7, stays.id.hex())
    remove_placement_group(stays)
    remove_placement_group(never)
    wait_until(
        lambda: rabbitry.available_resources().get("CPU") == 2 * NODE_CPUS, "all that was reserved is free", 30.0
    )
