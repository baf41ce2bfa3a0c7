"""The dispatcher: gives what waits in lanes to executors, in chunks of about 5 ms of work.

HOT PATH: `serve`; its cost is per chunk, not per task.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from rabbitry.exceptions import TaskUnschedulableError
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import KIND_ACTOR_CREATION
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.channel import RUN
from rabbitry_workers.node.dispatch.holding import PATIENCE_SECONDS
from rabbitry_workers.node.dispatch.nesting import Nesting
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.dispatch.run_times import RunTimes
from rabbitry_workers.node.dispatch.start_marks import StartMarks
from rabbitry_workers.node.dispatch.turns import Turns
from rabbitry_workers.node.model.lanes import CONTINUATION_NUMBERS, Executor, Lane, LaneKey, Lanes, State
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Fails, Hosts
from rabbitry_workers.node.model.work import Chunk, Piece

CHUNK_SECONDS: Final = 0.005  # of work in one chunk
CHUNK_TASKS_MAX: Final = 200
QUICK_TASK_SECONDS: Final = 0.002  # tasks shorter than this are sent ahead while a chunk still runs
AHEAD_SECONDS: Final = 0.1  # a chunk that was sent longer ago turns out slow: nothing goes behind it
AGAIN_SECONDS: Final = 1.0  # until the next try to hand out tasks when Redis was away

log = logging.getLogger("rabbitry.node")


class Dispatcher:
    """Loop thread only.

    Args:
        node: whose tasks they are.
        lanes: in which they wait.
        pool: of executors.
        nesting: chooses what goes first.
        turns: knows which job is next.
        run_times: of functions.
        marks: for what may run once only.
        hosts: of actors.
        failing: for what cannot be handed out at all.
        on_room: called when resources became free, after the lanes had theirs.
        keep: has room kept for what was passed over for long.
    """

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        pool: ExecutorPool,
        nesting: Nesting,
        turns: Turns,
        run_times: RunTimes,
        marks: StartMarks,
        hosts: Hosts,
        failing: Fails,
        on_room: Callable[[], None],
        keep: Callable[[LaneKey, Sequence[ResourceRequest]], None] = lambda who, requests: None,
    ) -> None:
        self._node = node
        self._lanes = lanes
        self._pool = pool
        self._nesting = nesting
        self._turns = turns
        self._means = run_times.means
        self._marks = marks
        self._hosts = hosts
        self._failing = failing
        self._on_room = on_room
        self._keep = keep
        self._serving = False
        self._room_came = False  # while something was being served
        self._piece: Piece | None = None  # that is being handed out

    def enqueue(self, piece: Piece) -> None:
        """Take work that did not come by a delivery."""
        lane = self._lanes.of(piece.header)
        lane.put(piece)
        self.serve(lane)

    def serve_all(self) -> None:
        """Resources became free: any lane may use them, the most urgent first; then more may come.

        What is freed while a lane is served is given away when that is done: else each of a thousand actors that ended
        before they were created would be handed out on the stack of the one before it.
        """
        self._room_came = True
        if self._serving:
            return
        while self._room_came:
            self._room_came = False
            self._serve_each()
        self._on_room()

    def _serve_each(self) -> None:
        waiting = list(self._lanes.ready)
        if len(waiting) > 1:
            waiting = self._turns.in_turn(waiting, self._nesting.waits_for if self._nesting.blocked else None)
        passed: Lane | None = None
        for lane in waiting:
            if lane.executors or lane.account.has_room(lane.request):
                self._serve_safely(lane)
            elif passed is None and lane.account is self._lanes.ledger:
                passed = lane
        if passed is not None and passed.waiting and len(waiting) > 1 and self._is_starved(passed):
            self._keep(passed.key, [passed.request])

    @staticmethod
    def _is_starved(lane: Lane) -> bool:
        """True if a lane was passed over for long, and would fit if others had not taken all room."""
        waited = time.monotonic() - lane.waiting_since
        return waited > PATIENCE_SECONDS and lane.account.times(lane.request) > 0

    def serve(self, lane: Lane) -> None:
        """Give a lane's waiting tasks to executors, as far as the ledger allows. HOT PATH."""
        if self._serving:
            self._room_came = True
            return
        self._serve_safely(lane)
        if self._room_came:
            self.serve_all()

    def _serve_safely(self, lane: Lane) -> None:
        self._serving = True
        try:
            self._serve(lane)
        except RabbitryBrokerError as error:
            log.warning("cannot hand out tasks now: %s", error)
            if not lane.again:
                lane.again = True
                self._node.loop.call_later(AGAIN_SECONDS, lambda: self._serve_later(lane))
        except Exception as error:
            # Something about the task that was to be handed out. It would be the first again next time, for good.
            log.exception("tasks cannot be handed out")
            piece = self._piece if self._piece is not None and self._piece.tasks else lane.first()
            if piece is not None:
                lane.remove(piece)
                tasks = list(piece.tasks)
                piece.tasks.clear()
                self._failing.fail_tasks(
                    piece.held, piece.header, tasks, TaskUnschedulableError(f"It cannot be run: {error!r}.")
                )
                self._node.loop.add_callback(lambda: self.serve(lane))
        finally:
            self._serving = False
            self._piece = None

    def _serve_later(self, lane: Lane) -> None:
        """Redis was away when a lane was served: what waits in it gets its executors now, or gives them back."""
        lane.again = False
        self.serve(lane)
        for executor in list(lane.executors):
            if not lane.waiting and not executor.chunks and executor.state is State.LEASED:
                self._pool.end_lease(executor)

    def _serve(self, lane: Lane) -> None:
        while lane.waiting:
            piece = self._piece = self._nesting.choose(lane)
            if piece is None:
                # One whose tasks were second copies would keep room from what those that are blocked wait for.
                while (executor := self._free_executor(lane)) is not None:
                    self._pool.end_lease(executor)
                return
            executor = self._free_executor(lane)
            if executor is None:
                if self._pool.lease(lane, fresh=piece.header.kind == KIND_ACTOR_CREATION):
                    continue
                executor = self._ahead_executor(lane, piece)
                if executor is None or self._turns.gives_way(lane):
                    return
            elif executor.next_sequence and piece.header.kind == KIND_ACTOR_CREATION:
                self._pool.end_lease(executor)  # its room is free then for one that has run nothing
                continue
            self._send_chunk(lane, piece, executor)

    @staticmethod
    def _free_executor(lane: Lane) -> Executor | None:
        for executor in lane.executors:
            if not (executor.chunks or executor.leaving or executor.revoked) and executor.state is State.LEASED:
                return executor
        return None

    def _ahead_executor(self, lane: Lane, piece: Piece) -> Executor | None:
        """An executor that may be sent a chunk ahead: what it runs is known to be quick."""
        mean = self._means.get(piece.header.function)
        if mean is None or mean > QUICK_TASK_SECONDS:
            return None
        now = time.monotonic()
        for executor in lane.executors:
            if (
                len(executor.chunks) == 1
                and (self._means.get(executor.chunks[0].header.function) or 1.0) <= QUICK_TASK_SECONDS
                and executor.state is State.LEASED
                and not (executor.leaving or executor.revoked)
                and now - executor.chunks[0].sent_at < AHEAD_SECONDS
            ):
                return executor
        return None

    def _send_chunk(self, lane: Lane, piece: Piece, executor: Executor) -> None:
        header = piece.header
        if header.kind == KIND_ACTOR_CREATION:
            self._host_actor(lane, piece, executor)
            return
        mean = self._means.get(header.function)
        size = 1
        if mean is not None and not header.max_calls and header.max_retries != 0:
            size = max(1, min(CHUNK_TASKS_MAX, int(CHUNK_SECONDS / max(mean, 1e-6))))
            size = min(size, max(1, lane.waiting // lane.capacity(self._node.slots)))
        marked = piece.marked
        tasks = lane.take(piece, size)
        if header.max_retries == 0:
            try:
                tasks = self._marks.mark(piece, tasks)
            except RabbitryBrokerError:
                lane.untake(piece, tasks, marked)
                raise
            if not tasks:
                # Second copies, all of them. What the lane has besides, this executor gets; else it is of no use here.
                if not lane.waiting and not executor.chunks:
                    self._pool.end_lease(executor)
                return
        executor.last_name = header.name  # it may be done before what it printed is read
        chunk = Chunk(piece, executor.next_sequence, tasks)
        executor.next_sequence = chunk.end + CONTINUATION_NUMBERS
        executor.chunks.append(chunk)
        self._turns.began(lane, chunk, mean)
        gpus = executor.grant.gpu_ids if executor.grant is not None else None
        executor.send([RUN, chunk.first, piece.header_bytes, tasks, list(gpus) if gpus is not None else None])

    def _host_actor(self, lane: Lane, piece: Piece, executor: Executor) -> None:
        (task,) = lane.take(piece, 1)
        lane.executors.remove(executor)
        executor.lane = None
        try:
            hosts = self._hosts.host(executor, piece, task)
        except RabbitryBrokerError:
            lane.untake(piece, [task], piece.marked)
            lane.executors.append(executor)
            executor.lane = lane
            raise
        if not hosts:
            self._pool.end_lease(executor)
