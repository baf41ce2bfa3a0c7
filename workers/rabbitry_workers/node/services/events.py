"""What a node tells of the tasks that it has: marks of those that ended, and once a second of those that have not.

HOT PATH: `done` and `calls_done`, whose cost is per chunk and not per task. Nothing is marked when a task comes, is
handed out or begins: most have ended before anybody could look, and the mark of their end says when all of that was.
Of the others each look marks what it sees first: what waits in a lane, what an executor has, and what of that runs.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from rabbitry import error_types
from rabbitry_broker import events, records
from rabbitry_broker.events import Recorder
from rabbitry_broker.ids import TASK_BYTES
from rabbitry_broker.messages import Task, TaskHeader, encode_header
from rabbitry_workers.node.model.lanes import Executor, Lanes, State
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Failed
from rabbitry_workers.node.model.work import Chunk

PAIR_BYTES: Final = 8  # two floats for each task, see `events.RunTimes`
LOOK_AT_MOST: Final = 20_000
"""Tasks that one look marks as waiting: a node has that many in hand seldom, and a look must be short."""


class SendsEvents(Protocol):
    """What the store does for it."""

    def send(self, recorder: Recorder, who: dict[str, Any]) -> None:
        """Send what was recorded, or drop it."""


class NodeEvents:
    """Service on the agent's loop: `start`, `run_once`, `close`.

    Args:
        node: whose tasks they are.
        lanes: in which tasks wait.
        executors: all that are alive, by the process's number.
        send: sends marks to the store.
        now: the time, for tests.
        monotonic: the clock that chunks are stamped by.
    """

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        executors: Mapping[int, Executor],
        *,
        send: SendsEvents | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._lanes = lanes
        self._executors = executors
        self._send = send or node.store.events
        self._now = now
        self._monotonic = monotonic
        self.recorder = Recorder(on=node.config.events, clock=now)
        self._offset = now() - monotonic()
        self._running: dict[int, tuple[int, int]] = {}  # what was told of executors: number of the task, word
        self._begun: dict[int, float] = {}  # constructors that run, by process
        self._who = {
            "id": node.id,
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "node": node.id,
            "name": node.config.name,
        }

    def start(self) -> None:
        """Look and send from now on."""
        if self.recorder.on:
            self._node.periodic.every(events.SEND_SECONDS, self.run_once)

    def run_once(self) -> None:
        """Mark what is in hand and was not marked, and send all marks."""
        self._offset = self._now() - self._monotonic()
        self._look()
        if self.recorder:
            self._send.send(self.recorder, self._who)

    def close(self) -> None:
        """Send what is left."""
        if self.recorder:
            self._send.send(self.recorder, self._who)

    # -- what ended --------------------------------------------------------------------------------------------------

    def done(self, executor: Executor, chunk: Chunk, tasks: list[Task], since: float, times: bytes) -> None:
        """Tasks of a chunk have ended. HOT PATH.

        Args:
            executor: which ran them.
            chunk: of which they are.
            tasks: in the order in which they ran.
            since: what `times` counts from.
            times: of each, when it ended and how long it took (`events.RunTimes`); b"" if nobody has told.
        """
        if len(times) != PAIR_BYTES * len(tasks):
            times = b""
        ids = b"".join([task[0] for task in tasks])
        attempts = b"".join([_byte(task[2]) for task in tasks]) if any(task[2] for task in tasks) else b""
        offset = self._offset
        self.recorder.add(
            (
                events.DONE,
                chunk.header_bytes,
                chunk.held.received_at + offset,
                chunk.sent_at + offset,
                since,
                ids,
                times,
                attempts,
                executor.client_id,
                executor.pid,
            ),
            len(tasks),
            len(times),
        )

    def failed_there(self, executor: Executor, failures: list[Any]) -> None:
        """Tasks of an executor have failed: (task id, attempt, kind of error, text)."""
        now = self._now()
        for task_id, attempt, error, text in failures:
            mark = (events.FAILED, b"", now, task_id, attempt, error, text, executor.client_id, executor.pid)
            self.recorder.add(mark, 1, len(text))

    def failed(self, failed: list[Failed]) -> None:
        """Tasks get errors from this node, whether an executor had them or not: one mark for those with the same."""
        if not self.recorder.on:
            return
        same: dict[tuple[int, int, int], tuple[TaskHeader, int, bytes, list[bytes]]] = {}
        for _, header, task, record in failed:
            if header.events and record[0] == records.ERROR_TAG:
                key = (id(header), id(record), task[2])
                same.setdefault(key, (header, task[2], record, []))[3].append(task[0])
        for header, attempt, record, ids in same.values():
            kind, text = error_types.of_stored(record[1:])
            text = text[-events.TEXT_CHARACTERS :]
            mark = (events.FAILED, encode_header(header), self._now(), b"".join(ids), attempt, kind, text, b"", 0)
            self.recorder.add(mark, len(ids), len(text))

    def lost(self, executor: Executor, chunk: Chunk, task: Task, why: str) -> None:
        """A task was lost with its executor, and is run again."""
        if chunk.header.events and self.recorder.on:
            text = why[-events.TEXT_CHARACTERS :]
            mark = (events.FAILED, chunk.header_bytes, self._now(), task[0], task[2], error_types.WORKER_DIED, text)
            self.recorder.add((*mark, executor.client_id, executor.pid), 1, len(text))

    def creation(self, executor: Executor, header: TaskHeader, task: Task, error: bytes | None) -> None:
        """An executor hosts an actor: the constructor begins (None), or has ended (b"", or an error)."""
        if not (header.events and self.recorder.on):
            return
        encoded, now, worker = encode_header(header), self._now(), (executor.client_id, executor.pid)
        if error is None:
            self._begun[executor.pid] = now
            self.recorder.add((events.RUNNING, encoded, now, task[0], task[2], *worker), 1)
            return
        begun = self._begun.pop(executor.pid, now)
        attempts = _byte(task[2]) if task[2] else b""
        times = array("f", (now - begun, now - begun)).tobytes()
        self.recorder.add((events.DONE, encoded, begun, begun, begun, task[0], times, attempts, *worker), 1)
        if error:
            kind, text = error_types.of_stored(error)
            text = text[-events.TEXT_CHARACTERS :]
            self.recorder.add((events.FAILED, encoded, now, task[0], task[2], kind, text, *worker), 1, len(text))

    # -- what has not ended ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        left = LOOK_AT_MOST
        for lane in self._lanes.values():
            for piece in lane.all_pieces() if lane.waiting else ():
                if piece.told or not piece.header.events or left <= 0:
                    continue
                piece.told = True
                left -= len(piece.tasks)
                self._mark_all(events.QUEUED, piece.header_bytes, piece.since + self._offset, list(piece.tasks))
        for executor in self._executors.values():
            if executor.state is not State.DEAD and executor.chunks:
                self._look_at(executor)
            else:
                self._running.pop(executor.pid, None)

    def _look_at(self, executor: Executor) -> None:
        for chunk in executor.chunks:
            if chunk.header.events and not chunk.told:
                chunk.told = True
                tasks = [task for _, task in chunk.left()]
                at = chunk.sent_at + self._offset
                self._mark_all(events.LEASED, chunk.header_bytes, at, tasks, executor.client_id, executor.pid)
        found = executor.running()
        if found is None:
            return
        chunk, index = found
        word = events.RUNNING
        if executor.state is State.BLOCKED:
            word = events.IN_WAIT if executor.in_wait else events.IN_GET
        seen = (chunk.first + index, word)
        before = self._running.get(executor.pid)
        if seen == before or not chunk.header.events or seen[0] in chunk.done:
            return
        self._running[executor.pid] = seen
        worker = (executor.client_id, executor.pid)
        at = self._now()
        if before is None or before[0] != seen[0]:
            at = max(chunk.sent_at + self._offset, at - events.SEND_SECONDS)  # it began since the look before
            if word != events.RUNNING:
                self._mark_all(events.RUNNING, chunk.header_bytes, at, [chunk.tasks[index]], *worker)
        self._mark_all(word, chunk.header_bytes, at, [chunk.tasks[index]], *worker)

    def _mark_all(self, word: int, header: bytes, at: float, tasks: list[Task], *executor: Any) -> None:
        by_attempt: dict[int, list[bytes]] = {}
        for task in tasks:
            by_attempt.setdefault(task[2], []).append(task[0])
        for attempt, ids in by_attempt.items():
            self.recorder.add((word, header, at, b"".join(ids), attempt, *executor), len(ids))

    # -- worker processes --------------------------------------------------------------------------------------------

    def worker(self, executor: Executor, reason: str = "") -> None:
        """A worker process was started (no reason), or has ended."""
        if reason:
            self._begun.pop(executor.pid, None)
            self._running.pop(executor.pid, None)
        if self.recorder.on:
            job = executor.key[0]
            mark = (events.WORKER, self._now(), executor.client_id, executor.pid, job, executor.actor, reason)
            self.recorder.add(mark, 0, TASK_BYTES)


def _byte(attempt: int) -> bytes:
    """Return the number of an attempt as it stands in marks; what others send may be any number."""
    return bytes((min(max(attempt, 0), 255),))
