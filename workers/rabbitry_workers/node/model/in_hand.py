"""All tasks that a node has in hand: one answer to "where is this task?".

    waits in a lane | at an executor | elsewhere: a delay, a failure under way, an actor without a process

Whoever keeps tasks anywhere else gives `InHand` a view of them (`watch`), and every question below counts them too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_workers.node.model.lanes import Executor, Lanes, State
from rabbitry_workers.node.model.work import Chunk, Held


class InHand:
    """Views of a node's work. Loop thread only; it keeps nothing itself.

    Args:
        lanes: what waits.
        executors: what runs, by the process's number.
    """

    def __init__(self, lanes: Lanes, executors: Mapping[int, Executor]) -> None:
        self._lanes = lanes
        self._executors = executors
        self._elsewhere: list[Callable[[], Iterable[bytes]]] = []

    def watch(self, tasks: Callable[[], Iterable[bytes]]) -> None:
        """Count the tasks that this yields (by their ids) as in hand too."""
        self._elsewhere.append(tasks)

    def task_ids(self) -> Iterator[bytes]:
        """Yield the ids of all of them."""
        for lane in self._lanes.values():
            for piece in lane.all_pieces():
                yield from [task[0] for task in piece.tasks]
        for executor in self._executors.values():
            for chunk in executor.chunks:
                yield from [task[0] for _, task in chunk.left()]
        for tasks in self._elsewhere:
            yield from tasks()

    def owners(self) -> set[bytes]:
        """Return who owns the tasks that wait or run here; callers of actors do not count."""
        owners = {piece.header.owner for lane in self._lanes.values() for piece in lane.all_pieces()}
        for executor in self._executors.values():
            if executor.state is not State.ACTOR:
                owners.update([chunk.header.owner for chunk in executor.chunks])
        return owners

    def sent(self, wanted: Collection[bytes]) -> list[tuple[Executor, Chunk, int, Task]]:
        """Return those of some tasks that were sent to executors: where they are, and their numbers there."""
        return [
            (executor, chunk, chunk.first + at, task)
            for executor in self._executors.values()
            for chunk in executor.chunks
            for at, task in enumerate(chunk.tasks)
            if task[0] in wanted
        ]

    def take_waiting(self, wanted: Collection[bytes]) -> list[tuple[Held, TaskHeader, Task]]:
        """Take those of some tasks that wait out of their lanes."""
        taken: list[tuple[Held, TaskHeader, Task]] = []
        for lane in self._lanes.values():
            for piece in lane.all_pieces():
                if not any(task[0] in wanted for task in piece.tasks):
                    continue
                marked = piece.marked
                for at, task in enumerate(piece.tasks):
                    if task[0] in wanted:
                        piece.marked -= at < marked
                        taken.append((piece.held, piece.header, task))
                kept = [task for task in piece.tasks if task[0] not in wanted]
                lane.wait_for(lane.waiting - (len(piece.tasks) - len(kept)))
                piece.tasks.clear()
                piece.tasks.extend(kept)
        return taken

    def is_at_work(self) -> bool:
        """True if an executor has something."""
        return any(executor.chunks for executor in self._executors.values())

    def has_waiting(self) -> bool:
        """True if something waits in a lane."""
        return any(lane.waiting for lane in self._lanes.values())
