"""Which queue the tasks of a resource class go to: the common one, or the job's own.

One job at a time has the common queue of a class: the first that asks, for as long as it lasts. What other jobs send
meanwhile goes to queues of their own, which nodes serve in turn (`rabbitry_workers.node.dispatch.turns`), so that no
job waits behind the backlog of another. A job that is alone needs no queue but the common one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import RabbitryBrokerError

QUEUES_KEPT: Final = 1000

log = logging.getLogger("rabbitry")


class ClassQueues:
    """The queues of one client's job, by class. Any thread may use it.

    Args:
        job: the job.
        claim: asks for a common queue for the job; False if another job has it.
    """

    def __init__(self, job: bytes, claim: Callable[[str, bytes], bool]) -> None:
        self._job = job
        self._claim = claim
        self._known: dict[tuple[str, str], str] = {}

    def of(self, resource_class: str, selector: str) -> str:
        """Return the queue of tasks that need `resource_class` on a node whose labels match `selector`.

        While the store does not answer that is the common one, which is never wrong.

        Raises:
            ValueError: together they are too long for the name of a queue.
        """
        asked = (resource_class, selector)
        known = self._known.get(asked)
        if known is not None:
            return known
        queue = names.task_queue(resource_class, selector)
        own = names.task_queue(resource_class, selector, self._job)
        try:
            if not self._claim(queue, self._job):
                queue = own
        except RabbitryBrokerError as error:
            log.debug("cannot ask who has the queue %s: %s", queue, error)
            return queue
        if len(self._known) >= QUEUES_KEPT:
            self._known.clear()
        self._known[asked] = queue
        return queue
