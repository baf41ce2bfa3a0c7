"""A program from a seed. The same seed gives the same program, in this version of this file."""

from __future__ import annotations

import random
from typing import Any

from tests.fuzz.programs import Program, Step, outputs

CPUS = 4
"""What the session has, and two of the resource `x`."""

SIZES = [0, 1, 100, 5000, 65000, 65536, 66000, 110_000, 1 << 20, 5 << 20]
LARGE = 64 << 20
THEMES = ["tasks", "chains", "actors", "actors", "streams", "failures", "cancels", *2 * ["mixed"], *2 * ["groups"]]
PAUSES = [0, 0, 0, 0, 0.001, 0.005, 0.02, 0.05, 0.15]


def generate(seed: int, *, large: bool = False) -> Program:
    """Return the program of a seed.

    Args:
        seed: any number.
        large: also values of 64 MiB.
    """
    return Program(str(seed), _Maker(random.Random(seed), large).make())


class _Maker:
    def __init__(self, chance: random.Random, large: bool) -> None:
        self.chance = chance
        self.sizes = SIZES + ([LARGE] if large else [])
        self.steps: list[Step] = []
        self.count = 0
        self.refs: list[str] = []  # that can be arguments
        self.plain: list[str] = []  # of them, those whose tasks call no actor
        self.cancellable: list[str] = []
        self.streams: dict[str, int] = {}  # and how many more items may be taken
        self.actors: dict[str, Step] = {}
        self.groups: dict[str, Step] = {}  # not removed
        self.held = 0.0  # CPUs that living actors and placement groups hold
        # A program has a theme, so that what belongs together meets often enough.
        self.theme = chance.choice(THEMES)

    def make(self) -> list[Step]:
        weights = {
            "put": 2, "task": 6, "actor": 1, "call": 3, "stream": 1, "next": 2, "cancel": 1, "get": 2, "wait": 1,
            "sleep": 1, "drop": 1, "kill": 0.4, "lookup": 0.3, "group": 0.5, "ready": 0.2, "remove": 0.2,
        }  # fmt: skip
        more = {
            "chains": {"task": 14, "put": 1},
            "actors": {"actor": 2, "call": 14, "task": 3, "kill": 0.7},
            "streams": {"stream": 4, "next": 10},
            "cancels": {"cancel": 5, "task": 9, "sleep": 2},
            "groups": {"group": 1, "ready": 1, "remove": 1.2, "task": 12, "actor": 2, "call": 4},
        }
        weights.update(more.get(self.theme, {}))
        if self.theme == "groups":
            self._group()
        for _ in range(self.chance.randint(2, 14)):
            (op,) = self.chance.choices(list(weights), list(weights.values()))
            getattr(self, f"_{op}")()
        return self.steps

    def _name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def _maybe(self, share: float) -> bool:
        return self.chance.random() < share

    def _small(self) -> int:
        return self.chance.randint(0, 9)

    # -- values ------------------------------------------------------------------------------------------------------

    def _argument(self, depth: int, refs: list[str]) -> Any:
        choice = self.chance.random()
        if depth == 0 and refs and choice < 0.55:
            return {"ref": self.chance.choice(refs[-4:] if self.theme == "chains" else refs)}
        if depth and refs and choice < 0.4:
            return {"ref": self.chance.choice(refs)}
        if depth < 3 and choice < 0.7:
            return [self._argument(depth + 1, refs) for _ in range(self.chance.randint(0, 3))]
        if depth < 3 and choice < 0.76:
            return {"dict": {"k": self._argument(depth + 1, refs)}}
        if choice < 0.85:
            return {"bytes": self._size(), "fill": self._small()}
        return self._small()

    def _size(self) -> int:
        return self.chance.choice(self.sizes[:-3] if self._maybe(0.8) else self.sizes)

    def _put(self) -> None:
        name = self._name("r")
        nested = self.plain if self._maybe(0.3) else []
        value = self._argument(1, nested) if self._maybe(0.5) else {"bytes": self._size(), "fill": self._small()}
        if isinstance(value, dict) and "ref" in value:
            value = [value]
        self.steps.append({"op": "put", "out": name, "value": value})
        self.refs.append(name)
        self.plain.append(name)

    # -- placement groups --------------------------------------------------------------------------------------------

    def _group(self) -> None:
        bundles = self.chance.choice([[1], [0.5], [1, 1], [0.5, 0.5], [1, 0.5]])
        if self.held + sum(bundles) > 2:
            return
        self.held += sum(bundles)
        name = self._name("g")
        strategy = self.chance.choice(["PACK", "SPREAD", "STRICT_PACK"])
        step: Step = {"op": "group", "out": name, "bundles": bundles, "strategy": strategy}
        self.steps.append(step)
        self.groups[name] = step

    def _ready(self) -> None:
        if self.groups:
            self.steps.append({"op": "ready", "group": self.chance.choice(list(self.groups))})

    def _remove(self) -> None:
        if self.groups:
            group = self.chance.choice(list(self.groups))
            del self.groups[group]
            self.steps.append({"op": "remove", "group": group})

    def _place(self, options: dict[str, Any]) -> Step | None:
        """Choose a bundle; options that do not fit there are changed."""
        if not self.groups or "resources" in options or not self._maybe(0.75 if self.theme == "groups" else 0.4):
            return None
        group = self.chance.choice(list(self.groups))
        bundles = self.groups[group]["bundles"]
        bundle = self.chance.randint(-1, len(bundles) - 1)
        room = max(bundles) if bundle == -1 else bundles[bundle]
        options.pop("scheduling_strategy", None)
        if options.get("num_cpus", 1) > room:
            options["num_cpus"] = self.chance.choice([0, room])
        return {"group": group, "bundle": bundle}

    def _fit(self, body: dict[str, Any], room: float) -> None:
        """Let what a task submits fit into its bundle."""
        body.pop("actor", None)
        for child in body.get("children", []):
            child["options"].pop("scheduling_strategy", None)
            if child["options"].get("num_cpus", 1) > room:
                child["options"]["num_cpus"] = room
            self._fit(child["body"], room)

    def _environment(self) -> list[str]:
        return self.chance.choice([["vars"], ["dir"], ["vars", "dir"]])

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _options(self, *, nested: bool) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self._maybe(0.25):
            options["num_cpus"] = self.chance.choice([0, 0.5, 1, 2])
        if not nested and self._maybe(0.15):
            options["resources"] = {"x": self.chance.choice([0.5, 1, 2])}
        if self._maybe(0.15):
            options["priority"] = self.chance.randint(0, 9)
        if self._maybe(0.25):
            options["max_retries"] = self.chance.choice([0, 0, 1, 2, -1])
        if self._maybe(0.1):
            options["max_calls"] = self.chance.choice([1, 2, 5])
        if self._maybe(0.1):
            options["scheduling_strategy"] = "SPREAD"
        return options

    def _body(self, depth: int, options: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {"plus": self._small(), "pause": self.chance.choice(PAUSES)}
        failing = 0.35 if self.theme == "failures" else 0.1
        if self._maybe(failing):
            body["error"] = self.chance.choice(["ValueError", "KeyError"])
            body["times"] = self.chance.choice([1, 2, 99]) if depth == 0 else 99
            if depth == 0 and self._maybe(0.6):
                options["retry_exceptions"] = self.chance.choice([True, ["ValueError"]])
                if options.get("max_retries") == -1:
                    body["times"] = min(body["times"], 3)
        elif depth == 0 and self._maybe(failing * 0.6):
            body["crash"] = self.chance.choice(["exit", "kill", "sys"])
            body["times"] = self.chance.choice([1, 1, 2, 99])
            if options.get("max_retries") == -1:
                body["times"] = min(body["times"], 2)
        if depth < 2 and "resources" not in options and self._maybe(0.2 if depth == 0 else 0.3):
            body["children"] = [self._child(depth + 1) for _ in range(self.chance.randint(1, 3))]
            body["children_are"] = self.chance.choice(["read", "waited", "returned"])
        elif self._maybe(0.15):
            body["size"] = self._size()
        elif "resources" not in options and self._maybe(0.06):
            body["actor"] = self._small() + 1
        if self._maybe(0.03):
            body["env"] = self._environment()
        return body

    def _child(self, depth: int) -> dict[str, Any]:
        options = self._options(nested=True)
        child = {"options": options, "argument": self._small(), "body": self._body(depth, options)}
        if self._maybe(0.25):
            child["given"] = True
        return child

    def _task(self) -> None:
        name = self._name("r")
        options = self._options(nested=False)
        body = self._body(0, options)
        # A task that holds a resource reads no refs: what it would wait for may need the same resource.
        usable = [] if "resources" in options else self.refs
        args = []
        for _ in range(self.chance.choice([0, 0, 1, 1, 2, 3])):
            if "resources" in options and self.refs and self._maybe(0.5):
                args.append({"ref": self.chance.choice(self.refs)})
            else:
                args.append(self._argument(0, usable))
        if "resources" in options:
            args = [each for each in args if not (isinstance(each, dict) and self._has_refs(each.get("ref")))]
        place = self._place(options)
        if place is not None and self._maybe(0.4):
            place["capture"] = True
            bundles = self.groups[place["group"]]["bundles"]
            self._fit(body, min(bundles))
        calls = False
        living = [at for at, step in self.actors.items() if not step.get("fails")]
        if living and "resources" not in options and self._maybe(0.15):
            calls = True
            args.insert(0, {"actor": self.chance.choice(living)})
            body["calls"] = self._small() + 1
            for child in body.get("children", []):
                child.pop("given", None)
        reads = calls or any(map(_names, args)) or body.get("children")
        if reads and options.get("retry_exceptions") and options.get("max_retries") == -1:
            options["max_retries"] = 3  # what it reads may fail for good: it would be tried again for ever
        step: Step = {"op": "task", "out": name, "body": body, "args": args, "options": options}
        if place is not None:
            step["place"] = place
        returns_children = body.get("children_are") == "returned" and body.get("children")
        if not returns_children and body.get("size") is None and self._maybe(0.15):
            step["returns"] = self.chance.choice([2, 3])
        elif self._maybe(0.05) and not (returns_children or any(self._has_refs(each) for each in args)):
            step["returns"] = "dynamic"
            for key in ("error", "crash", "size"):
                body.pop(key, None)
        self.steps.append(step)
        self.refs += outputs(step)
        self.cancellable.append(outputs(step)[0])
        if not calls and not any(name not in self.plain for name in _names(args)):
            self.plain += outputs(step)

    def _has_refs(self, value: Any) -> bool:
        """True if reading a value may mean to wait for others (a ref whose value holds refs)."""
        names = [value] if isinstance(value, str) else _names(value)
        for name in names:
            for step in self.steps:
                if name in outputs(step):
                    if step["op"] == "put" and _names(step["value"]):
                        return True
                    if step["op"] == "task" and step["body"].get("children_are") == "returned":
                        return True
                    if step.get("returns") == "dynamic":
                        return True
        return False

    # -- streams -----------------------------------------------------------------------------------------------------

    def _stream(self) -> None:
        name = self._name("s")
        count = self.chance.choice([0, 1, 3, 10])
        step: Step = {
            "op": "stream",
            "out": name,
            "count": count,
            "options": {},
            "pause": self.chance.choice([0, 0, 0.01]),
        }
        living = [at for at, each in self.actors.items()]
        if living and self._maybe(0.4):
            step["actor"] = self.chance.choice(living)
        if self._maybe(0.3):
            step["raise_at"] = self.chance.randint(0, count)
        elif "actor" not in step and self._maybe(0.3):
            step["crash_at"] = self.chance.randint(0, count)
        if "actor" not in step and self._maybe(0.3):
            step["options"]["max_retries"] = self.chance.choice([0, 1])
        if "actor" not in step and self._maybe(0.3):
            step["size"] = self._size()
        if "actor" not in step and self._maybe(0.3):  # a paused one would keep its actor from other calls
            # It keeps its CPU while it is paused, as in Ray, and what is read before its next item may need that one.
            step["options"] |= {"_generator_backpressure_num_objects": self.chance.choice([1, 2]), "num_cpus": 0}
        self.steps.append(step)
        self.streams[name] = count + 2
        self.cancellable.append(name)

    def _next(self) -> None:
        open_streams = [name for name, left in self.streams.items() if left]
        if not open_streams:
            self._stream()
            return
        stream = self.chance.choice(open_streams)
        for _ in range(self.chance.choice([1, 1, 3, self.streams[stream]])):
            if self.streams[stream]:
                self.streams[stream] -= 1
                self.steps.append({"op": "next", "stream": stream, "out": self._name("i")})

    # -- actors ------------------------------------------------------------------------------------------------------

    def _actor(self) -> None:
        name = self._name("a")
        kind = self.chance.choice(["sync", "sync", "sync", "threaded", "async", "async", "groups"])
        options: dict[str, Any] = {}
        if kind == "threaded":
            options["max_concurrency"] = self.chance.choice([2, 4])
        if kind == "groups":
            options["concurrency_groups"] = {"io": 2}
        if self._maybe(0.5):
            options["max_restarts"] = self.chance.choice([-1, 1, 0, -1])
            options["max_task_retries"] = self.chance.choice([-1, 1, 0, -1])
        if kind == "sync" and self._maybe(0.35):
            options["durable"] = True
        if self._maybe(0.3) and self.held + 1 <= 2:
            options["num_cpus"] = self.chance.choice([0, 0.5, 1])
            self.held += options["num_cpus"]
        if self._maybe(0.2):
            options["name"] = f"name-{name}-{self.chance.getrandbits(40):x}"
            if self._maybe(0.4):
                options["lifetime"] = "detached"
        step: Step = {"op": "actor", "out": name, "kind": kind, "options": options}
        if "num_cpus" not in options and self._maybe(0.5):
            options["num_cpus"] = 0  # so that it leaves room to others
            step["place"] = self._place(options)
            if step["place"] is None:
                del step["place"], options["num_cpus"]
        if self._maybe(0.05):
            step["env"] = self._environment()
        if self._maybe(0.06):
            step["fails"] = True
        if self._maybe(0.1):
            step["pause"] = self.chance.choice([0.01, 0.1])
        self.steps.append(step)
        self.actors[name] = step

    def _call(self) -> None:
        if not self.actors:
            self._actor()
        actor = self.chance.choice(list(self.actors))
        for _ in range(self.chance.choice([1, 1, 1, 2, 5])):
            self._one_call(actor)

    def _one_call(self, actor: str) -> None:
        name = self._name("r")
        options: dict[str, Any] = {}
        made = self.actors[actor]["options"]
        restarting = made.get("max_restarts", 0) != 0
        weights = {"add": 6, "pure": 3, "fail": 1.5, "crash": 1.2 if restarting else 0.5, "leave": 0.2}
        (method,) = self.chance.choices(list(weights), list(weights.values()))
        args = []
        for _ in range(self.chance.choice([0, 0, 0, 1, 2])):
            args.append(self._argument(0, self.plain))
        step: Step = {"op": "call", "out": name, "actor": actor, "method": method, "plus": self._small(), "args": args}
        step["pause"] = self.chance.choice(PAUSES)
        if method == "fail":
            step["times"] = self.chance.choice([1, 1, 2, 99])
            if self._maybe(0.6):
                options["retry_exceptions"] = True
                if self._maybe(0.5):
                    options["max_task_retries"] = self.chance.choice([1, 2, 3])
                if options.get("max_task_retries", made.get("max_task_retries", 0)) == -1:
                    step["times"] = min(step["times"], 2)
        if method == "crash":
            step["times"] = 1
        step["options"] = options
        self.steps.append(step)
        self.refs.append(name)
        self.cancellable.append(name)

    def _kill(self) -> None:
        if self.actors:
            actor = self.chance.choice(list(self.actors))
            self.steps.append({"op": "kill", "actor": actor, "no_restart": self._maybe(0.6)})

    def _lookup(self) -> None:
        named = [name for name, step in self.actors.items() if step["options"].get("name")]
        if named:
            actor = self.chance.choice(named)
            self.steps.append({"op": "lookup", "actor": actor, "name": self.actors[actor]["options"]["name"]})

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        if not self.cancellable:
            return
        ref = self.chance.choice(self.cancellable)
        call = any("actor" in step and step.get("out") == ref for step in self.steps)
        force = not call and self._maybe(0.3)
        if self._maybe(0.5):
            self._sleep()
        self.steps.append({"op": "cancel", "ref": ref, "force": force, "recursive": self._maybe(0.7)})

    def _get(self) -> None:
        if self.refs:
            count = min(len(self.refs), self.chance.choice([1, 1, 2, 5]))
            how = self.chance.choice(["get", "get", "get", "future", "await"])
            self.steps.append({"op": "get", "refs": self.chance.sample(self.refs, count), "how": how})

    def _wait(self) -> None:
        if self.refs:
            names = self.chance.sample(self.refs, min(len(self.refs), self.chance.choice([1, 2, 5])))
            timeout = self.chance.choice([None, 0, 0.01, 0.1])
            self.steps.append(
                {"op": "wait", "refs": names, "num_returns": self.chance.randint(1, len(names)), "timeout": timeout}
            )

    def _sleep(self) -> None:
        self.steps.append({"op": "sleep", "seconds": self.chance.choice([0.001, 0.01, 0.05, 0.2])})

    def _drop(self) -> None:
        names = [*self.refs, *self.streams, *self.actors]
        if names:
            chosen = self.chance.sample(names, min(len(names), self.chance.randint(1, 2)))
            self.steps.append({"op": "drop", "names": chosen})
            for name in chosen:
                for kind in (self.refs, self.plain, self.cancellable):
                    if name in kind:
                        kind.remove(name)
                self.streams.pop(name, None)
                self.actors.pop(name, None)


def _names(value: Any) -> list[str]:
    from tests.fuzz.programs import names_in

    return names_in(value)
