"""Cancelling many tasks that wait on a node: what is asked for together is looked for together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rabbitry.core.submit.cancelling import CANCEL_GRACE_SECONDS
from rabbitry_broker.ids import FIRST_INDEX, new_client_id
from rabbitry_broker.messages import TaskHeader
from rabbitry_workers.node.intake import cancelling
from rabbitry_workers.node.model.lanes import Lane
from rabbitry_workers.node.outcome.publishing import announce_queue
from tests.workers.conftest import MakeAgent, drive, frame, header, task

TASKS = 1000


def submit(agent, head: TaskHeader, count: int) -> None:
    agent.node.store.register_client(head.owner, 60.0)
    announce_queue(agent.node, "task.CPU=1")
    agent.publisher.publish("task.CPU=1", frame(agent, head, *[task(head.owner, at) for at in range(count)]))


def waiting(agent) -> int:
    return sum(lane.waiting for lane in agent.lanes.values())


def test_what_is_asked_for_together_is_looked_for_together(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch):
    agent = make_agent()
    owner = new_client_id()
    submit(agent, header(owner), TASKS)
    drive(agent, lambda: waiting(agent) == TASKS, "all tasks wait")
    walks = 0
    walk = Lane.all_pieces

    def counted(lane: Lane):
        nonlocal walks
        walks += 1
        return walk(lane)

    monkeypatch.setattr(Lane, "all_pieces", counted)
    for at in range(TASKS - 1):
        agent.cancelling.cancel([task(owner, at)[0]], owner, force=False)
    late = task(owner, TASKS)[0]
    agent.cancelling.cancel([late], owner, force=False)
    drive(agent, lambda: waiting(agent) == 1 and not agent.failing, "all but one are cancelled")
    assert walks < TASKS / 10
    assert late in agent.cancelling.known
    assert len(agent.cancelling.known) == 1
    ended = agent.node.store.fetch([task(owner, at)[0] + FIRST_INDEX for at in range(TASKS)])
    assert [record is not None for record in ended] == [True] * (TASKS - 1) + [False]


def test_what_was_cancelled_in_its_queue_is_ended_in_few_steps(make_agent: MakeAgent):
    agent = make_agent()
    owner = new_client_id()
    agent.cancelling.known.update((task(owner, at)[0], None) for at in range(TASKS))
    steps = 0
    commit = agent.commits.commit_records

    def counted(failed):
        nonlocal steps
        steps += 1
        commit(failed)

    agent.failing._commits.commit_records = counted
    agent.node.store.register_client(owner, 60.0)
    announce_queue(agent.node, "task.CPU=1")
    messages = TASKS // 8
    for number in range(messages):
        tasks = [task(owner, at) for at in range(8 * number, 8 * number + 8)]
        agent.publisher.publish("task.CPU=1", frame(agent, header(owner), *tasks))
    keys = [task(owner, at)[0] + FIRST_INDEX for at in range(8 * messages)]
    drive(agent, lambda: all(agent.node.store.fetch(keys)) and not agent.failing, "all are cancelled")
    assert steps <= messages / 2
    drive(agent, lambda: not list(agent.in_hand.task_ids()), "nothing is left of them")
    assert waiting(agent) == 0


def test_only_walking_delays_the_next_look(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch):
    agent = make_agent()
    owner = new_client_id()
    submit(agent, header(owner), TASKS)
    drive(agent, lambda: waiting(agent) == TASKS, "all tasks wait")
    now, spent = 100.0, 0.0
    monkeypatch.setattr(cancelling, "time", SimpleNamespace(monotonic=lambda: now, thread_time=lambda: spent))
    fail, walk = agent.failing.add, agent.cancelling._in_hand.take_waiting

    def failing(failed):
        nonlocal spent
        spent += 1.0
        fail(failed)

    def walking(wanted):
        nonlocal spent
        spent += 0.002
        return walk(wanted)

    monkeypatch.setattr(agent.cancelling._failing, "add", failing)
    monkeypatch.setattr(agent.cancelling._in_hand, "take_waiting", walking)
    agent.cancelling.cancel([task(owner, at)[0] for at in range(TASKS)], owner, force=False)
    drive(agent, lambda: waiting(agent) == 0 and not agent.failing, "all are cancelled")
    assert agent.cancelling._look_from == pytest.approx(now + 0.02)


def test_what_was_cancelled_while_nobody_listened_is_found_in_the_list(make_agent: MakeAgent):
    agent = make_agent()
    owner = new_client_id()
    submit(agent, header(owner), 2)
    drive(agent, lambda: waiting(agent) == 2, "the tasks wait")
    late = task(owner, 7)[0]
    agent.store.announce_cancel(agent.node.keys, [task(owner, 0)[0], late], owner, force=False, recursive=True)
    agent.cancelling.listens_again()
    drive(agent, lambda: waiting(agent) == 1 and not agent.failing, "one is cancelled")
    assert agent.node.store.fetch([task(owner, 0)[0] + FIRST_INDEX]) != [None]
    assert late in agent.cancelling.known, "it fails when it comes"


def test_start_marks_stay_with_the_tasks_that_have_them(make_agent: MakeAgent):
    agent = make_agent()
    owner = new_client_id()
    submit(agent, header(owner, max_retries=0), 4)
    drive(agent, lambda: waiting(agent) == 4, "all tasks wait")
    (piece,) = [piece for lane in agent.lanes.values() for piece in lane.all_pieces()]
    piece.marked = 2  # of the first two
    for at in (0, 3):
        agent.cancelling.cancel([task(owner, at)[0]], owner, force=False)
    drive(agent, lambda: waiting(agent) == 2, "two are cancelled")
    assert [each[0] for each in piece.tasks] == [task(owner, at)[0] for at in (1, 2)]
    assert piece.marked == 1


@pytest.mark.parametrize("others", [0, cancelling.NODES_THAT_ANSWER])
def test_who_asked_hears_what_is_not_here(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch, others: int):
    agent = make_agent()
    owner, other = new_client_id(), new_client_id()
    submit(agent, header(owner), 1)
    drive(agent, lambda: waiting(agent) == 1, "the task waits")
    told: list[tuple[bytes, str, list[bytes], list[bytes]]] = []
    monkeypatch.setattr(agent.cancelling, "_tell", lambda *note: told.append(note))
    monkeypatch.setattr(agent.cancelling, "_others", lambda: others)
    agent.cancelling.cancel([task(owner, at)[0] for at in range(3)], owner, force=False)
    agent.cancelling.cancel([task(other, 9)[0]], other, force=False)
    drive(agent, lambda: waiting(agent) == 0 and not agent.failing, "it is cancelled")
    passed = [
        (owner, "cancel-passed", [agent.node.id], [task(owner, at)[0] for at in (1, 2)]),
        (other, "cancel-passed", [agent.node.id], [task(other, 9)[0]]),
    ]
    assert told == ([] if others else passed), "of so many nodes none answers"
    assert len(agent.cancelling.known) == 3


def test_what_runs_is_claimed_before_its_client_gives_up_waiting_for_that():
    assert cancelling.PAUSE_SECONDS_MAX < CANCEL_GRACE_SECONDS


def test_what_waits_behind_a_call_is_cancelled_before_that_call(monkeypatch: pytest.MonkeyPatch):
    owner = new_client_id()
    first, second = task(owner, 1), task(owner, 2)
    executor = SimpleNamespace(actor=object())
    in_hand = SimpleNamespace(
        sent=lambda wanted: [(executor, None, number, each) for number, each in enumerate((first, second))],
        take_waiting=lambda wanted: [],
    )
    told: list[bytes] = []
    failing = SimpleNamespace(add=lambda failed: None)
    part = cancelling.Cancelling(*[None] * 3, failing, lambda: cancelling.NODES_THAT_ANSWER)  # type: ignore[arg-type, misc]
    part._in_hand = in_hand  # type: ignore[assignment]
    part.calls = SimpleNamespace(  # type: ignore[assignment]
        cancel=lambda executor, task_id: told.append(task_id), take_waiting=lambda wanted: []
    )
    monkeypatch.setattr(part, "_claim", lambda client, task_id: None)
    part._cancel_all(dict.fromkeys((first[0], second[0]), cancelling._Asked(owner, False, True)))
    assert told == [second[0], first[0]], "the second one would begin when the first one ends"
