"""A node's environments over fakes, in thousands of orders of what happens to them, their jobs and their processes.

A lease on entries of the cache is a descriptor: each is let go of exactly once, not while processes of the environment
live, and whatever waits for an environment is served or failed.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.runtime_environments import Record, digest_code
from rabbitry_workers.node.dispatch import environments as module
from rabbitry_workers.node.dispatch.environments import AT_ONCE, Environments, State
from tests.fuzz.interleavings.happening import happen
from tests.fuzz.interleavings.orders import named, orders
from tests.workers.node.fakes import FakeExecutor, World

ORDERS = 300
STEPS = 60
JOBS = (b"one.", b"two.")
CODES = tuple(digest_code(bytes([number]) * 16) for number in range(5))


class FakeSetup:
    """What processes of an environment must be told."""

    path: tuple[str, ...] = ()

    def __init__(self, *, needs_template: bool, has_libraries: bool) -> None:
        self.needs_template = needs_template
        self.has_template = needs_template or has_libraries

    def pack(self) -> bytes:
        """Any bytes."""
        return b"setup"


class FakeBuild:
    """A child that makes an environment: it says its word when the story wants it."""

    def __init__(self, story: Story, key: Any, record: Any, on_end: Any) -> None:
        self.key, self.record = key, record
        self.setup: FakeSetup | None = None
        self.why = ""
        self.is_lost = False
        self.locks: list[int] = []
        self.entries = self.locks
        self.process = SimpleNamespace(poll=lambda: 0)
        self._story, self._on_end, self._over = story, on_end, False

    def end(self, why: str) -> None:
        """As in `Build`."""
        if not self._over:
            self.why = why
            self.finish()

    def finish(self) -> None:
        """It has ended."""
        self._over = True
        self._story.builds.remove(self)
        self._on_end(self)


class Story(World):
    """Environments, and what may happen to them."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.chance = random.Random(f"environments-{seed}")
        self.now = 1000.0
        self.builds: list[FakeBuild] = []
        self.locks = 0
        self.leased: set[int] = set()  # descriptors that nobody has let go of
        self.waiting: set[Any] = set()  # lanes that wait for their environment, and nobody has told them
        self.warming: list[Any] = []
        self.pids = 0
        self.broken: set[Any] = set()  # those whose processes may live although nothing can be started any more
        store: Any = SimpleNamespace(functions=self)
        node: Any = SimpleNamespace(loop=self.loop, store=store, config=self.node.config, endpoint=self.node.endpoint)
        self.environments = Environments(
            node, self.lanes, self.executors, self.serve, self.fail, lambda resource_class: None, self.warm, self.cool
        )
        monkeypatch.setattr(module, "Build", self._build)
        monkeypatch.setattr(module, "Plan", self._plan)
        monkeypatch.setattr(module, "Cache", SimpleNamespace(from_environment=lambda: SimpleNamespace(logs=_NoLogs())))
        monkeypatch.setattr(module, "_let_go", self._let_go)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(module, "log", SimpleNamespace(warning=_nothing, exception=_nothing))

    # -- what surrounds them -------------------------------------------------------------------------------------------

    def get(self, digest: bytes, kind: Any) -> bytes:
        """Return a record, unless the store is away."""
        if self.chance.random() < 0.1:
            raise ConnectionLost("away")
        return Record({"env_vars": {"A": digest.hex()}}).pack()

    def _plan(self, record: Any, job: bytes, cache: Any, sites: Any) -> Any:
        there = self.chance.random() < 0.3
        return SimpleNamespace(
            needs_code=False,
            find=lambda: [SimpleNamespace(lock=self.lease())] if there else None,
            setup=self._setup,
        )

    def _setup(self) -> FakeSetup:
        return FakeSetup(needs_template=self.chance.random() < 0.5, has_libraries=self.chance.random() < 0.5)

    def _build(self, node: Any, key: Any, record: Any, path: Any, timeout: Any, on_end: Any) -> FakeBuild:
        if self.chance.random() < 0.05:
            raise OSError("no more processes")
        self.builds.append(FakeBuild(self, key, record, on_end))
        return self.builds[-1]

    def lease(self) -> int:
        """Return a new descriptor."""
        self.locks += 1
        self.leased.add(self.locks)
        return self.locks

    def _let_go(self, locks: list[int]) -> None:
        for lock in locks:
            assert lock in self.leased, "an entry is let go of twice"
            self.leased.remove(lock)
        locks.clear()

    def warm(self, key: Any, setup: Any) -> bool:
        """A template is started, or cannot be now."""
        if self.chance.random() < 0.3:
            return False
        self.warming.append(key)
        return True

    def cool(self, key: Any) -> None:
        """A template is given up."""
        self.warming = [each for each in self.warming if each != key]

    def serve(self, lane: Any) -> None:
        """A lane is served: it asks for its environment."""
        self.waiting.discard(lane)
        if lane.waiting:
            self._ask(lane)

    def fail(self, key: Any, error: Exception) -> None:
        """All that waits for an environment fails."""
        for lane in [lane for lane in self.lanes.values() if lane.key[1:] == key]:
            self.waiting.discard(lane)
            self._empty(lane)

    def _ask(self, lane: Any) -> None:
        try:
            told = self.environments.setup(lane.key[1:])
        except ConnectionLost:
            self.loop.call_later(0.1, lambda: self.serve(lane))
            self.waiting.add(lane)
            return
        if told is None:
            self.waiting.add(lane)
            return
        self._empty(lane)
        self.pids += 1
        self.executors[self.pids] = executor = FakeExecutor(self.pids, lane.key[1:])
        executor.key = lane.key[1:]
        self.broken.discard(executor.key)

    @staticmethod
    def _empty(lane: Any) -> None:
        for line in lane.pieces.values():
            line.clear()
        lane.wait_for(0)

    # -- events --------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen."""
        events = [self.arrive, self.arrive, self.turn, self.turn, self.want, self.look, self.leave]
        if self.builds:
            events += [self.built, self.hand_over]
        if self.warming:
            events += [self.up, self.up, self.cannot]
        if self.executors:
            events.append(self.end)
        happen(self.chance.choice(events), self.check)

    def arrive(self) -> None:
        """A task comes."""
        self.serve(self.lanes.of(self.wait(1, env=self.chance.choice(CODES), job=self.chance.choice(JOBS)).header))

    def want(self) -> None:
        """A driver wants an environment made."""
        self.environments.set_up(self.chance.choice(JOBS), self.chance.choice(CODES))

    def built(self) -> None:
        """A child has said its word, or ended without one."""
        build = self.chance.choice(self.builds)
        word = self.chance.choice(["ready", "ready", "ready", "cannot", "lost"])
        if word == "ready":
            build.setup = self._setup()
            build.finish()
        else:
            build.is_lost = word == "lost"
            build.end(word)

    def hand_over(self) -> None:
        """A child hands over a descriptor, before its word."""
        self.chance.choice(self.builds).locks.append(self.lease())

    def up(self) -> None:
        """A template is there."""
        self.environments.is_up(self.warming.pop(self.chance.randrange(len(self.warming))))

    def cannot(self) -> None:
        """A template cannot be started."""
        key = self.chance.choice(self.warming)
        self.broken.add(key)
        self.environments.broken(key, "it ends")

    def end(self) -> None:
        """A process ends."""
        del self.executors[self.chance.choice(list(self.executors))]

    def leave(self) -> None:
        """A driver leaves; what waits may be dropped, or outlive it."""
        job = self.chance.choice(JOBS)
        self.environments.end_job(job)
        if self.chance.random() < 0.7:
            for lane in [lane for lane in self.lanes.values() if lane.key[1] == job]:
                self.waiting.discard(lane)
                self._empty(lane)

    def turn(self) -> None:
        """The loop has its turn."""
        self.loop.run(0.2)

    def look(self) -> None:
        """Time passes, and they are looked at."""
        self.now += self.chance.choice([0.3, 5.0, 30.0, 70.0])
        self.environments.run_once()

    # -- what must be so -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check what must be so after each event."""
        known = self.environments._known
        assert len(self.builds) <= AT_ONCE, "too many are made at a time"
        keys = [build.key for build in self.builds]
        wanted = [key for key in keys if key in known and known[key].build in self.builds]
        assert len(wanted) == len(keys) == len(set(keys)), "what nobody wants is made, or something twice"
        entries = [lock for each in (*known.values(), *self.builds) for lock in each.entries]
        assert sorted(entries) == sorted(self.leased), "an entry is held by nobody, or was let go of"
        for executor in self.executors.values():
            if executor.key not in self.broken and executor.key not in known:
                raise AssertionError("an environment is given up while processes of it live")
        for lane in self.waiting:
            state = known[lane.key[1:]].state if lane.key[1:] in known else None
            if not lane.waiting or self.loop.pending:
                continue  # somebody is about to tell
            assert state in (State.MAKING, State.WARMING), f"tasks wait for an environment that is {state}"
            queued = any(key == lane.key[1:] for key, _ in self.environments._waiting)
            making = lane.key[1:] in keys or queued or lane.key[1:] in self.warming
            assert making, "tasks wait for an environment that nobody makes"

    def finish(self) -> None:
        """Let everything come to its end."""
        for _ in range(40 * STEPS):
            self.loop.run(1.0)
            if self.builds:
                self.builds[0].setup = FakeSetup(needs_template=False, has_libraries=False)
                self.builds[0].finish()
            elif self.warming:
                self.up()
            elif not any(lane.waiting for lane in self.lanes.values()):
                break
            self.check()
        assert not any(lane.waiting for lane in self.lanes.values()), "tasks wait for good"
        self.executors.clear()
        self.environments.end_job(JOBS[0])
        for _ in range(4):
            self.now += 70.0
            self.environments.run_once()
        assert not self.environments._known, "an environment is kept that nobody uses"
        self.environments.close()
        assert not self.leased, "entries of the cache are held for good"


class _NoLogs:
    def __truediv__(self, name: str) -> Any:
        return self

    def open(self, mode: str) -> Any:
        raise FileNotFoundError


def _nothing(*_: Any, **__: Any) -> None:
    pass


def test_each_lease_is_let_go_of_once_and_nobody_waits_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        with monkeypatch.context() as patch:
            story = Story(seed, patch)
            with named(seed):
                for _ in range(STEPS):
                    story.step()
                story.finish()
