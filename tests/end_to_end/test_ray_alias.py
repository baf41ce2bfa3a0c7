"""What Ray's libraries ask of the core, through the adapters, in drivers and tasks."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import rabbitry
from rabbitry.ray_alias.adapters import internal_api, state
from rabbitry.ray_alias.adapters.worker import SCRIPT_MODE, WORKER_MODE, global_worker
from rabbitry.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.end_to_end.waiting import wait_until

TIMEOUT = 30.0


@rabbitry.remote
def seen_inside() -> tuple[Any, ...]:
    return global_worker.mode, global_worker.node.unique_id, global_worker.actor_id.is_nil()


@pytest.fixture
def session(start_cluster):
    return start_cluster({"num_cpus": 2})


def test_the_worker_object_knows_where_it_is(session):
    assert global_worker.mode == SCRIPT_MODE
    node = global_worker.node.unique_id
    assert rabbitry.get(seen_inside.remote(), timeout=TIMEOUT) == (WORKER_MODE, node, True)
    assert state.total_resources_per_node()[node]["CPU"] == 2.0
    assert list(global_worker.gcs_client.get_all_node_info()) == [global_worker.current_node_id]
    assert global_worker.gcs_client.check_alive([global_worker.current_node_id]) == [True]
    assert internal_api.get_memory_info_reply().store_stats.object_store_bytes_avail > 0


def test_a_callback_comes_when_the_last_handle_is_gone(session):
    gone = threading.Event()
    ref = rabbitry.put([1])
    other = [ref]
    key = ref.binary()
    heard: list[bytes] = []
    add = global_worker.core_worker.add_object_out_of_scope_callback
    assert add(ref, lambda each: (heard.append(each), gone.set()))
    del ref
    rabbitry.get(seen_inside.remote(), timeout=TIMEOUT)
    assert not heard, "there is another handle"
    other.clear()
    assert gone.wait(TIMEOUT)
    assert heard == [key]


def test_of_an_object_of_somebody_else_nothing_is_told(session):
    @rabbitry.remote
    def watch(refs: list[rabbitry.ObjectRef[Any]]) -> bool:
        return global_worker.core_worker.add_object_out_of_scope_callback(refs[0], print)

    assert rabbitry.get(watch.remote([rabbitry.put(1)]), timeout=TIMEOUT) is False


@rabbitry.remote(num_returns="streaming")
def count(number: int, *, fails: bool = False) -> Any:
    yield from range(number)
    if fails:
        raise RuntimeError("broken")


def test_items_of_a_stream_are_looked_at_before_they_are_read(session):
    generator = count.remote(3)
    first, second = generator._get_next_ref_n(2)
    assert rabbitry.get([first, second], timeout=TIMEOUT) == [0, 1]
    assert rabbitry.get(generator._get_next_ref_n(1)[0], timeout=TIMEOUT) == 0, "nothing was read yet"
    generator._consume_next_ref_n(2)
    assert rabbitry.get(next(generator), timeout=TIMEOUT) == 2
    beyond = generator._get_next_ref_n(1)[0]
    with pytest.raises(rabbitry.exceptions.ObjectRefStreamEndOfStreamError):
        rabbitry.get(beyond, timeout=TIMEOUT)
    with pytest.raises(ValueError, match="must be positive"):
        generator._get_next_ref_n(0)
    with pytest.raises(StopIteration):
        next(generator)


def test_what_is_not_there_yet_cannot_be_passed_over(session):
    @rabbitry.remote(num_returns="streaming")
    def slow(gate: Any) -> Any:
        yield 1
        rabbitry.get(gate.wait.remote())
        yield 2

    @rabbitry.remote
    class Gate:
        def __init__(self) -> None:
            self.opened = threading.Event()

        def open(self) -> None:
            self.opened.set()

        def wait(self) -> bool:
            return self.opened.wait(TIMEOUT)

    gate = Gate.options(max_concurrency=2).remote()
    generator = slow.remote(gate)
    assert rabbitry.get(generator._get_next_ref_n(1)[0], timeout=TIMEOUT) == 1
    with pytest.raises(ValueError, match="wait for the last one first"):
        generator._consume_next_ref_n(2)
    rabbitry.get(gate.open.remote(), timeout=TIMEOUT)
    assert rabbitry.get(generator._get_next_ref_n(2)[1], timeout=TIMEOUT) == 2


def test_an_error_in_a_stream_is_an_item_of_it(session):
    generator = count.remote(1, fails=True)
    refs = generator._get_next_ref_n(2)
    assert rabbitry.get(refs[0], timeout=TIMEOUT) == 0
    with pytest.raises(RuntimeError, match="broken"):
        rabbitry.get(refs[1], timeout=TIMEOUT)


def test_exit_actor_in_a_thread_ends_the_thread_silently(session, capfd):
    @rabbitry.remote
    class Leaver:
        def leave(self) -> None:
            threading.Thread(target=rabbitry.actor.exit_actor).start()

    leaver = Leaver.remote()
    rabbitry.get(leaver.leave.remote(), timeout=TIMEOUT)
    with pytest.raises(rabbitry.exceptions.RayActorError):
        rabbitry.get([leaver.leave.remote() for _ in range(100)], timeout=TIMEOUT)
    rabbitry.shutdown()  # what was printed is here then
    assert "Exception in thread" not in capfd.readouterr().err


def test_the_loop_of_an_asyncio_actor_never_seems_to_stand_still(session):
    @rabbitry.remote
    class Watched:
        async def __init__(self) -> None:
            import asyncio

            self.loop = asyncio.get_running_loop()
            self.stood, self.ran = 0, threading.Event()
            threading.Thread(target=self.watch, daemon=True).start()

        def watch(self) -> None:
            while not self.ran.is_set():
                self.stood += not self.loop.is_running()

        async def seen(self) -> int:
            self.ran.set()
            return self.stood

    watched = [Watched.options(num_cpus=0).remote() for _ in range(4)]
    assert rabbitry.get([each.seen.remote() for each in watched], timeout=TIMEOUT) == [0] * 4


@rabbitry.remote
class Known:
    def ping(self) -> None: ...


def test_tables_of_actors_and_jobs(session):
    actor = Known.options(name="known").remote()
    rabbitry.get(actor.ping.remote(), timeout=TIMEOUT)
    key = actor._actor_id.hex()
    job = global_worker.current_job_id
    found = state.actors(key)
    assert (found["State"], found["Name"], found["NumRestarts"], found["IsDetached"]) == ("ALIVE", "known", 0, False)
    assert found["Address"]["IPAddress"] and found["Pid"] > 0
    assert key in state.actors(job_id=job) and key not in state.actors(actor_state_name="DEAD")
    assert [each["IsDead"] for each in state.jobs() if each["JobID"] == job.hex()] == [False]
    assert state.GlobalState().job_table() and key in state.GlobalState().actor_table()
    wait_until(lambda: found["Address"]["IPAddress"] in [each["node_ip_address"] for each in state.workers().values()])


def test_tables_of_nodes_and_groups(session, tmp_path):
    whole = state.GlobalState()
    assert whole.total_resources_per_node().keys() == {each["NodeID"] for each in whole.node_table()}
    assert whole.available_resources_per_node().keys() == whole.total_resources_per_node().keys()
    assert [state.current_node_id()] == state.node_ids()
    group = rabbitry.util.placement_group([{"CPU": 1}], name="table")
    rabbitry.get(group.ready(), timeout=TIMEOUT)
    row = whole.get_placement_group_by_name("table", rabbitry.get_runtime_context().namespace)
    assert row is not None and row["placement_group_id"] == group.id.hex() and row["state"] == "CREATED"
    assert whole.get_placement_group_by_name("table", "elsewhere") is None
    rabbitry.util.remove_placement_group(group)
    assert whole.chrome_tracing_object_transfer_dump() == []
    state.object_transfer_timeline(str(tmp_path / "transfers.json"))
    assert (tmp_path / "transfers.json").read_text() == "[]"


@rabbitry.remote(num_cpus=0)
class InAGroup:
    def refused(self) -> list[str]:
        """Return what was refused by hooks like those that Tune sets in its trials."""
        from rabbitry import actor, remote_function

        def refuse(launched: Any, resources: dict[str, float], strategy: Any) -> None:
            raise RuntimeError(
                f"{launched.class_name or launched.function_name} {resources} {strategy.placement_group.id}"
            )

        actor._actor_launch_hook = remote_function._task_launch_hook = refuse
        said = []
        for submit in (seen_inside.options(num_cpus=1).remote, Known.options(num_cpus=2).remote):
            try:
                submit()
            except RuntimeError as error:
                said.append(str(error))
        return said


def test_hooks_of_libraries_are_asked_before_anything_is_submitted(session):
    group = rabbitry.util.placement_group([{"CPU": 1}])
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    actor = InAGroup.options(scheduling_strategy=strategy).remote()
    said = rabbitry.get(actor.refused.remote(), timeout=TIMEOUT)
    assert said == [f"seen_inside {{'CPU': 1}} {group.id}", f"Known {{'CPU': 2}} {group.id}"]
    rabbitry.util.remove_placement_group(group)
