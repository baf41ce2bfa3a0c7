"""A program that submits jobs, as plain data: its jobs, and the steps of whoever submits them.

A job is `{"work": [...], "end": how, "code": n, "dir": bool, "metadata": {...}, "by": who}`:

| work | what its driver does before it ends |
|---|---|
| `tasks` | runs some tasks and reads them |
| `once` | the same, of which each may begin once only |
| `actor` | makes an actor and calls it |
| `detached` | makes a detached actor, which is to outlive it |
| `unfinished` | leaves a task and a call of an actor running that would take for ever |
| `output` | prints much |
| `child` | starts a process, which is to end when the job is stopped |

| end | how its driver ends |
|---|---|
| `ok`, `exit`, `raise`, `os_exit`, `kill` | by itself: well, by `sys.exit`, an exception, `os._exit`, SIGKILL |
| `waits`, `stubborn` | when it is stopped; a stubborn one ignores SIGTERM |
| `shell`, `missing` | there is no driver: a shell command with an exit code, a command that does not exist |

`by` is "thread" (of the session), or "process": one that ends as soon as it has submitted the job.

| step | what it does |
|---|---|
| `submit` | submits a job |
| `again` | submits one of the same id |
| `race` | submits it three times at the same moment |
| `await` | waits `for` its driver to have "begun", or the job to have "ended" |
| `stop`, `delete` | asks for that |
| `look` | asks for status, information and log of all jobs, and for the list |
| `sleep` | does nothing for some `seconds` |
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

Job = dict[str, Any]
Step = dict[str, Any]

ENDS = ("ok", "ok", "ok", "exit", "raise", "os_exit", "kill", "waits", "waits", "stubborn", "shell", "missing")
WORK = ("tasks", "once", "actor", "detached", "unfinished", "output")
UNTIL_STOPPED = frozenset(("waits", "stubborn"))
COMMANDS = frozenset(("shell", "missing"))
MOST_JOBS = 4


@dataclass(frozen=True)
class Program:
    """A program.

    Attributes:
        name: the seed it was made from, or the name of its file.
        jobs: by the last part of their submission ids.
        steps: in order.
    """

    name: str
    jobs: dict[str, Job] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps({"name": self.name, "jobs": self.jobs, "steps": self.steps}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Program:
        """Return the program that `to_json` made a text of."""
        data = json.loads(text)
        return cls(data["name"], data["jobs"], data["steps"])


def generate(seed: int) -> Program:
    """Return the program of a seed."""
    chance = random.Random(f"jobs-{seed}")
    jobs = {f"j{at}": _job(chance) for at in range(chance.randint(1, MOST_JOBS))}
    chains = [_chain(chance, name, job) for name, job in jobs.items()]
    steps: list[Step] = []
    while any(chains):
        steps.append(chance.choice([chain for chain in chains if chain]).pop(0))
        if chance.random() < 0.2:
            steps.append({"op": "look"})
    return Program(str(seed), jobs, steps)


def _job(chance: random.Random) -> Job:
    end = chance.choice(ENDS)
    work = [] if end in COMMANDS else [each for each in WORK if chance.random() < 0.35]
    if end in UNTIL_STOPPED and chance.random() < 0.5:
        work.append("child")
    return {
        "work": work,
        "end": end,
        "code": chance.choice([1, 2, 7, 255]),
        "dir": chance.random() < 0.25,
        "metadata": {"team": chance.choice("abc")} if chance.random() < 0.5 else {},
        "by": chance.choice(["thread", "thread", "process"]),
    }


def _chain(chance: random.Random, name: str, job: Job) -> list[Step]:
    """Return the steps that concern one job, in their order."""
    chain: list[Step] = [{"op": "race" if chance.random() < 0.1 else "submit", "job": name}]
    if chance.random() < 0.25:
        chain.append({"op": "again", "job": name})
    if chance.random() < 0.3:
        chain.append({"op": "delete", "job": name})
    if chance.random() < 0.4:
        chain.append({"op": "sleep", "seconds": round(chance.uniform(0, 0.6), 2)})
    if job["end"] in UNTIL_STOPPED or chance.random() < 0.25:
        if chance.random() < 0.6:
            chain.append({"op": "await", "job": name, "for": "begun"})
        chain += [{"op": "stop", "job": name}] * chance.choice([1, 1, 2])
    if chance.random() < 0.5:
        chain += [{"op": "await", "job": name, "for": "ended"}, {"op": chance.choice(["stop", "again"]), "job": name}]
        if chance.random() < 0.6:
            chain += [{"op": "delete", "job": name}] * chance.choice([1, 1, 2])
            if job["end"] not in UNTIL_STOPPED and chance.random() < 0.4:
                chain.append({"op": "submit", "job": name})
    return chain
