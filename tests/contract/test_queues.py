"""The queue protocol: whatever holds here holds on both engines, on real servers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import redis

from rabbitry_broker import queue_names as names
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import BrokerError, ConnectError
from rabbitry_broker.loop import Loop
from rabbitry_broker.queues import known, open_consumer, open_publisher
from rabbitry_broker.queues.protocol import Delivery, Publisher
from tests.conftest import Engine
from tests.servers import RabbitMQServer, RedisServer, free_port, wait_until

PATIENCE_S = 25.0
# How long a test looks for something that must not happen.
QUIET_S = 0.25

QUEUE = names.task_queue("CPU=1")
OTHER = names.task_queue("CPU=2")
ACTOR = names.actor_queue(b"\1" * 16)


class Receiver:
    """A consumer on a loop that the test drives, and what it received."""

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        on_delivery: Callable[[Delivery], None] | None = None,
        gone: list[str] | None = None,
    ) -> None:
        self.got: list[Delivery] = []
        self.loop = Loop()
        self.consumer = open_consumer(
            endpoint,
            self.loop,
            on_delivery or self.got.append,
            consumer_name=name,
            on_gone=None if gone is None else gone.append,
        )

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.got]

    def run_until(self, condition: Callable[[], object], *others: Receiver) -> None:
        """Drive the loop, and those of others, until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"still not after {PATIENCE_S} s; received {len(self.got)}"
            for receiver in (self, *others):
                receiver.loop.run_once(0.01)

    def run_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.loop.run_once(0.01)

    def take(self, count: int) -> list[Delivery]:
        """Receive until `count` deliveries are there; take them."""
        self.run_until(lambda: len(self.got) >= count)
        taken, self.got[:] = self.got[:count], self.got[count:]
        return taken

    def close(self) -> None:
        self.consumer.close()
        self.loop.close()


class Party:
    """Opens publishers and receivers on one endpoint and closes them in the end."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.announced: list[str] = []
        self._stack = ExitStack()
        self._receivers = 0

    def announce(self, queue: str) -> None:
        """Announce a queue as `Announcements` does."""
        with redis.Redis.from_url(self.endpoint.store_url) as client:
            client.zrem(f"{self.endpoint.prefix}queues:retired", queue)
        self.announced.append(queue)

    def publisher(self, **options: object) -> Publisher:
        settings = {"on_new_queue": self.announced.append, **options}
        publisher = open_publisher(self.endpoint, **settings)  # type: ignore[arg-type]
        self._stack.callback(publisher.close)
        return publisher

    def receiver(
        self, on_delivery: Callable[[Delivery], None] | None = None, gone: list[str] | None = None
    ) -> Receiver:
        self._receivers += 1
        receiver = Receiver(self.endpoint, f"node-{self._receivers}", on_delivery, gone)
        self._stack.callback(receiver.close)
        return receiver

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def party(engine: Engine) -> Iterator[Party]:
    party = Party(engine.endpoint)
    yield party
    party.close()


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def kill_connections(engine: Engine) -> None:
    """Have the server cut every connection of the cluster."""
    if engine.rabbitmq_server is None:
        with redis.Redis.from_url(engine.store_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
    else:
        close = 'fun(C) -> rabbit_networking:close_connection(C, "test") end'
        engine.rabbitmq_server.evaluate(f"lists:foreach({close}, rabbit_networking:connections()).")


# -- the plain way


def test_messages_arrive_in_publishing_order(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=10)
    for body in numbered(300):
        publisher.publish(QUEUE, body)
    received = []
    for _ in range(300):
        (delivery,) = receiver.take(1)
        receiver.consumer.ack(delivery)
        received.append(delivery)
    assert [delivery.body for delivery in received] == numbered(300)
    assert {(delivery.queue, delivery.redelivered, delivery.priority) for delivery in received} == {(QUEUE, False, 0)}


def test_what_was_published_before_anybody_subscribed_waits(party: Party) -> None:
    publisher = party.publisher()
    for body in numbered(5):
        publisher.publish(QUEUE, body)
    assert publisher.flush(PATIENCE_S)
    publisher.close()
    receiver = party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=10)
    assert [delivery.body for delivery in receiver.take(5)] == numbered(5)


def test_acknowledged_messages_are_gone_and_others_come_back(party: Party) -> None:
    publisher, first, second = party.publisher(), party.receiver(), party.receiver()
    for body in numbered(6):
        publisher.publish(QUEUE, body)
    first.consumer.subscribe(QUEUE, prefetch=10)
    deliveries = first.take(6)
    for number in (0, 1, 4):
        first.consumer.ack(deliveries[number])
    first.consumer.close()
    second.consumer.subscribe(QUEUE, prefetch=10)
    again = second.take(3)
    assert [delivery.body for delivery in again] == [b"2", b"3", b"5"]
    assert all(delivery.redelivered for delivery in again)


def test_acknowledging_twice_does_nothing(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=2)
    publisher.publish(QUEUE, b"1")
    (delivery,) = receiver.take(1)
    receiver.consumer.ack(delivery)
    receiver.consumer.ack(delivery)
    receiver.consumer.release(delivery)
    publisher.publish(QUEUE, b"2")
    assert receiver.take(1)[0].body == b"2"


def test_released_messages_come_again_at_once_before_later_ones(party: Party) -> None:
    publisher, first, second = party.publisher(), party.receiver(), party.receiver()
    first.consumer.subscribe(QUEUE, prefetch=2)
    for body in numbered(4):
        publisher.publish(QUEUE, body)
    deliveries = first.take(2)
    first.consumer.unsubscribe(QUEUE)
    for delivery in deliveries:
        first.consumer.release(delivery)
    first.run_for(QUIET_S)
    second.consumer.subscribe(QUEUE, prefetch=1)
    received = []
    for _ in range(4):
        (delivery,) = second.take(1)
        received.append((delivery.body, delivery.redelivered))
        second.consumer.ack(delivery)
    assert received == [(b"0", True), (b"1", True), (b"2", False), (b"3", False)]


def test_a_message_may_be_released_to_the_same_consumer(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    publisher.publish(QUEUE, b"x")
    (delivery,) = receiver.take(1)
    for _ in range(5):
        receiver.consumer.release(delivery)
        (delivery,) = receiver.take(1)
        assert (delivery.body, delivery.redelivered) == (b"x", True)


@pytest.mark.parametrize("body", [b"", b"\0\r\n\xff", b"x" * 3_000_000], ids=["empty", "binary", "3MB"])
def test_bodies_come_as_they_were(party: Party, body: bytes) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    publisher.publish(QUEUE, body)
    assert receiver.take(1)[0].body == body


def test_a_waiting_consumer_is_served_from_many_queues(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    queues = [names.actor_queue(bytes([number]) * 16) for number in range(100)]
    for queue in queues:
        receiver.consumer.subscribe(queue, prefetch=5, exclusive=True)
    for queue in queues:
        publisher.publish(queue, queue.encode())
    received = receiver.take(100)
    assert {delivery.queue for delivery in received} == set(queues)
    assert all(delivery.body == delivery.queue.encode() for delivery in received)


# -- prefetch, priorities, subscriptions


def test_no_more_than_prefetch_deliveries_are_outstanding(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    for body in numbered(8):
        publisher.publish(QUEUE, body)
    assert publisher.flush(PATIENCE_S)
    receiver.consumer.subscribe(QUEUE, prefetch=3)
    receiver.run_until(lambda: len(receiver.got) == 3)
    receiver.run_for(QUIET_S)
    assert receiver.bodies == numbered(3)
    receiver.consumer.ack(receiver.got[1])
    receiver.run_until(lambda: len(receiver.got) == 4)
    receiver.run_for(QUIET_S)
    assert receiver.bodies == numbered(4)


def test_more_is_allowed_beside_what_is_outstanding_in_its_order_and_for_that_time_only(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(ACTOR, prefetch=3, exclusive=True)
    assert not receiver.consumer.allow_more(ACTOR), "there is room"
    assert not receiver.consumer.allow_more("actor.00"), "nobody consumes it"
    for body in numbered(20):
        publisher.publish(ACTOR, body)
    for outstanding in (3, 6, 9):
        receiver.run_until(lambda outstanding=outstanding: len(receiver.got) == outstanding)  # type: ignore[misc]
        receiver.run_for(QUIET_S)
        assert receiver.bodies == numbered(outstanding)
        assert not any(each.redelivered for each in receiver.got)
        if outstanding < 9:
            assert receiver.consumer.allow_more(ACTOR)
    receiver.consumer.ack(receiver.got[0])  # of those that do not count
    receiver.run_for(QUIET_S)
    assert receiver.bodies == numbered(9)
    for each in receiver.got[1:]:
        receiver.consumer.ack(each)
    receiver.run_until(lambda: len(receiver.got) == 12)
    receiver.run_for(QUIET_S)
    assert receiver.bodies == numbered(12), "three, as before"


def test_more_is_allowed_over_another_connection_too(party: Party, engine: Engine) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(ACTOR, prefetch=3, exclusive=True)
    for body in numbered(20):
        publisher.publish(ACTOR, body)
    receiver.run_until(lambda: len(receiver.got) == 3)
    assert receiver.consumer.allow_more(ACTOR)
    receiver.run_until(lambda: len(receiver.got) == 6)
    kill_connections(engine)
    tenth = numbered(10)[-1]
    receiver.run_until(lambda: tenth in receiver.bodies or (receiver.consumer.allow_more(ACTOR) and False))


def test_a_full_queue_does_not_hold_up_another(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    receiver.consumer.subscribe(OTHER, prefetch=1)
    publisher.publish(QUEUE, b"1")
    publisher.publish(QUEUE, b"2")
    (held,) = receiver.take(1)
    for number in range(20):
        publisher.publish(OTHER, b"%d" % number)
        (delivery,) = receiver.take(1)
        assert (delivery.queue, delivery.body) == (OTHER, b"%d" % number)
        receiver.consumer.ack(delivery)
    receiver.consumer.ack(held)
    assert receiver.take(1)[0].body == b"2"


def test_subscribing_again_changes_prefetch(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    for body in numbered(10):
        publisher.publish(QUEUE, body)
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    (delivery,) = receiver.take(1)
    receiver.consumer.ack(delivery)
    (delivery,) = receiver.take(1)
    receiver.consumer.subscribe(QUEUE, prefetch=5)
    receiver.consumer.ack(delivery)
    receiver.run_until(lambda: len(receiver.got) >= 5)
    receiver.run_for(QUIET_S)
    assert sorted(receiver.bodies) == numbered(5, start=2)


def test_higher_priority_comes_first(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    for priority in (0, 9, 5, 0, 9, 5):
        publisher.publish(QUEUE, b"%d" % priority, priority=priority)
    assert publisher.flush(PATIENCE_S)
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    received = []
    for _ in range(6):
        (delivery,) = receiver.take(1)
        received.append((delivery.body, delivery.priority))
        receiver.consumer.ack(delivery)
    assert received == [(b"9", 9), (b"9", 9), (b"5", 5), (b"5", 5), (b"0", 0), (b"0", 0)]


def test_a_consumer_that_waits_already_gets_the_first_message_of_a_priority(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    receiver.run_for(QUIET_S)
    for priority in (3, 0, 7):
        publisher.publish(QUEUE, b"x", priority=priority)
        (delivery,) = receiver.take(1)
        assert delivery.priority == priority
        receiver.consumer.ack(delivery)


@pytest.mark.parametrize("priority", [-1, 10])
def test_impossible_priorities_are_refused(party: Party, priority: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 9"):
        party.publisher().publish(QUEUE, b"x", priority=priority)


def test_nothing_arrives_after_unsubscribe_and_deliveries_stay_valid(party: Party) -> None:
    publisher, first, second = party.publisher(), party.receiver(), party.receiver()
    first.consumer.subscribe(QUEUE, prefetch=2)
    for body in numbered(2):
        publisher.publish(QUEUE, body)
    deliveries = first.take(2)
    first.consumer.unsubscribe(QUEUE)
    publisher.publish(QUEUE, b"later")
    first.run_for(QUIET_S)
    assert first.got == []
    first.consumer.ack(deliveries[0])
    first.consumer.ack(deliveries[1])
    first.run_for(QUIET_S)
    second.consumer.subscribe(QUEUE, prefetch=10)
    (delivery,) = second.take(1)
    assert delivery.body == b"later"
    second.run_for(QUIET_S)
    assert second.got == []


def test_subscribing_and_unsubscribing_by_turns_loses_nothing(party: Party) -> None:
    publisher, first, second = party.publisher(), party.receiver(), party.receiver()
    seen: Counter[bytes] = Counter()
    for body in numbered(200):
        publisher.publish(QUEUE, body)
    second.consumer.subscribe(QUEUE, prefetch=1)
    turn = 0
    deadline = time.monotonic() + PATIENCE_S
    while len(seen) < 200:
        assert time.monotonic() < deadline
        turn += 1
        if turn % 3 == 0:
            first.consumer.subscribe(QUEUE, prefetch=3)
        elif turn % 3 == 1:
            first.consumer.unsubscribe(QUEUE)
        for receiver in (first, second):
            receiver.loop.run_once(0.002)
            for delivery in receiver.got:
                seen[delivery.body] += 1
                receiver.consumer.ack(delivery)
            receiver.got.clear()
    assert set(seen) == set(numbered(200))


def test_an_exclusive_queue_has_one_consumer_until_that_leaves(party: Party) -> None:
    publisher, first, second = party.publisher(), party.receiver(), party.receiver()
    first.consumer.subscribe(ACTOR, prefetch=2, exclusive=True)
    publisher.publish(ACTOR, b"0")
    (held,) = first.take(1)
    second.consumer.subscribe(ACTOR, prefetch=2, exclusive=True)
    second.run_for(QUIET_S)
    for body in numbered(4, start=1):
        publisher.publish(ACTOR, body)
    first.run_until(lambda: len(first.got) == 1, second)
    second.run_for(QUIET_S)
    assert second.got == []
    first.consumer.ack(held)
    first.run_until(lambda: len(first.got) == 2, second)
    first.close()
    assert [(d.body, d.redelivered) for d in second.take(2)] == [(b"1", True), (b"2", True)]


# -- announcing and deleting


def test_new_queues_are_announced_before_their_first_message_and_once(party: Party) -> None:
    publisher = party.publisher()
    for queue in (QUEUE, QUEUE, OTHER, QUEUE):
        publisher.publish(queue, b"x")
    assert party.announced == [QUEUE, OTHER]


def test_a_deleted_queue_forgets_its_messages_and_works_again(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    publisher.publish(QUEUE, b"old")
    assert publisher.flush(PATIENCE_S)
    receiver.consumer.delete_queue(QUEUE)
    receiver.run_for(QUIET_S)
    for body in numbered(3):
        publisher.publish(QUEUE, body)
    assert publisher.flush(PATIENCE_S)
    receiver.consumer.subscribe(QUEUE, prefetch=5)
    assert sorted(delivery.body for delivery in receiver.take(3)) == numbered(3)


def test_a_queue_deleted_under_its_consumer_is_consumed_again(party: Party) -> None:
    publisher, receiver, other = party.publisher(), party.receiver(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=5)
    publisher.publish(QUEUE, b"before")
    receiver.consumer.ack(receiver.take(1)[0])
    receiver.run_for(QUIET_S)
    other.consumer.delete_queue(QUEUE)
    other.run_for(QUIET_S)
    publisher.publish(QUEUE, b"after")
    assert publisher.flush(PATIENCE_S)
    assert receiver.take(1)[0].body == b"after"


def test_deleting_a_queue_that_does_not_exist_does_nothing(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.delete_queue(names.actor_queue(b"\7" * 16))
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    publisher.publish(QUEUE, b"x")
    assert receiver.take(1)[0].body == b"x"


# -- confirms and closing


def test_each_message_is_confirmed_once(party: Party) -> None:
    publisher = party.publisher()
    confirmed: Counter[int] = Counter()
    for number in range(200):
        publisher.publish(QUEUE, b"x", on_confirm=lambda number=number: confirmed.update([number]))
    assert publisher.flush(PATIENCE_S)
    assert confirmed == Counter(range(200))


def test_a_publisher_on_a_loop_publishes_and_confirms_there(party: Party) -> None:
    receiver = party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=10)
    publisher = party.publisher(loop=receiver.loop)
    events: list[str] = []
    receiver.loop.add_callback(lambda: publisher.publish(QUEUE, b"x", on_confirm=lambda: events.append("confirmed")))
    receiver.run_until(lambda: receiver.got and events)
    assert receiver.bodies == [b"x"]
    assert events == ["confirmed"]
    publisher.close()


def test_a_closed_publisher_says_so(party: Party) -> None:
    publisher = party.publisher()
    publisher.publish(QUEUE, b"x")
    publisher.close()
    publisher.close()
    with pytest.raises(BrokerError, match="closed"):
        publisher.publish(QUEUE, b"x")


def test_close_sends_what_was_published(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    for body in numbered(500):
        publisher.publish(QUEUE, body)
    publisher.close()
    receiver.consumer.subscribe(QUEUE, prefetch=1000)
    assert [delivery.body for delivery in receiver.take(500)] == numbered(500)


def test_consumers_leave_no_key_behind(party: Party, engine: Engine) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=4)
    receiver.consumer.subscribe(ACTOR, prefetch=4, exclusive=True)
    for priority in range(10):
        publisher.publish(QUEUE, b"x", priority=priority)
    for _ in range(10):
        receiver.consumer.ack(receiver.take(1)[0])
    publisher.close()
    receiver.close()
    assert engine.keys() == []


# -- many


def test_messages_of_many_threads_keep_their_order_per_thread(party: Party) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    queues = [names.task_queue(f"CPU={number}") for number in range(1, 4)]
    errors: list[BaseException] = []

    def publish(thread: int) -> None:
        try:
            for number in range(250):
                publisher.publish(queues[thread % 3], b"%d %d" % (thread, number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for queue in queues:
        receiver.consumer.subscribe(queue, prefetch=1000)
    numbers: dict[int, list[int]] = {}
    for delivery in receiver.take(2000):
        thread_number, number = map(int, delivery.body.split())
        numbers.setdefault(thread_number, []).append(number)
        receiver.consumer.ack(delivery)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not errors
    assert numbers == {thread: list(range(250)) for thread in range(8)}


def test_twenty_thousand_messages(party: Party) -> None:
    publisher = party.publisher()
    seen: list[int] = []

    def on_delivery(delivery: Delivery) -> None:
        seen.append(int(delivery.body[:5]))
        receiver.consumer.ack(delivery)

    receiver = party.receiver(on_delivery)
    receiver.consumer.subscribe(QUEUE, prefetch=100)
    padding = b"." * 1000

    def publish() -> None:
        for number in range(20_000):
            publisher.publish(QUEUE, b"%05d" % number + padding)

    thread = threading.Thread(target=publish)
    thread.start()
    receiver.run_until(lambda: len(seen) >= 20_000)
    thread.join(PATIENCE_S)
    assert seen == list(range(20_000))
    assert publisher.flush(PATIENCE_S)


# -- faults

CONSUMER_PROGRAM = """
import sys
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.loop import Loop
from rabbitry_broker.queues import open_consumer
store_url, broker_url, prefix, queue, exclusive = sys.argv[1:]
loop = Loop()
consumer = open_consumer(
    Endpoint(store_url, broker_url or None, prefix=prefix),
    loop,
    lambda delivery: print(delivery.body.decode(), flush=True),
    consumer_name="victim",
)
consumer.subscribe(queue, prefetch=5, exclusive=bool(exclusive))
print("ready", flush=True)
loop.run()
"""


@pytest.mark.parametrize("queue", [QUEUE, ACTOR], ids=["shared", "exclusive"])
def test_messages_of_a_killed_consumer_are_delivered_again(party: Party, engine: Engine, queue: str) -> None:
    exclusive = queue == ACTOR
    publisher, survivor = party.publisher(), party.receiver()
    arguments = [engine.store_url, engine.broker_url or "", engine.prefix, queue, "1" if exclusive else ""]
    victim = subprocess.Popen(
        [sys.executable, "-c", CONSUMER_PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        for body in numbered(5):
            publisher.publish(queue, body)
        assert [victim.stdout.readline().strip() for _ in range(5)] == numbered(5)
        survivor.consumer.subscribe(queue, prefetch=10, exclusive=exclusive)
        survivor.run_for(QUIET_S)
        assert survivor.got == []
    finally:
        victim.kill()
        victim.communicate()
    again = survivor.take(5)
    assert [delivery.body for delivery in again] == numbered(5)
    assert all(delivery.redelivered for delivery in again)


def test_nothing_is_lost_when_the_server_cuts_all_connections(party: Party, engine: Engine) -> None:
    publisher = party.publisher()
    seen: Counter[bytes] = Counter()

    def on_delivery(delivery: Delivery) -> None:
        seen[delivery.body] += 1
        receiver.consumer.ack(delivery)

    receiver = party.receiver(on_delivery)
    receiver.consumer.subscribe(QUEUE, prefetch=20)
    errors: list[BaseException] = []

    def publish() -> None:
        try:
            for body in numbered(3000):
                publisher.publish(QUEUE, body)
                time.sleep(0.0005)
            assert publisher.flush(PATIENCE_S)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    for so_many in (200, 1000, 2000):
        receiver.run_until(lambda so_many=so_many: len(seen) >= so_many or errors)
        kill_connections(engine)
    receiver.run_until(lambda: len(seen) >= 3000 or errors)
    thread.join(PATIENCE_S)
    assert not errors
    assert set(seen) == set(numbered(3000))


def test_a_quiet_consumer_survives_a_cut_connection(party: Party, engine: Engine) -> None:
    publisher, receiver = party.publisher(), party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=2)
    receiver.consumer.subscribe(ACTOR, prefetch=2, exclusive=True)
    publisher.publish(QUEUE, b"held")
    (held,) = receiver.take(1)
    assert publisher.flush(PATIENCE_S)  # Unconfirmed, it would be sent again.
    kill_connections(engine)
    for queue in (QUEUE, ACTOR):
        publisher.publish(queue, b"fresh")
    receiver.run_until(lambda: receiver.bodies.count(b"fresh") == 2)
    receiver.consumer.ack(held)  # Valid or stale, it must do no harm.
    publisher.publish(ACTOR, b"fresh")
    receiver.run_until(lambda: receiver.bodies.count(b"fresh") == 3)


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["restart", "kill"])
@pytest.mark.parametrize("kind", ["embedded", "rabbitmq"])
def test_nothing_is_lost_when_the_server_restarts(
    kind: str,
    how: str,
    redis_server: RedisServer,
    start_redis: Callable[..., RedisServer],
    start_rabbitmq: Callable[..., RabbitMQServer],
) -> None:
    server: RedisServer | RabbitMQServer
    if kind == "embedded":
        server = start_redis(appendonly=True)
        endpoint = Endpoint(server.url)
    else:
        server = start_rabbitmq()
        endpoint = Endpoint(redis_server.url, server.url)
    party = Party(endpoint)
    publisher = party.publisher()
    seen: Counter[bytes] = Counter()

    def on_delivery(delivery: Delivery) -> None:
        seen[delivery.body] += 1
        receiver.consumer.ack(delivery)

    receiver = party.receiver(on_delivery)
    receiver.consumer.subscribe(QUEUE, prefetch=20)
    errors: list[BaseException] = []

    def publish() -> None:
        try:
            for body in numbered(4000):
                publisher.publish(QUEUE, body)
                time.sleep(0.0005)
            assert publisher.flush(PATIENCE_S)
        except BaseException as error:
            errors.append(error)

    def restart() -> None:
        if how == "kill":
            server.kill()
            server.start()
        else:
            server.restart()

    threads = [threading.Thread(target=publish)]
    threads[0].start()
    receiver.run_until(lambda: len(seen) >= 500)
    threads.append(threading.Thread(target=restart))
    threads[1].start()
    receiver.run_until(lambda: len(seen) >= 4000 or errors)
    for thread in threads:
        thread.join(PATIENCE_S)
    party.close()
    assert not errors
    assert set(seen) == set(numbered(4000))


def test_publish_gives_up_after_its_patience_and_recovers(
    engine: Engine, start_redis: Callable[..., RedisServer], start_rabbitmq: Callable[..., RabbitMQServer]
) -> None:
    server: RedisServer | RabbitMQServer
    if engine.broker_url is None:
        server = start_redis()
        endpoint = Endpoint(server.url)
    else:
        server = start_rabbitmq()
        endpoint = Endpoint(engine.store_url, server.url)
    party = Party(endpoint)
    publisher = party.publisher(patience=0.5)
    publisher.publish(QUEUE, b"x")
    assert publisher.flush(PATIENCE_S)
    server.kill()

    def publish_until_it_raises() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            publisher.publish(QUEUE, b"x")
            time.sleep(0.01)

    with pytest.raises(BrokerError, match=str(server.port)) as caught:
        publish_until_it_raises()
    assert "0.5 s" in str(caught.value)
    if server.password:
        assert server.password not in str(caught.value)
    server.start()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            publisher.publish(QUEUE, b"y")
            break
        except BrokerError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert publisher.flush(PATIENCE_S)
    party.close()


# -- connecting


def wrong_endpoint(engine: Engine, start_redis: Callable[..., RedisServer], wrong: str) -> Endpoint:
    if engine.broker_url is None:
        parts = urlsplit(start_redis(password="right").url)
        urls = {
            "port": f"redis://:s3cret@127.0.0.1:{free_port()}",
            "password": f"redis://:s3cret@127.0.0.1:{parts.port}",
            "host": "redis://:s3cret@host.invalid",
            "scheme": "http://:s3cret@127.0.0.1",
        }
        return Endpoint(urls[wrong])
    parts = urlsplit(engine.broker_url)
    urls = {
        "port": f"amqp://tester:s3cret@127.0.0.1:{free_port()}/tests",
        "password": f"amqp://{parts.username}:s3cret@127.0.0.1:{parts.port}/tests",
        "host": "amqp://tester:s3cret@host.invalid/tests",
        "vhost": engine.broker_url.rpartition("/")[0] + "/nowhere",
        "scheme": "http://tester:s3cret@127.0.0.1/tests",
    }
    return Endpoint(engine.store_url, urls[wrong])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("port", "nothing is listening"),
        ("password", "password"),
        ("host", "host.invalid.* cannot be found"),
        ("vhost", "no virtual host"),
        ("scheme", "not an? .* address"),
    ],
)
@pytest.mark.parametrize("what", ["publisher", "consumer"])
def test_connecting_fails_soon_with_a_clear_error(
    engine: Engine, start_redis: Callable[..., RedisServer], what: str, wrong: str, text: str
) -> None:
    if engine.broker_url is None and wrong == "vhost":
        pytest.skip("Redis has no virtual hosts")
    endpoint = wrong_endpoint(engine, start_redis, wrong)
    started = time.monotonic()
    loop = Loop()
    threads_before = threading.active_count()

    def connect() -> None:
        if what == "publisher":
            open_publisher(endpoint)
        else:
            open_consumer(endpoint, loop, lambda _: None, consumer_name="node")

    with pytest.raises(ConnectError, match=text) as caught:
        connect()
    assert time.monotonic() - started < 5.5
    assert "s3cret" not in str(caught.value) + repr(caught.value)
    assert caught.value.remedy
    # pika looks a host up in a thread of its own, which may be about to end.
    wait_until(lambda: threading.active_count() <= threads_before, "the threads of the attempt to end")
    loop.close()


def abandoned(party: Party) -> tuple[Receiver, Receiver, list[Delivery]]:
    """Have one consumer of an actor's queue take 4 of 6 messages, acknowledge the second and abandon the queue.

    Returns:
        It, another one that waited and now has what is left, and what the first took.
    """
    publisher, first, second = party.publisher(), party.receiver(), party.receiver()
    first.consumer.subscribe(ACTOR, prefetch=4, exclusive=True)
    for body in numbered(6):
        publisher.publish(ACTOR, body)
    deliveries = first.take(4)
    second.consumer.subscribe(ACTOR, prefetch=10, exclusive=True)
    second.run_for(QUIET_S)
    assert second.got == []
    first.consumer.ack(deliveries[1])
    first.consumer.abandon(ACTOR)
    second.run_until(lambda: len(second.got) >= 5, first)
    return first, second, deliveries


def test_an_abandoned_queue_gives_all_to_the_next_consumer_in_order(party: Party) -> None:
    """What was acknowledged before does not come again, and nothing behind overtakes what does."""
    first, second, deliveries = abandoned(party)
    first.consumer.ack(deliveries[0])
    first.run_for(QUIET_S)
    assert [each.body for each in second.got] == [b"0", b"2", b"3", b"4", b"5"]
    assert all(each.redelivered for each in second.got[:3])
    assert first.got == []


def test_a_publisher_remembers_so_many_queues_and_announces_the_others_anew(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "QUEUES_KEPT", 3)
    publisher, receiver = party.publisher(), party.receiver()
    queues = [names.task_queue(f"CPU={number}") for number in range(1, 8)]
    for body in (b"1", b"2"):
        for queue in queues:
            publisher.publish(queue, body)
            assert len(publisher._known) <= 3  # type: ignore[attr-defined]
    for queue in queues:
        receiver.consumer.subscribe(queue, prefetch=5)
    taken = receiver.take(2 * len(queues))
    for queue in queues:
        assert [each.body for each in taken if each.queue == queue] == [b"1", b"2"]
    assert party.announced == queues * 2


# -- queues that nobody has used for long ------------------------------------------------------------------------------


def retire(receiver: Receiver, queue: str) -> list[str]:
    """Have a queue retired; the list that is returned tells of it when it is."""
    told: list[str] = []
    receiver.consumer.retire_queue(queue, lambda: told.append(queue))
    return told


@pytest.mark.parametrize("priority", [0, 3])
def test_what_is_published_to_a_retired_queue_announces_it_anew_and_is_not_lost(party: Party, priority: int) -> None:
    gone: list[str] = []
    receiver, other = party.receiver(gone=gone), party.receiver(gone=gone)
    publisher = party.publisher(on_new_queue=party.announce)
    for each in (receiver, other):
        each.consumer.subscribe(QUEUE, prefetch=10)
    publisher.publish(QUEUE, b"before")
    receiver.run_until(lambda: receiver.got or other.got, other)
    for each in (receiver, other):
        for delivery in each.got:
            each.consumer.ack(delivery)
        each.got.clear()
        each.run_for(QUIET_S)  # until the broker knows
    told = retire(receiver, QUEUE)
    receiver.run_until(lambda: told and len(gone) == 2, other)
    assert set(gone) == {QUEUE}
    party.announced.clear()
    for number in range(3):
        publisher.publish(QUEUE, b"after %d" % number, priority=priority)
    wait_until(lambda: publisher.flush(0.1) and QUEUE in party.announced, "it is announced anew", PATIENCE_S)
    receiver.consumer.subscribe(QUEUE, prefetch=10)
    assert sorted(delivery.body for delivery in receiver.take(3)) == [b"after 0", b"after 1", b"after 2"]


def test_a_queue_that_holds_messages_is_not_retired(party: Party) -> None:
    gone: list[str] = []
    receiver, publisher = party.receiver(gone=gone), party.publisher()
    publisher.publish(QUEUE, b"one")
    assert publisher.flush(PATIENCE_S)
    told = retire(receiver, QUEUE)
    receiver.run_for(QUIET_S)
    assert not told
    receiver.consumer.subscribe(QUEUE, prefetch=10)
    assert [delivery.body for delivery in receiver.take(1)] == [b"one"]
    assert not gone
