"""Which queue the work of a class of resources goes to: the common one belongs to one job at a time."""

from __future__ import annotations

from rabbitry.core.submit.class_queues import QUEUES_KEPT, ClassQueues
from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import ConnectionLost


class Claims:
    """A store that knows who has which queue."""

    def __init__(self) -> None:
        self.holders: dict[str, bytes] = {}
        self.asked = 0
        self.away = False

    def claim(self, queue: str, job: bytes) -> bool:
        self.asked += 1
        if self.away:
            raise ConnectionLost("away")
        return self.holders.setdefault(queue, job) == job


def test_the_first_job_has_the_common_queue_and_others_their_own() -> None:
    claims = Claims()
    one, two = ClassQueues(b"1111", claims.claim), ClassQueues(b"2222", claims.claim)
    assert one.of("CPU=1", "") == names.task_queue("CPU=1")
    assert two.of("CPU=1", "") == names.task_queue("CPU=1", job=b"2222")
    assert two.of("CPU=2", "") == names.task_queue("CPU=2")
    assert two.of("CPU=1", "zone=a") == names.task_queue("CPU=1", "zone=a")
    assert one.of("CPU=1", "zone=a") == names.task_queue("CPU=1", "zone=a", b"1111")


def test_it_is_asked_once_and_little_is_kept() -> None:
    claims = Claims()
    queues = ClassQueues(b"1111", claims.claim)
    for _ in range(3):
        queues.of("CPU=1", "")
    assert claims.asked == 1
    for number in range(3 * QUEUES_KEPT):
        queues.of(f"CPU={number}", "")
    assert len(queues._known) <= QUEUES_KEPT


def test_while_the_store_is_away_it_is_the_common_one_and_asked_again() -> None:
    claims = Claims()
    claims.holders[names.task_queue("CPU=1")] = b"1111"
    claims.away = True
    queues = ClassQueues(b"2222", claims.claim)
    assert queues.of("CPU=1", "") == names.task_queue("CPU=1")
    claims.away = False
    assert queues.of("CPU=1", "") == names.task_queue("CPU=1", job=b"2222")
