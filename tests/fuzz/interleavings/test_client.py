"""The client's parts in thousands of orders: no wake-up gets lost, nothing hangs, no counter is off."""

from __future__ import annotations

import pytest

from rabbitry.core.submit.plan import Plan
from rabbitry_broker.messages import TaskHeader
from tests.fuzz.interleavings.client import OWNER, WATCHED, FakeClient, completion, result_id, task_id
from tests.fuzz.interleavings.orders import orders
from tests.fuzz.interleavings.scheduler import Scheduler

pytestmark = pytest.mark.timeout(600)  # hundreds of orders, traced line by line: minutes on a machine with other work

ORDERS = 250
SOON = 0.5
"""Virtual seconds: less than the time after which somebody would look again, had a wake-up got lost."""


def new_client(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Scheduler, FakeClient]:
    scheduler = Scheduler(seed, WATCHED)
    return scheduler, FakeClient(scheduler, monkeypatch)


def test_all_who_wait_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        scheduler, client = new_client(seed, monkeypatch)
        values = client.inbox.values

        def wait(number: int, client: FakeClient = client) -> None:
            key = result_id(number)
            assert client.inbox.wait(lambda: key in client.inbox.values, lambda: [key], None)

        def complete(client: FakeClient = client, scheduler: Scheduler = scheduler) -> None:
            for numbers in ((1,), (2, 3), (4,)):
                client.redis.entries.append(completion(*numbers))
                scheduler.switch()

        for number in range(1, 5):
            client.references.new(result_id(number))
            scheduler.spawn(lambda number=number, wait=wait: wait(number), f"waits for {number}")  # type: ignore[misc]
        scheduler.spawn(complete, "completes")
        scheduler.spawn(lambda client=client: client.inbox.drain(), "service")  # type: ignore[misc]
        scheduler.run()
        assert len(values) == 4
        assert scheduler.now < SOON, f"order {seed}: a wake-up got lost, {scheduler.now} s"


def test_each_callback_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        scheduler, client = new_client(seed, monkeypatch)
        called: list[tuple[int, str]] = []

        def ask(who: str, client: FakeClient = client, called: list[tuple[int, str]] = called) -> None:
            for number in (1, 2):
                client.callbacks.when_ready(result_id(number), lambda number=number: called.append((number, who)))  # type: ignore[misc]

        def complete(client: FakeClient = client, scheduler: Scheduler = scheduler) -> None:
            for number in (1, 2):
                client.redis.entries.append(completion(number))
                scheduler.switch()

        def end(client: FakeClient = client, called: list[tuple[int, str]] = called, s: Scheduler = scheduler) -> None:
            s.block(lambda: len(called) >= 4, 30)

        for number in (1, 2):
            client.references.new(result_id(number))
        for who in ("a", "b"):
            scheduler.spawn(lambda who=who, ask=ask: ask(who), who)  # type: ignore[misc]
        scheduler.spawn(complete, "completes")
        scheduler.spawn(end, "end")
        scheduler.run()
        assert sorted(called) == [(1, "a"), (1, "b"), (2, "a"), (2, "b")], f"order {seed}"
        assert scheduler.now < SOON, f"order {seed}: a wake-up got lost, {scheduler.now} s"


def test_the_outbox_sends_each_task_once_and_counts_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        scheduler, client = new_client(seed, monkeypatch)
        outbox = client.outbox
        withdrawn: list[bytes] = []
        plans = [_plan("a"), _plan("b")]

        def submit(first: int, client: FakeClient = client, plans: list[Plan] = plans) -> None:
            for number in range(first, first + 4):
                client.references.new(result_id(number))
                client.outbox.add(plans[number % 2], (task_id(number), b"", 0, [], {}, 0))

        def withdraw(client: FakeClient = client, withdrawn: list[bytes] = withdrawn) -> None:
            for number in (2, 12):
                if client.outbox.withdraw(task_id(number)):
                    withdrawn.append(task_id(number))

        def serve(client: FakeClient = client, scheduler: Scheduler = scheduler) -> None:
            for _ in range(3):
                client.outbox.flush()
                scheduler.switch()

        for first in (1, 11):
            scheduler.spawn(lambda first=first, submit=submit: submit(first))  # type: ignore[misc]
        scheduler.spawn(withdraw)
        scheduler.spawn(serve)
        scheduler.run()
        outbox.flush()
        everything = sorted(task_id(number) for first in (1, 11) for number in range(first, first + 4))
        assert sorted([*client.published, *withdrawn]) == everything, f"order {seed}"
        assert outbox.waiting == 0, f"order {seed}"
        assert client.in_flight == 8, f"order {seed}"


def test_what_is_in_flight_is_counted_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        scheduler, client = new_client(seed, monkeypatch)
        plan = _plan("a")

        def submit(first: int, client: FakeClient = client, plan: Plan = plan) -> None:
            for number in range(first, first + 3):
                client.references.new(result_id(number))
                client.outbox.add(plan, (task_id(number), b"", 0, [], {}, 0))
                client.outbox.flush()
                client.redis.entries.append(completion(number))

        def wait(client: FakeClient = client, scheduler: Scheduler = scheduler) -> None:
            keys = [result_id(number) for number in (1, 2, 3, 11, 12, 13)]
            client.inbox.wait(lambda: all(key in client.inbox.values for key in keys), lambda: keys, 5)

        for first in (1, 11):
            scheduler.spawn(lambda first=first, submit=submit: submit(first))  # type: ignore[misc]
        scheduler.spawn(wait)
        scheduler.run()
        assert client.in_flight == 0, f"order {seed}"


def test_handles_are_counted_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        scheduler, client = new_client(seed, monkeypatch)
        references = client.references
        gone: list[bytes] = []
        keys = [result_id(number) for number in range(3)]
        for key in keys:
            references.new(key)

        def work(number: int, client: FakeClient = client, keys: list[bytes] = keys) -> None:
            for key in keys:
                client.references.add(key)
                client.references.pin(task_id(number), (key, key))
                client.references.dropped.append(key)
            client.references.unpin(task_id(number))

        def collect(client: FakeClient = client, gone: list[bytes] = gone) -> None:
            for _ in range(4):
                gone += [key for key, _ in client.references.collect({})]

        for number in (7, 8):
            scheduler.spawn(lambda number=number, work=work: work(number))  # type: ignore[misc]
        scheduler.spawn(collect)
        scheduler.spawn(collect)
        scheduler.run()
        assert not gone, f"order {seed}: {gone} went while there were handles"
        references.collect({})
        assert references.counts == dict.fromkeys(keys, 1), f"order {seed}"
        references.dropped.extend(keys)
        assert sorted(key for key, _ in references.collect({})) == sorted(keys), f"order {seed}"


def _plan(name: str) -> Plan:
    return Plan(TaskHeader(function=name.encode(), name=name, owner=OWNER, job=b"jjjj", resources=""), name)
