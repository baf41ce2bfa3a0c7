"""The table of tasks, kept up to date from events.

Of a hundred thousand remembered tasks nearly all have ended well and will not change any more. What is looked at each
second is what came since, and those that have not ended (or have failed, and may be tried again): `open`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from rabbitry.nodes import read_nodes
from rabbitry.state import tasks as states
from rabbitry.state.cluster import TYPES, ClusterState, history, worker_id
from rabbitry.state.tasks import Attempt, Task
from rabbitry.state.waiting import Reasons
from rabbitry_broker.ids import CLIENT_BYTES, TASK_BYTES, is_detached
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.dashboard.paging import order_of
from rabbitry_workers.dashboard.source import (
    FAILED,
    FINISHED,
    RUNNING,
    WAITING,
    Missing,
    Query,
    Rows,
    Span,
    TaskDetail,
    TaskRow,
)

RATE_SECONDS: Final = 60
TOLD_SECONDS: Final = 2
"""What ended in a second is known in full so much later: events are sent once a second."""
RECENT: Final = 2000
"""So many tasks, the latest ones, are counted by function."""
FUNCTIONS: Final = 12
CHILDREN: Final = 100
SPANS: Final = 5000
MISSES: Final = 5000
"""So many tasks, one after the other, that ran too long ago: those before them did so too."""
HEX_DIGITS: Final = frozenset("0123456789abcdef")
_RUNNING: Final = frozenset((states.RUNNING, states.IN_GET))
_UNKNOWN: Final = Attempt(0)


class Tasks:
    """What is known of tasks. For one thread at a time.

    Args:
        state: of the cluster; its log is read here.
        clock: seconds since 1970.
    """

    def __init__(self, state: ClusterState, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._log = state.log
        self._log.on_ended.append(self._count)
        self._clock = clock
        self._newest: Task | None = None
        self._open: dict[bytes, Task] = {}
        self._ended: dict[int, list[int]] = {}
        self._nodes: list[dict[str, Any]] = []
        self._alive: set[bytes] = set()
        self._dead_owners: set[bytes] = set()

    # -- keeping up --------------------------------------------------------------------------------------------------

    def _count(self, ended: Sequence[tuple[Task, Attempt]]) -> None:
        for _, attempt in ended:
            second = self._ended.setdefault(int(attempt.ended or attempt.at), [0, 0])
            second[attempt.state == states.FAILED] += 1

    def refresh(self) -> None:
        """Read what came since the last time, and look at what events cannot tell: who is alive."""
        self._log.refresh()
        oldest = int(self._clock()) - 2 * RATE_SECONDS
        for second_ in [each for each in self._ended if each < oldest]:
            del self._ended[second_]
        tasks = self._log.tasks
        fresh = []
        for task in reversed(tasks.values()):
            if task is self._newest:
                break
            fresh.append(task)
        if len(fresh) == len(tasks):  # the first time, or what we knew is forgotten
            self._open.clear()
        if fresh:
            self._newest = fresh[0]
        for task in reversed(fresh):
            self._open[task.id] = task
        for task_id in [each for each, task in self._open.items() if _is_done(task) or tasks.get(each) is not task]:
            del self._open[task_id]
        self._look_around()

    def _look_around(self) -> None:
        state = self._state
        self._nodes = read_nodes(state.source, state.keys, state.signer)
        self._alive = {node["id"] for node in self._nodes if node["alive"]}
        owners = {task_id[:CLIENT_BYTES] for task_id in self._open if not is_detached(task_id)}
        listed = list(owners)
        scores = state.source.pipeline([(b"ZSCORE", state.keys.clients, each) for each in listed]) if listed else []
        self._dead_owners = {each for each, score in zip(listed, scores, strict=True) if score in (None, b"-inf")}

    @property
    def nodes(self) -> Sequence[Mapping[str, Any]]:
        """The records of nodes, as `refresh` found them."""
        return self._nodes

    # -- states ------------------------------------------------------------------------------------------------------

    def _now(self, task: Task) -> tuple[str, str, Attempt]:
        """Return (Ray's word, group, latest attempt) of a task, whatever its last mark said."""
        attempt = task.last or _UNKNOWN
        if attempt.state == states.FINISHED:
            return states.FINISHED, FINISHED, attempt
        if attempt.state == states.FAILED:
            return states.FAILED, FAILED, attempt
        if task.id[:CLIENT_BYTES] in self._dead_owners:
            return states.FAILED, FAILED, attempt
        if attempt is _UNKNOWN:
            return (states.PARKED if task.parked else states.QUEUED), WAITING, attempt
        if attempt.node not in self._alive:
            return states.QUEUED, WAITING, attempt  # it comes again from its queue
        return attempt.state, RUNNING if attempt.state in _RUNNING else WAITING, attempt

    def _row(self, task: Task) -> TaskRow:
        state, group, attempt = self._now(task)
        header = task.header
        assert header is not None
        error = attempt.error if group == FAILED else ""
        if group == FAILED and attempt.state not in states.ENDS:
            error = "OWNER_DIED"
        return TaskRow(
            task.id.hex(),
            header.name,
            state,
            group,
            TYPES.get(header.kind, ""),
            header.job.hex(),
            attempt.number,
            attempt.node.hex(),
            worker_id(attempt.worker) if attempt.worker else "",
            attempt.pid or None,
            header.actor.hex(),
            task.created or None,
            attempt.started or None,
            attempt.ended or None,
            error,
        )

    # -- what pages ask ----------------------------------------------------------------------------------------------

    def groups(self) -> dict[str, int]:
        """Return how many tasks are in each group of states."""
        found = Counter(self._now(task)[1] for task in self._open.values() if task.header is not None)
        return {**found, FINISHED: len(self._log.tasks) - len(self._open)}

    def ended(self, failed: bool) -> list[int]:
        """Return how many tasks ended in each of the last seconds, those that failed or the others."""
        now = int(self._clock())
        none = [0, 0]
        last = now - TOLD_SECONDS
        return [self._ended.get(last - back, none)[failed] for back in range(RATE_SECONDS - 1, -1, -1)]

    def functions(self) -> list[tuple[str, dict[str, int]]]:
        """Return the functions that the latest tasks are of, with their groups."""
        found: dict[str, Counter[str]] = {}
        for task in islice(reversed(self._log.tasks.values()), RECENT):
            if task.header is not None:
                found.setdefault(task.header.name, Counter())[self._now(task)[1]] += 1
        return sorted(((name, dict(groups)) for name, groups in found.items()), key=_total, reverse=True)[:FUNCTIONS]

    def waiting_by_queue(self) -> Counter[str]:
        """Return how many tasks are in each queue: sent there, and seen by no node since."""
        return Counter(
            task.queue
            for task in self._open.values()
            if task.queue and not task.parked and not task.attempts and task.id[:CLIENT_BYTES] not in self._dead_owners
        )

    def find(self, query: Query) -> Rows[TaskRow]:
        """Return the tasks that a query asks for."""
        if query == Query(offset=query.offset, limit=query.limit):  # no filter: only the page is looked at
            page = islice(self._listed(), query.offset, query.offset + query.limit)
            without_header = sum(task.header is None for task in self._open.values())
            return Rows([self._row(task) for task in page], len(self._log.tasks) - without_header)
        found = self._fitting(query)
        if query.sort:
            ordered = sorted(map(self._row, found), key=_key(query.sort), reverse=query.descending)
            return Rows(ordered[query.offset : query.offset + query.limit], len(ordered))
        return Rows([self._row(task) for task in found[query.offset : query.offset + query.limit]], len(found))

    def _listed(self) -> Iterable[Task]:
        return (task for task in reversed(self._log.tasks.values()) if task.header is not None)

    def _fitting(self, query: Query) -> list[Task]:
        """Return all tasks that a query fits, the latest first."""
        state, text = query.state, query.text.strip().lower()
        digits = text if len(text) >= 4 and HEX_DIGITS.issuperset(text) else ""
        job, node, actor = (_unhex(each) for each in (query.job, query.node, query.actor))
        if None in (job, node, actor):
            return []
        named: dict[str, bool] = {}
        # All others have ended well.
        among = self._listed() if state in ("", FINISHED, states.FINISHED) else reversed(self._open.values())
        found = []
        for task in among:
            header = task.header
            if header is None or (job and header.job != job) or (actor and header.actor != actor):
                continue
            if text:
                name = header.name
                fits = named.get(name)
                if fits is None:
                    fits = named[name] = text in name.lower()
                if not fits and not (digits and task.id.hex().startswith(digits)):
                    continue
            if state or node:
                word, group, attempt = self._now(task)
                if (state and state not in (word, group)) or (node and attempt.node != node):
                    continue
            found.append(task)
        return found

    def detail(self, task_id: str) -> TaskDetail:
        """Return all that is known of a task.

        Raises:
            Missing: nothing.
        """
        identity = _unhex(task_id)
        task = self._log.tasks.get(identity or b"")
        if task is None or task.header is None:
            raise Missing(
                "Nothing is remembered of this task: it ended long ago, there is no such task, or events are off."
            )
        row = self._row(task)
        last = task.last
        begun: list[tuple[str, float]] = []
        for number in sorted(task.attempts):
            mark = f" (attempt {number + 1})" if number else ""
            begun += [(state + mark, when) for state, when in history(task, task.attempts[number]) if when]
        if not task.attempts:
            begun = [(state, when) for state, when in history(task, None) if when]
        children = [each for each in self._log.tasks.values() if each.parent == task.id and each.header is not None]
        parent = self._log.tasks.get(task.parent)
        texts = [each.text for each in task.attempts.values() if each.text]
        message = texts[-1] if texts else ""
        if row.error == "OWNER_DIED" and not message:
            message = "The process that submitted it has ended."
        facts = {}
        if task.queue:
            facts["Queue"] = task.queue
        if last is not None and last.queued and task.created:
            facts["In its queue"] = f"{max(0.0, last.queued - task.created) * 1000:.1f} ms"
        return TaskDetail(
            row,
            begun,
            message,
            self._why(task, row) if row.group == WAITING else "",
            _resources(task.header.resources),
            self._row(parent) if parent is not None and parent.header is not None else None,
            [self._row(each) for each in children[:CHILDREN]],
            len(children),
            _log_of(task, last),
            facts,
        )

    def _why(self, task: Task, row: TaskRow) -> str:
        header = task.header
        assert header is not None
        reasons = Reasons(self._nodes, self._log.tasks, self._actor_state(header.actor))
        if row.state == states.PARKED:
            return reasons.for_arguments(task)
        if row.state == states.QUEUED:
            attempt = task.last
            on = attempt.node if attempt is not None and attempt.node in self._alive else b""
            return reasons.for_room(header.resources, task.queue, on)
        if header.actor:
            return "its actor has it, and is busy with others, or waits for what its caller sent before"
        return "a worker process has it, behind others"

    def _actor_state(self, actor: bytes) -> dict[str, str]:
        if not actor:
            return {}
        state = self._state.source.call(b"HGET", self._state.keys.actor(actor), b"state")
        return {actor.hex(): (state or b"DEAD").decode("utf-8", "replace")}

    def running(self) -> list[TaskRow]:
        """Return the tasks that run now."""
        return [
            self._row(task) for task in self._open.values() if task.header is not None and self._now(task)[1] == RUNNING
        ]

    def spans(self, seconds: float) -> list[Span]:
        """Return what ran in the last seconds."""
        now = self._clock()
        names = {node["id"]: str(node["name"]) for node in self._nodes}
        found: dict[tuple[bytes, int], Span] = {}
        # What runs for long may have been submitted long ago.
        for task in self._open.values():
            self._add_spans(found, task, now, now - seconds, names)
        misses = 0
        for task in self._listed():
            misses = 0 if self._add_spans(found, task, now, now - seconds, names) else misses + 1
            if len(found) >= SPANS or misses > MISSES:
                break
        return list(found.values())

    @staticmethod
    def _add_spans(
        found: dict[tuple[bytes, int], Span], task: Task, now: float, since: float, names: Mapping[bytes, str]
    ) -> bool:
        """Add the attempts of a task that ran since then; return True if there were any."""
        fits = False
        for attempt in task.attempts.values():
            if not attempt.started or (attempt.ended or now) < since or task.header is None:
                continue
            fits = True
            found[task.id, attempt.number] = Span(
                f"{names.get(attempt.node) or attempt.node.hex()[:8]} {attempt.pid}",
                task.header.name,
                task.id.hex(),
                task.created or None,
                attempt.started,
                attempt.ended or None,
                attempt.state == states.FAILED,
            )
        return fits


def _log_of(task: Task, attempt: Attempt | None) -> tuple[str, str] | None:
    """Return where the process that ran a task prints to."""
    if attempt is None or not attempt.worker or not attempt.node or task.header is None:
        return None
    return attempt.node.hex(), log_name(attempt.worker, task.header.job, attempt.pid)


def log_name(worker: bytes, job: bytes, pid: int) -> str:
    """Return the name of the file of what a worker process prints (`node/services/output.py` makes it)."""
    return f"worker-{worker.hex()}-{job.hex()}-{pid}.out"


def _is_done(task: Task) -> bool:
    last = task.last
    return last is not None and last.state == states.FINISHED and task.header is not None


def _total(pair: tuple[str, dict[str, int]]) -> int:
    return sum(pair[1].values())


def _key(name: str) -> Callable[[TaskRow], tuple[Any, ...]]:
    return lambda row: order_of(getattr(row, name, None))


def _unhex(text: str) -> bytes | None:
    """Return the bytes of an id; None for what is none."""
    if len(text) > 2 * TASK_BYTES + 32:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _resources(resource_class: str) -> dict[str, float]:
    try:
        return ResourceRequest.parse(resource_class).to_floats() if resource_class else {}
    except ValueError:
        return {}
