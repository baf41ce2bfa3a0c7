"""Which outcomes a program may have: found by going through its steps one after the other, as nothing ran at once.

Where outcomes depend on chance (a cancellation that comes before or after the end), all of them are allowed. What
an outcome is made of: a *weight* (see `prelude.weigh`) or the kind of an error (see `prelude.kind_of`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.programs import Program, Step, outputs

ANY = None
"""The values of an outcome of which only that there is one is known."""

ENDLESS = 10**9
MOST_VALUES = 16
DEFAULT_RETRIES = 3
DURABLE_RUNS = 6
"""Times that a durable actor may begin a call, whose effect it has once, before the call fails."""

REPEATING = frozenset(("connections", "messages", "broker", "store"))
"""What was struck when messages may have been sent or delivered twice."""

Values = frozenset[int] | None


@dataclass(frozen=True)
class Outcome:
    """What may come of a ref.

    Attributes:
        values: weights; ANY for any, empty if it must fail.
        errors: kinds of errors that the ref may have.
        inner: kinds of errors that refs inside of its value may have.
        fails: True if the ref cannot have a value. (One that has may hold refs that fail: then it has no weight.)
    """

    values: Values = frozenset()
    errors: frozenset[str] = frozenset()
    inner: frozenset[str] = frozenset()
    fails: bool = False


@dataclass
class Expectation:
    """What the model says of a program.

    Attributes:
        refs: outcome of each ref.
        runs: how often each task and call may have begun, at least and at most.
        taken: for each `next` step, what it may say.
        lookups: names of actors that `get_actor` must find.
    """

    refs: dict[str, Outcome] = field(default_factory=dict)
    runs: dict[str, tuple[int, int]] = field(default_factory=dict)
    taken: dict[str, set[str]] = field(default_factory=dict)
    lookups: dict[int, bool] = field(default_factory=dict)


def judge(program: Program, report: dict[str, Any]) -> list[str]:
    """Return what is wrong with what a program reported; nothing if all is as it may be.

    Where nobody waited for what was dropped (`report["waited"]` is False), that need not have run; nor what a task has
    submitted that failed meanwhile.

    Args:
        program: the program.
        report: what `prelude.finish` returned; with faults, what was struck meanwhile; and how many steps of programs
            that ran beside it end processes (`neighbours`), which it may have shared.
    """
    struck = report.get("struck", [])
    expected = expect(
        program,
        faults=report.get("crashes", 0),
        repeats=sum(each in REPEATING for each in struck) + report.get("neighbours", 0),
        agents=struck.count("agent"),
    )
    wrong = []
    for entry in report["seen"]:
        complaint = _judge_entry(program, expected, entry)
        if complaint:
            wrong.append(f"{entry['label']}: {complaint}: {entry}")
    runs = report["runs"]
    dropped = {name for step in program.steps if step["op"] == "drop" for name in step["names"]}
    placed = {step["out"] for step in program.steps if "place" in step}
    placed |= {step["out"] for step in program.steps if step["op"] == "call" and step["actor"] in placed}
    for label, (least, most) in expected.runs.items():
        root = label.partition(".")[0].partition("_")[0]
        if root in dropped and root in placed:
            least = 0  # the end of the program removes its placement groups
        if not report.get("waited", True) and (root in dropped or "." in label):
            least = 0
        if not least <= runs.get(label, 0) <= most:
            wrong.append(f"{label} ran {runs.get(label, 0)} times, not {least} to {most} times")
    return wrong


def expect(program: Program, *, faults: int = 0, repeats: int = 0, agents: int = 0) -> Expectation:
    """Return what may come of a program.

    Args:
        program: the program.
        faults: how many processes were killed meanwhile.
        repeats: how often messages may have been sent twice, since connections broke: what may be run again may have
            begun once more each time.
        agents: how many of the faults were ends of agents, which take with them how often they had tried what they ran.
    """
    return _Walk(program, faults, repeats, agents).walk()


def _judge_entry(program: Program, expected: Expectation, entry: dict[str, Any]) -> str:
    kind, _, rest = entry["label"].partition(":")
    error = entry.get("error")
    if kind == "get":
        outcomes = [expected.refs[name] for name in program.steps[int(rest)]["refs"]]
        if error:
            allowed = frozenset().union(*[each.errors | each.inner for each in outcomes])
            return "" if error in allowed else f"an error that cannot be, only {sorted(allowed)}"
        for outcome, value in zip(outcomes, entry["value"], strict=True):
            if complaint := _judge_value(outcome, value):
                return complaint
        return ""
    if kind == "next":
        got = entry.get("error") or entry["value"]
        allowed = expected.taken[rest]
        return "" if got in allowed else f"expected {sorted(allowed)}"
    if kind == "lookup":
        return "the actor is not found" if error and expected.lookups[int(rest)] else ""
    if kind == "ready":
        return "" if entry.get("value") == 1 else "the placement group is not there"
    if kind in ("wait", "cancel"):
        return "an error that cannot be" if error else ""
    outcome = expected.refs[kind]
    if error:
        allowed = outcome.errors | outcome.inner
        return "" if error in allowed else f"an error that cannot be, only {sorted(allowed)} or {outcome.values}"
    return _judge_value(outcome, entry["value"])


def _judge_value(outcome: Outcome, value: int) -> str:
    if outcome.values is ANY or value in outcome.values:
        return ""
    if not outcome.values:
        return f"a value where only {sorted(outcome.errors)} can be"
    return f"a wrong value, not {sorted(outcome.values)}"


def _add(parts: list[Values], plus: int) -> Values:
    """Return all sums."""
    if any(part is ANY for part in parts):
        return ANY
    known = [part for part in parts if part is not None]
    count = 1
    for part in known:
        count *= len(part)
    if count > MOST_VALUES:
        return ANY
    return frozenset(sum(each) + plus for each in itertools.product(*known))


def _map(values: Values, change: Any) -> Values:
    return ANY if values is ANY else frozenset(map(change, values))


def _environment_weight(kinds: frozenset[str]) -> int:
    return 1000 * ("vars" in kinds) + 2000 * ("dir" in kinds)


def _payload_weight(size: int, fill: int) -> int:
    return size + fill % 256 if size else 0


@dataclass
class _Actor:
    step: Step
    deaths: int  # processes of it that the program ends, at least
    ends: bool  # for good
    total: Values = frozenset((0,))

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.step["options"])

    @property
    def restarts(self) -> int:
        return _limit(self.options.get("max_restarts", 0))


def _limit(number: int) -> int:
    return ENDLESS if number == -1 else number


class _Walk:
    def __init__(self, program: Program, faults: int, repeats: int, agents: int) -> None:
        self.program = program
        self.faults = faults
        self.repeats = repeats
        self.agents = agents
        self.expected = Expectation()
        self.cancelled = {
            step["ref"].partition("_")[0]: step["force"] for step in program.steps if step["op"] == "cancel"
        }
        for step in program.steps:
            if step["op"] == "cancel" and step["force"]:
                self.cancelled[step["ref"].partition("_")[0]] = True
        self.disturbed = bool(faults or repeats) or any(map(_disturbs, program.steps))
        self.dropped = {name for step in program.steps if step["op"] == "drop" for name in step["names"]}
        self.removed = {step["group"] for step in program.steps if step["op"] == "remove"}
        self.actors: dict[str, _Actor] = {}
        self.streams: dict[str, Step] = {}
        self.taken: dict[str, int] = {}

    def walk(self) -> Expectation:
        for at, step in enumerate(self.program.steps):
            if step["op"] == "put":
                values, errors = self._argument(step["value"])
                self.expected.refs[step["out"]] = Outcome(values, frozenset(), errors)
            elif step["op"] == "task":
                self._task(step)
            elif step["op"] == "stream":
                self.streams[step["out"]] = step
                self._note_stream(step)
            elif step["op"] == "next":
                self._next(step)
            elif step["op"] == "actor":
                self._actor(step)
            elif step["op"] == "call":
                self._call(step)
            elif step["op"] == "lookup":
                actor = self.actors[step["actor"]]
                sure = not (actor.ends or actor.deaths or actor.step.get("fails") or self.faults)
                self.expected.lookups[at] = sure
        return self.expected

    # -- arguments ---------------------------------------------------------------------------------------------------

    def _argument(self, value: Any) -> tuple[Values, frozenset[str]]:
        """Return the weights of an argument, and the errors that reading the refs in it may give."""
        if isinstance(value, int):
            return frozenset((value,)), frozenset()
        if isinstance(value, list) or "dict" in value:
            parts = [self._argument(each) for each in (value if isinstance(value, list) else value["dict"].values())]
            errors = frozenset().union(*[errors for _, errors in parts])
            return _add([values for values, _ in parts], 0), errors
        if "bytes" in value:
            return frozenset((_payload_weight(value["bytes"], value["fill"]),)), frozenset()
        if "actor" in value:
            return frozenset((0,)), frozenset()
        outcome = self.expected.refs[value["ref"]]
        return outcome.values, outcome.errors | outcome.inner

    def _arguments(self, args: list[Any]) -> tuple[Values, frozenset[str], frozenset[str], bool]:
        """Return weights, errors of dependencies, errors inside, and whether all dependencies may have values."""
        hard: frozenset[str] = frozenset()
        soft: frozenset[str] = frozenset()
        possible = True
        parts: list[Values] = []
        for each in args:
            if isinstance(each, dict) and "ref" in each:
                outcome = self.expected.refs[each["ref"]]
                hard |= outcome.errors
                soft |= outcome.inner
                possible = possible and not outcome.fails
                parts.append(outcome.values)
            else:
                values, errors = self._argument(each)
                soft |= errors
                parts.append(values)
        return _add(parts, 0), hard, soft, possible

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _task(self, step: Step) -> None:
        out, body = step["out"], step["body"]
        weights, hard, soft, possible = self._arguments(step["args"])
        if body.get("calls"):
            # The handle is the first argument.
            actor = self.actors[step["args"][0]["actor"]]
            if not self._calls_succeed(actor, {}):
                soft |= {"actor"}
            own = _environment_weight(frozenset(actor.step.get("env", ())))
            weights = ANY if weights is ANY else _add([weights], body["calls"] + own)
            if actor.step.get("fails"):
                weights = frozenset()
        cancel = self.cancelled.get(out)
        outcome = self._body(
            out, body, step["options"], weights, hard, soft, possible, cancel, removed=self._is_removed(step)
        )
        returns = step.get("returns", 1)
        if returns == "dynamic":
            # What the generator raises is the last item: the ref itself has a value.
            own = hard | ({"cancelled", "crashed"} & outcome.errors)
            values = _map(outcome.values, lambda v: v + 1)
            inner = outcome.inner | outcome.errors
            self.expected.refs[out] = Outcome(values, own, inner, not possible)
            return
        for at, name in enumerate(outputs(step)):
            values = outcome.values if at == 0 else _map(outcome.values, lambda v, at=at: v + at)
            self.expected.refs[name] = Outcome(values, outcome.errors, outcome.inner, outcome.fails)

    def _body(
        self,
        label: str,
        body: dict[str, Any],
        options: dict[str, Any],
        weights: Values,
        hard: frozenset[str],
        soft: frozenset[str],
        possible: bool,
        cancel: bool | None,
        env: frozenset[str] = frozenset(),
        removed: bool = False,
    ) -> Outcome:
        """Return what may come of a task and of what it submits.

        Args:
            label: of the task.
            body: what it does.
            options: how it is run.
            weights: of its arguments.
            hard: errors that its dependencies may have.
            soft: errors of refs in its arguments.
            possible: its dependencies may have values.
            cancel: by force, or not; None if it is not cancelled.
            env: kinds of environment that it inherits.
            removed: the placement group that it is in, or that its parent is in, is removed.
        """
        env = env.union(body.get("env", ()))
        retries = _limit(options.get("max_retries", DEFAULT_RETRIES))
        errors, inner = set(hard), set()
        runs = 1  # at most, so far
        times = body["times"] if body.get("error") or body.get("crash") else 0
        fails_for_sure = False
        if times and body.get("error"):
            retried = options.get("retry_exceptions", False)
            retried = body["error"] in retried if isinstance(retried, list) else retried
            allowed = retries if retried else 0
            runs = min(times, allowed) + 1
            if times > allowed - (self.faults if retried else 0):
                errors.add(body["error"])  # crashes take from the same number of tries
                fails_for_sure = times > allowed and not self.disturbed
        if times and body.get("crash"):
            runs = min(times, retries) + 1
            if times > retries:
                errors.add("crashed")
                fails_for_sure = not self.faults
        least = runs
        values = _add([weights], body["plus"]) if weights is not ANY else ANY
        nested = set(soft)
        for at, child in enumerate(body.get("children", [])):
            outcome = self._body(
                f"{label}.{at}",
                child["body"],
                child["options"],
                weights if child.get("given") else frozenset((child["argument"],)),
                frozenset(),
                soft if child.get("given") else frozenset(),
                True,
                None if cancel is None else False,
                env,
                removed,
            )
            # How often it ran depends on how often its parent did.
            sure = runs == 1 and possible and not fails_for_sure and not hard and cancel is None and not self.disturbed
            if not sure or soft or removed:
                self._loosen(f"{label}.{at}")
            values = _add([values, outcome.values], 0) if values is not ANY else ANY
            if body.get("children_are") == "returned":
                inner |= outcome.errors | outcome.inner
                if self.disturbed or self.faults:
                    inner |= {"lost", "crashed"}
            else:
                nested |= outcome.errors | outcome.inner
        if body.get("actor") and values is not ANY:
            values = _add([values], 2 * body["actor"])
        if body.get("actor") and (self.faults or cancel is not None or removed):
            nested.add("actor")
        if env and values is not ANY:
            values = _add([values], _environment_weight(env))
        if body.get("size") is not None:
            values = _map(values, lambda fill: _payload_weight(body["size"], fill))
        errors |= nested
        if nested and options.get("retry_exceptions"):
            runs, least = retries + 1, 1
        if cancel is not None:
            errors.add("cancelled")
            if times and body.get("error"):
                errors.add(body["error"])  # what is cancelled is not tried again
            if cancel:
                errors.add("crashed")
        if not possible:
            runs = least = 0
        elif hard or cancel is not None:
            least = 0
        if removed:
            # It may end the process, before a result is there or after, and with it what the process owned.
            errors |= {"group", "crashed"}
            least = 0
            fails_for_sure = fails_for_sure and not values
            if body.get("children"):
                inner |= {"group", "crashed", "lost", "cancelled"}
        if self.disturbed:
            # A result may have been lost with the process that had it, so that the task ran again.
            runs = max(runs, retries + 1)
            if retries:
                # A copy at another node counts its own tries.
                copies = self.repeats * (min(times, retries) + 1)
                runs = runs * (1 + self.agents) + self.faults + copies
            least = min(least, 1)
            if self.faults and retries < self.faults + min(times, runs):
                errors.add("crashed")  # maybe before it began
                least = 0
        if body.get("children") and self.faults:
            inner.add("lost")
        self.expected.runs[label] = (least, runs)
        fails = not possible or fails_for_sure or (bool(nested) and values is not ANY and not values and not inner)
        if fails:
            values = frozenset()
        return Outcome(values, frozenset(errors), frozenset(inner), fails)

    def _is_removed(self, step: Step) -> bool:
        """True if a step leads into a placement group that the program removes."""
        return "place" in step and step["place"]["group"] in self.removed

    def _loosen(self, label: str) -> None:
        """How often a task and what it submits ran is not known."""
        for each in self.expected.runs:
            if each == label or each.startswith(f"{label}."):
                self.expected.runs[each] = (0, ENDLESS)

    # -- streams -----------------------------------------------------------------------------------------------------

    def _note_stream(self, step: Step) -> None:
        self.taken[step["out"]] = 0
        if "actor" in step:
            actor = self.actors[step["actor"]]
            again = _limit(actor.options.get("max_task_retries", 0)) if actor.deaths else 0
            durable = DURABLE_RUNS if actor.options.get("durable") else 0
            self.expected.runs[step["out"]] = (0, max(1 + again, durable))
            return
        retries = _limit(step["options"].get("max_retries", DEFAULT_RETRIES))
        sure = step["out"] not in self.cancelled and not self.disturbed
        # One that is dropped may never begin.
        most = 1 if sure or not retries else (retries + 1) * (1 + self.agents) + self.faults + self.repeats
        self.expected.runs[step["out"]] = (0, most)

    def _next(self, step: Step) -> None:
        stream = self.streams[step["stream"]]
        at = self.taken[step["stream"]]
        self.taken[step["stream"]] += 1
        name = step["out"]
        retries = _limit(stream["options"].get("max_retries", DEFAULT_RETRIES))
        raise_at, crash_at, count = stream.get("raise_at"), stream.get("crash_at"), stream["count"]
        size = stream.get("size")
        value = frozenset((at if size is None else _payload_weight(size, at),))
        end = count if raise_at is None else min(count, raise_at)
        raises = raise_at is not None and raise_at < count
        unsure: set[str] = set()
        if step["stream"] in self.cancelled:
            unsure = {"cancelled", "crashed"}
        if (crash_at is not None and crash_at < end and retries == 0) or retries < self.faults:
            unsure.add("crashed")
        actor = self.actors.get(stream.get("actor", ""))
        if actor is not None and actor.step.get("fails"):
            errors = frozenset(("actor", *(("cancelled",) if unsure else ())))
            self.expected.taken[name] = {"item", "stop", *errors}
            self.expected.refs[name] = Outcome(frozenset(), errors, fails=True)
            return
        if actor is not None and not self._calls_succeed(actor, {}):
            unsure = {*unsure, "actor"} - {"crashed"}
        errors = frozenset(unsure)
        if at < end:
            taken = {"item"}
            outcome = Outcome(value, errors)
        elif at == end and raises:
            taken = {"item"}
            outcome = Outcome(frozenset(), errors | {"ValueError"}, fails=True)
        else:
            taken = {"stop"}
            outcome = Outcome(frozenset(), errors, fails=True)
        if unsure:
            taken = {"item", "stop", *unsure}
        self.expected.taken[name] = taken
        self.expected.refs[name] = outcome

    # -- actors ------------------------------------------------------------------------------------------------------

    def _actor(self, step: Step) -> None:
        out = step["out"]
        mine = [each for each in self.program.steps if each.get("actor") == out]
        deaths = sum(each.get("times", 0) for each in mine if each["op"] == "call" and each["method"] == "crash")
        deaths += sum(1 for each in mine if each["op"] == "kill" and not each["no_restart"])
        ends = any(each["op"] == "kill" and each["no_restart"] for each in mine)
        ends = ends or any(each["op"] == "call" and each["method"] == "leave" for each in mine)
        ends = ends or self._is_removed(step)
        self.actors[out] = _Actor(step, deaths + self.faults, ends)

    def _calls_succeed(self, actor: _Actor, options: dict[str, Any], spent: int = 0) -> bool:
        """True if no call can fail since the actor's process ended; it has spent so many tries on its own errors."""
        if actor.step.get("fails") or actor.ends:
            return False
        retries = _limit(options.get("max_task_retries", actor.options.get("max_task_retries", 0)))
        if actor.ends or not actor.deaths:
            return not actor.ends
        return actor.deaths <= actor.restarts and actor.deaths + spent <= retries

    def _call(self, step: Step) -> None:
        actor, out, method = self.actors[step["actor"]], step["out"], step["method"]
        options = step.get("options", {})
        weights, hard, soft, possible = self._arguments(step["args"])
        plus = step["plus"]
        if method == "pure":
            plus += _environment_weight(frozenset(actor.step.get("env", ())))
        values = _add([weights], plus) if weights is not ANY else ANY
        errors = set(hard | soft)
        retries = _limit(options.get("max_task_retries", actor.options.get("max_task_retries", 0)))
        quiet = not actor.deaths and not actor.ends
        least, most = 1, 1
        if method == "fail" and step.get("times"):
            retried = options.get("retry_exceptions", False)
            allowed = retries if retried else 0
            least = most = min(step["times"], allowed) + 1
            if step["times"] > allowed - (0 if quiet else actor.deaths + 1):
                errors.add("KeyError")  # ends of its process take from the same number of tries
            if step["times"] > allowed and quiet:
                values = frozenset()
        if soft and options.get("retry_exceptions"):
            least, most = 1, retries + 1
        durable = bool(actor.options.get("durable"))
        if method == "crash" and step["times"] > min(actor.restarts, retries) and not durable:
            values = frozenset()
        if method == "add":
            values = self._total(actor, step, values, hard, soft)
        if out in self.cancelled:
            errors.add("cancelled")
            if method == "fail" and step.get("times"):
                errors.add("KeyError")  # what is cancelled is not tried again
        if method == "leave":
            values = frozenset()
        spent = min(step.get("times", 0), retries) if method == "fail" and options.get("retry_exceptions") else 0
        if not self._calls_succeed(actor, options, spent):
            errors.add("actor")
        if actor.step.get("fails"):
            values, possible = frozenset(), False
        if not possible:
            values, least, most = frozenset(), 0, 0
        elif hard or out in self.cancelled or not quiet:
            least = 0
        if not quiet:
            most = max(most, 1 + retries, DURABLE_RUNS if durable else 0)
        if actor.options.get("lifetime") == "detached" and out in self.dropped:
            least = 0  # nobody waits for it, and the program's end kills the actor
        self.expected.runs[out] = (least, most)
        self.expected.refs[out] = Outcome(values, frozenset(errors), fails=values is not ANY and not values)

    def _total(self, actor: _Actor, step: Step, amount: Values, hard: frozenset[str], soft: frozenset[str]) -> Values:
        """Return the totals that a call of `add` may return, which is the state that it leaves."""
        durable = bool(actor.options.get("durable")) and self._calls_succeed(actor, {})
        ordered = actor.step["kind"] == "sync" and (durable or not actor.deaths) and not actor.ends
        if not ordered:
            return ANY
        before = actor.total
        after = ANY if before is ANY or amount is ANY else _add([before, amount], 0)
        if step["out"] in self.cancelled:
            actor.total = ANY
        elif not (hard or soft):
            actor.total = after
        elif amount is ANY or amount:
            actor.total = ANY if before is ANY or after is ANY else before | after
        return after


def disturbances(program: Program) -> int:
    """Return how many steps of a program end processes that others may share."""
    return sum(map(_disturbs, program.steps))


def _disturbs(step: Step) -> bool:
    """True if a step ends a process that may run other tasks."""
    if step["op"] == "cancel":
        return bool(step["force"])
    if step["op"] == "stream":
        return step.get("crash_at") is not None
    return step["op"] == "task" and _body_crashes(step["body"])


def _body_crashes(body: dict[str, Any]) -> bool:
    return bool(body.get("crash")) or any(_body_crashes(child["body"]) for child in body.get("children", []))
