"""A cluster that is no cluster: what pages show in tests, and how it is changed while they show it."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

from rabbitry_broker.errors import ConnectionLost
from rabbitry_workers.dashboard.paging import order_of
from rabbitry_workers.dashboard.source import (
    FAILED,
    FINISHED,
    RUNNING,
    WAITING,
    ActorRow,
    AsideRow,
    Executor,
    GroupRow,
    JobRow,
    LogFile,
    LogPart,
    Missing,
    NodeRow,
    ObjectRow,
    Overview,
    Query,
    QueueRow,
    Queues,
    Refused,
    Rows,
    Span,
    TaskDetail,
    TaskRow,
)

EVIL = '<img src=x onerror="window.evil=1"></script><script>window.evil=1</script>`${window.evil=1}`{{window.evil=1}}'
STATE_OF = {WAITING: "PENDING_NODE_ASSIGNMENT", RUNNING: "RUNNING", FINISHED: "FINISHED", FAILED: "FAILED"}
NODES = ("a1" * 16, "b2" * 16, "c3" * 16)
JOB = "0a" * 4
CLIENT = "7a66" * 6


def identity(number: int) -> str:
    return f"{CLIENT}{number:016x}{JOB}"


class FakeSource:
    """A cluster of three nodes with as many tasks as wanted; `tick` makes some more."""

    def __init__(self, tasks: int = 500) -> None:
        self.down = False
        self.events_off = False
        self.calls: list[str] = []
        self.log = "".join(f"line {number}\n" for number in range(50))
        self.started = time.time() - 4000
        self._lock = threading.Lock()
        self._random = random.Random(7)
        self._tasks: dict[str, TaskRow] = {}
        self._ended: Counter[tuple[int, str]] = Counter()
        now = time.time()
        for number in range(tasks):
            group = FAILED if number % 53 == 0 else RUNNING if number % 97 == 0 else FINISHED
            if number > tasks - 40:
                group = WAITING if number % 2 else RUNNING
            self._add(number, group, now - (tasks - number) * 0.01)

    def _add(self, number: int, group: str, created: float) -> None:
        ran = self._random.expovariate(3)
        ended = created + ran if group in (FINISHED, FAILED) else None
        self._tasks[identity(number)] = TaskRow(
            identity(number),
            EVIL if number == 13 else f"function_{number % 23}",
            STATE_OF[group],
            group,
            job=JOB,
            attempt=number % 101 == 0,
            node=NODES[number % 3] if group != WAITING else "",
            worker=f"{number % 8:032x}",
            pid=4000 + number % 8 if group != WAITING else None,
            created=created,
            started=created + 0.01 if group != WAITING else None,
            ended=ended,
            error="ValueError" if group == FAILED else "",
        )
        if ended:
            self._ended[(int(ended), group)] += 1

    def tick(self, count: int) -> None:
        """So many tasks more have ended."""
        with self._lock:
            first = len(self._tasks)
            for number in range(first, first + count):
                self._add(number, FINISHED, time.time() - 0.3)

    def _ask(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise ConnectionLost(f"Redis at 127.0.0.1:6379 does not answer {EVIL}")

    def overview(self) -> Overview:
        self._ask("overview")
        now = int(time.time())
        groups = Counter(row.group for row in self._tasks.values())
        by_function: dict[str, Counter[str]] = {}
        for row in list(self._tasks.values())[-2000:]:
            by_function.setdefault(row.name, Counter())[row.group] += 1
        busiest = sorted(by_function.items(), key=lambda pair: -pair[1].total())[:8]
        if identity(13) in self._tasks:
            busiest.append((EVIL, Counter({FINISHED: 1})))
        return Overview(
            groups,
            [self._ended[(now - back, FINISHED)] for back in range(60, 0, -1)],
            [self._ended[(now - back, FAILED)] for back in range(60, 0, -1)],
            {"alive": 2, "draining": 1},
            {"ALIVE": 3, "DEAD": 1},
            {"RUNNING": 1, "SUCCEEDED": 2},
            {"CPU": 10.0, "GPU": 1.0, "memory": 5e9},
            {"CPU": 24.0, "GPU": 4.0, "memory": 6.4e10},
            put_aside=2,
            dropped=0,
            functions=busiest,
            notes=["Events are switched off, so no tasks are shown here."] if self.events_off else [],
        )

    def jobs(self) -> Sequence[JobRow]:
        self._ask("jobs")
        return [
            JobRow(JOB, "RUNNING", "", "python train.py --epochs 3", "", self.started, None, "host-1", 77),
            JobRow("", "PENDING", "raysubmit_waiting", EVIL, "waits for a node", self.started),
            JobRow(
                "0b" * 4,
                "FAILED",
                "raysubmit_failed",
                "python etl.py",
                f"exit code 1 {EVIL}",
                self.started,
                self.started + 60,
                "host-2",
                78,
                (NODES[0], "worker-1.out"),
            ),
        ]

    def tasks(self, query: Query) -> Rows[TaskRow]:
        self._ask("tasks")
        with self._lock:
            rows: Sequence[TaskRow] = list(reversed(self._tasks.values()))
        wanted = query.text.lower()
        found = [
            row
            for row in rows
            if (not wanted or wanted in row.name.lower() or row.id.startswith(wanted))
            and (not query.state or query.state in (row.state, row.group))
            and (not query.job or row.job == query.job)
            and (not query.node or row.node == query.node)
            and (not query.actor or row.actor == query.actor)
        ]
        if query.sort:
            found.sort(key=lambda row: order_of(getattr(row, query.sort)), reverse=query.descending)
        return Rows(found[query.offset : query.offset + query.limit], len(found))

    def task(self, task: str) -> TaskDetail:
        self._ask("task")
        row = self._tasks.get(task)
        if row is None:
            raise Missing("This task is not remembered.")
        children = [self._tasks[identity(number)] for number in (1, 2, 13) if identity(number) in self._tasks]
        return TaskDetail(
            row,
            [("PENDING_NODE_ASSIGNMENT", row.created or 0.0), (row.state, row.started or row.created or 0.0)],
            f'Traceback (most recent call last):\n  File "x.py", line 3\nValueError: {EVIL}' if row.error else "",
            "no node has 4 GPUs" if row.group == WAITING else "",
            {"CPU": 1.0},
            self._tasks[identity(0)],
            children,
            250,
            (NODES[0], "worker-1.out"),
        )

    def actors(self) -> Sequence[ActorRow]:
        self._ask("actors")
        return [
            ActorRow("d4" * 16, "Counter", "ALIVE", "counter", "default", JOB, NODES[0], 5001, durable=True),
            ActorRow("d5" * 16, "Trainer", "PENDING_CREATION", job=JOB, waits_for="4 GPU: no node has that many free"),
            ActorRow("d6" * 16, EVIL, "DEAD", EVIL, "default", JOB, restarts=2, death=f"its process crashed {EVIL}"),
        ]

    def nodes(self) -> Sequence[NodeRow]:
        self._ask("nodes")
        running = [row for row in list(self._tasks.values())[-100:] if row.group == RUNNING]
        return [
            NodeRow(
                node,
                f"node-{number}",
                f"host-{number}",
                "draining" if number == 2 else "alive",
                100 + number,
                self.started,
                {"CPU": 8.0, "GPU": 4.0, "memory": 3.2e10} if number == 0 else {"CPU": 8.0, "memory": 1.6e10},
                {"CPU": 3.0 + number, "GPU": 1.0, "memory": 1e9} if number == 0 else {"CPU": 2.0},
                {"zone": "a", "label": EVIL},
                0.31 + number * 0.3,
                (9_000_000_000 * (number + 1), 33_000_000_000),
                (1_000_000_000, 8_000_000_000),
                [("NVIDIA A10G", 0.8, 12 << 30, 24 << 30)] if number == 0 else [],
                [
                    *(
                        Executor(row.pid or 0, "worker", row.name, row.id, since=row.started)
                        for row in running
                        if row.node == node
                    ),
                    Executor(5001 + number, "actor", "Counter", actor="d4" * 16, since=self.started),
                    Executor(6001 + number, "worker"),
                ],
                f"10.0.0.{number}",
            )
            for number, node in enumerate(NODES)
        ]

    def placement_groups(self) -> Sequence[GroupRow]:
        self._ask("placement_groups")
        return [
            GroupRow(
                "e1" * 16, "trainers", "CREATED", "SPREAD", [({"CPU": 2.0}, NODES[0]), ({"CPU": 2.0}, NODES[1])], JOB
            ),
            GroupRow("e2" * 16, EVIL, "PENDING", "STRICT_PACK", [({"GPU": 9.0}, "")], JOB, "9 GPU on one node"),
        ]

    def objects(self) -> Rows[ObjectRow]:
        self._ask("objects")
        rows = [
            ObjectRow(
                identity(number), (300 - number) << 16, "large value", "shared memory", "ab" * 12, identity(number), 1
            )
            for number in range(300)
        ]
        return Rows(rows, 12345)

    def queues(self) -> Queues:
        self._ask("queues")
        return Queues(
            [
                QueueRow("cpu=1", "class", 12, 480, 3, 20.5, 18.0, 2, "node-0, node-1"),
                QueueRow("cpu=1,gpu=1", "class", 0, 0, 0, 0.0, 0.0, 1, "node-0"),
                QueueRow(f"actor-{'d4' * 4}", "actor", 1, 1, 0, None, None, 1, "node-0"),
            ],
            {"Server": "RabbitMQ 4.0.5", "Connections": "7", "Memory": "142.0 MiB"},
            "",
        )

    def put_aside(self) -> Rows[AsideRow]:
        self._ask("put_aside")
        return Rows([AsideRow(0, f"not signed {EVIL}", 120, EVIL), AsideRow(1, "unknown version 9", 44, "\\x09")], 2)

    def logs(self) -> Sequence[LogFile]:
        self._ask("logs")
        return [
            LogFile(NODES[0], "worker-1.out", "worker out", "node-0"),
            LogFile(NODES[1], EVIL, "other"),
        ]

    def read_log(self, node: str, name: str, task: str, position: object, lines: int) -> LogPart:
        self._ask("read_log")
        if name != "worker-1.out":
            raise Missing("There is no such log.")
        start = position if isinstance(position, int) else 0
        return LogPart(self.log[start:], len(self.log))

    def timeline(self, seconds: float) -> Sequence[Span]:
        self._ask("timeline")
        now = time.time()
        return [
            Span(
                f"node-{NODES.index(row.node)} {row.pid}",
                row.name,
                row.id,
                row.created,
                row.started,
                row.ended,
                bool(row.error),
            )
            for row in list(self._tasks.values())[-5000:]
            if row.started and (row.ended or now) > now - seconds
        ]

    def trace(self) -> bytes:
        self._ask("trace")
        return b'[{"name": "function_1", "ph": "X", "ts": 1, "dur": 5, "pid": 1, "tid": 1}]'

    def stack(self, node: str, pid: int) -> str:
        self._ask(f"stack {node} {pid}")
        return f"Thread 1 (active)\n    function_3 (x.py:12) {EVIL}"

    def cancel(self, task: str, *, force: bool) -> str:
        self._ask(f"cancel {task} {force}")
        row = self._tasks[task]
        if row.group not in (WAITING, RUNNING):
            raise Refused("The task has ended already.")
        values = {name: getattr(row, name) for name in TaskRow.__slots__}
        values |= {"state": "FAILED", "group": FAILED, "error": "TaskCancelledError", "ended": time.time()}
        self._tasks[task] = TaskRow(**values)
        return f"Cancelled {row.name}."

    def kill(self, actor: str, *, restart: bool) -> str:
        self._ask(f"kill {actor} {restart}")
        return "Killed."

    def stop_job(self, submission: str) -> str:
        self._ask(f"stop_job {submission}")
        return "Stopped."

    def drain(self, node: str) -> str:
        self._ask(f"drain {node}")
        raise Refused(f"The node is gone {EVIL}")
