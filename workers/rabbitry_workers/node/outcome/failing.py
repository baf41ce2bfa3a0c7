"""Failing many tasks at once: the calls of a dead actor, what an environment that cannot be set up leaves behind.

There may be ten thousands of them, and the loop they are failed on serves the whole node. So they are committed in
batches, and after `SLICE_SECONDS` the loop does something else first. Their deliveries are acknowledged when their
results are committed: a node that dies in between leaves the rest to others.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from rabbitry.exceptions import RabbitrySystemError, store_error
from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import KIND_ACTOR_CREATION, Task, TaskHeader
from rabbitry_broker.store.server import is_full, may_pass
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Commits, Failed, Settle
from rabbitry_workers.node.model.work import Held

SLICE_SECONDS: Final = 0.005
PAUSE_SECONDS: Final = 0.001
BATCH_TASKS: Final = 200  # 2 ms, of which what a commit costs by itself is a tenth
AGAIN_SECONDS: Final = 1.0  # until the next try when Redis is away
SHORT_BYTES: Final = 4096  # of an error that Redis has room for, if it has room for anything

log = logging.getLogger("rabbitry.node")


class Failing:
    """Loop thread only.

    Args:
        node: whose loop it is.
        settle: of deliveries.
        commits: of errors.
        refuse_creation: an actor cannot be created, for a cause: tells who made it, and settles.
        on_done: called when none are left.
    """

    def __init__(
        self,
        node: Node,
        settle: Settle,
        commits: Commits,
        refuse_creation: Callable[[Held, TaskHeader, Task, bytes], None],
        on_done: Callable[[], None],
    ) -> None:
        self._node = node
        self._settle = settle
        self._commits = commits
        self._refuse_creation = refuse_creation
        self._on_done = on_done
        self._waiting: deque[Failed] = deque()  # emptied by `_step`, which is under way as long as it is not
        self._under_way = False

    def __bool__(self) -> bool:
        """True while some wait."""
        return bool(self._waiting)

    def add(self, failed: Iterable[Failed]) -> None:
        """Fail tasks, soon; the first of them before this returns, if none wait."""
        self._waiting.extend(failed)
        if not self._under_way:
            self._step()

    def gather(self, failed: Iterable[Failed]) -> None:
        """Fail tasks when what the loop has in hand is done: together with those of the messages that come with it."""
        self._waiting.extend(failed)
        if not self._under_way and self._waiting:
            self._under_way = True
            self._node.loop.add_callback(self._step)

    def fail_tasks(self, held: Held, header: TaskHeader, tasks: list[Task], error: Exception) -> None:
        """Tasks that their delivery counts as outstanding end with an error, none of them having run."""
        cause = store_error(error)
        if header.kind == KIND_ACTOR_CREATION:
            for at, task in enumerate(tasks):
                try:
                    self._refuse_creation(held, header, task, cause)
                except RabbitryBrokerError as trouble:
                    log.warning("cannot yet refuse actor %s: %s", header.actor.hex(), trouble)
                    self._node.loop.call_later(AGAIN_SECONDS, partial(self.fail_tasks, held, header, tasks[at:], error))
                    return
        else:
            self.add((held, header, task, records.ERROR + cause) for task in tasks)

    def task_ids(self) -> Iterator[bytes]:
        """Yield those that wait."""
        for _, _, task, _ in self._waiting:
            yield task[0]

    def _step(self) -> None:
        pause = PAUSE_SECONDS
        until = time.monotonic() + SLICE_SECONDS
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_TASKS, len(self._waiting)))]
            try:
                self._commit(batch)
            except RabbitryBrokerError as error:
                log.warning("cannot yet fail %d tasks: %s", len(batch) + len(self._waiting), error)
                self._waiting.extendleft(reversed(batch))
                pause = AGAIN_SECONDS
                break
            for held, _, _, _ in batch:
                self._settle(held, 1)
            if time.monotonic() >= until:
                break
        self._under_way = bool(self._waiting)
        if self._waiting:
            self._node.loop.call_later(pause, self._step)
        else:
            self._on_done()

    def _commit(self, batch: list[Failed]) -> None:
        """Commit what can be: one task on which that stumbles must not keep the others, or its delivery, for good."""
        try:
            self._commits.commit_records(batch)
        except Exception as error:
            for_good = not isinstance(error, RabbitryBrokerError) or not may_pass(error)
            if not for_good and not is_full(error):
                raise
            if len(batch) == 1:
                self._commit_short(batch[0], error, for_good=for_good)
                return
            for each in batch:
                self._commit([each])

    def _commit_short(self, failed: Failed, refused: Exception, *, for_good: bool) -> None:
        """Redis does not take the error of one task: say so in a few words instead.

        Raises:
            RabbitryBrokerError: it may take it later.
        """
        held, header, task, record = failed
        if len(record) > SHORT_BYTES:
            text = f"The task failed, and Redis did not take its error of {len(record)} bytes: {refused}"
            short = records.ERROR + store_error(RabbitrySystemError(text[: SHORT_BYTES // 2]))
            try:
                self._commits.commit_records([(held, header, task, short)])
            except Exception as error:
                if isinstance(error, RabbitryBrokerError) and may_pass(error):
                    raise
            else:
                return
        elif not for_good:
            raise refused
        log.error("nobody can be told that task %s failed", task[0].hex(), exc_info=refused)
