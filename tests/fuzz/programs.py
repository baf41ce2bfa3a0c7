"""A program as plain data: a list of steps, each a dictionary that JSON can hold.

| step | fields | what it does |
|---|---|---|
| `put` | `out`, `value` | stores a value |
| `task` | `out`, `body`, `args`, `options`, `returns` | runs a task; with `returns` n > 1 its refs are `out_0` ... |
| `stream` | `out`, `count`, `raise_at`, `crash_at`, `pause`, `options`, `actor` | runs a generator |
| `next` | `stream`, `out` | takes the next ref of a stream |
| `actor` | `out`, `kind`, `options`, `pause`, `fails` | creates an actor |
| `call` | `out`, `actor`, `method`, `plus`, `args`, `options`, `times`, `pause` | calls it |
| `kill` | `actor`, `no_restart` | kills it |
| `lookup` | `actor`, `name` | from now on it is called by the handle that `get_actor` returns |
| `cancel` | `ref`, `force`, `recursive` | cancels a task, a stream or a call |
| `get` | `refs`, `how` | reads refs, one or a list: by `get`, by futures, or in a coroutine |
| `wait` | `refs`, `num_returns`, `timeout` | waits for refs |
| `group` | `out`, `bundles`, `strategy` | makes a placement group of bundles with so many CPUs each |
| `ready` | `group` | waits until its bundles are reserved |
| `remove` | `group` | removes it |
| `sleep` | `seconds` | does nothing |
| `drop` | `names` | forgets refs, streams, handles of actors |

An argument or a value is an int, `{"bytes": n, "fill": k}`, `{"ref": name}`, `{"actor": name}`, a list or
`{"dict": {...}}` of those. A body is `{"plus": k, "pause": s, "size": n, "error": name, "crash": how, "times": n,
"children": [...], "children_are": "read" | "waited" | "returned", "env": [...], "actor": k}`: what it fails with, it
fails with the first `times` times. An `env` is a list of "vars" (variables) and "dir" (a working directory); actors
may have one too. Tasks and actors may have a `place`: `{"group": name, "bundle": index, "capture": bool}`. What a
program computes is the *weight* of values: see `prelude.weigh`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Step = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """A program.

    Attributes:
        name: what it is called in reports: the seed it was made from, or the name of its file.
        steps: what it does.
    """

    name: str
    steps: list[Step] = field(default_factory=list)

    def to_json(self) -> str:
        """Return it as text."""
        lines = ",\n  ".join(json.dumps(step) for step in self.steps)
        return f'{{"name": {json.dumps(self.name)}, "steps": [\n  {lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Program:
        """Return the program that `to_json` made a text of."""
        data = json.loads(text)
        return cls(data["name"], data["steps"])


def outputs(step: Step) -> list[str]:
    """Return the names that a step gives to what it makes."""
    if step["op"] == "task" and step.get("returns", 1) != 1 and step["returns"] != "dynamic":
        return [f"{step['out']}_{at}" for at in range(step["returns"])]
    return [step["out"]] if "out" in step else []


def names_in(value: Any) -> list[str]:
    """Return the names of refs and actors in an argument, at any depth."""
    if isinstance(value, list):
        return [name for each in value for name in names_in(each)]
    if isinstance(value, dict):
        if "ref" in value:
            return [value["ref"]]
        if "actor" in value:
            return [value["actor"]]
        return [name for each in value.get("dict", {}).values() for name in names_in(each)]
    return []


def inputs(step: Step) -> list[str]:
    """Return the names that a step needs."""
    names = [step[key] for key in ("stream", "actor", "ref", "group") if key in step]
    if "place" in step:
        names.append(step["place"]["group"])
    return [*names, *step.get("refs", ()), *names_in(step.get("args", [])), *names_in(step.get("value"))]


def without(program: Program, dropped: set[int]) -> Program:
    """Return the program without some of its steps, and without those that need what these made."""
    missing: set[str] = set()
    steps = []
    for at, step in enumerate(program.steps):
        if step["op"] in ("get", "wait", "drop") and at not in dropped:
            key = "names" if step["op"] == "drop" else "refs"
            kept = [name for name in step[key] if name not in missing]
            if kept:
                step = {**step, key: kept}
                if step["op"] == "wait":
                    step["num_returns"] = min(step["num_returns"], len(kept))
                steps.append(step)
        elif at in dropped or missing.intersection(inputs(step)):
            missing.update(outputs(step))
        else:
            steps.append(step)
    return Program(program.name, steps)
