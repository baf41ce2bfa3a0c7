"""A program as the source of a script: `python script.py` runs it on rabbitry, `python script.py ray` on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fuzz.programs import Program, Step, outputs

PRELUDE = Path(__file__).with_name("prelude.py")


def render(program: Program, end: tuple[str, float] | None = None) -> str:
    """Return the script of a program.

    Args:
        program: the program.
        end: how its driver is to end ("kill", "exit", "term"), and after how many seconds; None for as programs do.
    """
    lines = [f'"""Program {program.name} of tests/fuzz."""', "", PRELUDE.read_text(), "", "# -- the program", ""]
    lines += [f"# {line}" for line in program.to_json().splitlines()]
    if end is not None:
        lines += ["", f"end_driver_later({end[0]!r}, {end[1]!r})"]
    for at, step in enumerate(program.steps):
        lines += ["", *_STEPS[step["op"]](step, at)]
    kill = [
        step["options"]["name"]
        for step in program.steps
        if step["op"] == "actor" and step["options"].get("lifetime") == "detached"
    ]
    lines += ["", f"report = finish({kill!r})"]
    lines += ['if __name__ == "__main__" and "FUZZ_SESSION" not in globals():']
    lines += ["    print(json.dumps({**report, 'runs': count_runs()}, indent=1))", "    ray.shutdown()", ""]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        if "ref" in value:
            return f"refs[{value['ref']!r}]"
        if "actor" in value:
            return f"actors[{value['actor']!r}]"
        if "bytes" in value:
            return f"payload({value['bytes']}, {value['fill']})"
        return "{" + ", ".join(f"{key!r}: {_value(each)}" for key, each in value["dict"].items()) + "}"
    return repr(value)


def _options(options: dict[str, Any], names: tuple[str, ...] | None = None) -> str:
    shown = {key: value for key, value in options.items() if names is None or key in names}
    parts = []
    for key, value in shown.items():
        if key == "retry_exceptions" and isinstance(value, list):
            parts.append(f"{key}=[{', '.join(value)}]")
        elif key in OURS:
            parts.append(f"**({{{key!r}: {value!r}}} if ray.__name__ == 'rabbitry' else {{}})")
        else:
            parts.append(f"{key}={value!r}")
    return ", ".join(parts)


OURS = ("durable", "priority", "retry_delay")
"""Options that Ray has not."""


def _decorator(options: dict[str, Any], env: list[str], returns: Any = 1, place: Step | None = None) -> str:
    parts = [_options(options)] if options else []
    if env:
        parts.append(f"runtime_env=environment({env})")
    if place is not None:
        where = f"{place['group']!r}, {place['bundle']}, {place.get('capture', False)}"
        parts.append(f"scheduling_strategy=placed({where})")
    if returns != 1:
        parts.append(f"num_returns={returns!r}")
    return f"@remote({', '.join(parts)})" if parts else "@ray.remote"


def _function(
    name: str,
    label: str,
    body: dict[str, Any],
    options: dict[str, Any],
    returns: Any,
    place: Step | None = None,
    inherited: frozenset[str] = frozenset(),
) -> list[str]:
    own = body.get("env", [])
    lines = [_decorator(options, own, returns, place), f"def {name}(*args):"]
    lines += ["    " + line for line in _body(label, body, returns, inherited.union(own))]
    return lines


def _body(label: str, body: dict[str, Any], returns: Any, env: frozenset[str]) -> list[str]:
    lines = [f"time_of_run = ran({label!r})"]
    if body.get("pause"):
        lines.append(f"time.sleep({body['pause']})")
    if body.get("error"):
        lines.append(f"if time_of_run <= {body['times']}:")
        lines.append(f"    raise {body['error']}({label!r})")
    if body.get("crash"):
        lines.append(f"if time_of_run <= {body['times']}:")
        lines.append(f"    end_process({body['crash']!r})")
    children = body.get("children", [])
    for at, child in enumerate(children):
        lines += _function(f"child_{at}", f"{label}.{at}", child["body"], child["options"], 1, inherited=env)
    if children:
        calls = ", ".join(
            f"child_{at}.remote({'list(args)' if child.get('given') else child['argument']})"
            for at, child in enumerate(children)
        )
        lines.append(f"children = [{calls}]")
        if body.get("children_are") == "waited":
            lines.append("waiting = list(children)")
            lines.append("while waiting:")
            lines.append("    _, waiting = ray.wait(waiting, num_returns=1)")
    total = f"weigh(args) + {body['plus']}"
    if body.get("calls"):
        total += f" + call_actor(args[0], {body['calls']})"
    if body.get("actor"):
        total += f" + use_actor({body['actor']})"
    if env:
        total += " + environment_weight()"
    if body.get("children_are") == "returned" and children:
        lines.append(f"return [{total}, *children]")
        return lines
    if children:
        total += " + weigh(children)"
    if body.get("size") is not None:
        lines.append(f"return payload({body['size']}, {total})")
        return lines
    lines.append(f"total = {total}")
    if returns == 1:
        lines.append("return total")
    elif returns == "dynamic":
        lines.append("yield total")
        lines.append("yield 1")
    else:
        lines.append(f"return tuple(total + at for at in range({returns}))")
    return lines


def _task(step: Step, _: int) -> list[str]:
    name, out, returns = f"task_{step['out']}", step["out"], step.get("returns", 1)
    lines = _function(name, out, step["body"], step["options"], returns, step.get("place"))
    call = f"{name}.remote({', '.join(map(_value, step['args']))})"
    if returns in (1, "dynamic"):
        return [*lines, f"refs[{out!r}] = {call}"]
    return [*lines, f"refs.update(zip({outputs(step)!r}, {call}))"]


def _stream(step: Step, _: int) -> list[str]:
    out, name = step["out"], f"stream_{step['out']}"
    if "actor" in step:
        options = _options({"num_returns": "streaming", **step["options"]})
        call = f"actors[{step['actor']!r}].items.options({options})"
        return [f"streams[{out!r}] = {call}.remote({out!r}, {step['count']}, {step.get('raise_at')}, {step['pause']})"]
    lines = [_decorator(step["options"], [], "streaming"), f"def {name}():", f"    time_of_run = ran({out!r})"]
    lines.append(f"    for at in range({step['count']}):")
    if step.get("raise_at") is not None:
        lines += [f"        if at == {step['raise_at']}:", f"            raise ValueError({out!r})"]
    if step.get("crash_at") is not None:
        lines += [f"        if at == {step['crash_at']} and time_of_run == 1:", "            end_process('exit')"]
    if step.get("pause"):
        lines.append(f"        time.sleep({step['pause']})")
    size = step.get("size")
    lines.append("        yield at" if size is None else f"        yield payload({size}, at)")
    return [*lines, f"streams[{out!r}] = {name}.remote()"]


def _actor(step: Step, _: int) -> list[str]:
    out, kind = step["out"], step["kind"]
    is_async = kind == "async"
    define, wait, weigh = (
        ("async def", "await asyncio.sleep", "await weigh_async") if is_async else ("def", "time.sleep", "weigh")
    )
    options = dict(step["options"])
    env = step.get("env", [])
    more = " + environment_weight()" if env else ""
    lines = [_decorator(options, env, place=step.get("place")), f"class Actor_{out}:"]
    slow = [f"        time.sleep({step['pause']})"] if step.get("pause") else []
    fails = ["        raise ValueError('constructor')"] if step.get("fails") else []
    lines += ["    def __init__(self):", f"        ran('{out}.init')", "        self.total = 0", *slow, *fails]
    group = ['    @ray.method(concurrency_group="io")'] if kind == "groups" else []
    lines += [
        f"    {define} add(self, label, plus, pause, times, *args):",
        "        ran(label)",
        "        if pause:",
        f"            {wait}(pause)",
        f"        self.total += plus + {weigh}(args)",
        "        return self.total",
        *group,
        f"    {define} pure(self, label, plus, pause, times, *args):",
        "        if label:",
        "            ran(label)",
        "        if pause:",
        f"            {wait}(pause)",
        f"        return plus + {weigh}(args){more}",
        f"    {define} fail(self, label, plus, pause, times, *args):",
        "        if ran(label) <= times:",
        "            raise KeyError(label)",
        f"        return plus + {weigh}(args)",
        f"    {define} crash(self, label, plus, pause, times, *args):",
        "        if ran(label) <= times:",
        "            end_process('exit')",
        f"        return plus + {weigh}(args)",
        f"    {define} items(self, label, count, raise_at, pause):",
        "        ran(label)",
        "        for at in range(count):",
        "            if at == raise_at:",
        "                raise ValueError(label)",
        "            if pause:",
        f"                {wait}(pause)",
        "            yield at",
        f"    {define} leave(self, label, plus, pause, times, *args):",
        "        ran(label)",
        "        ray.actor.exit_actor()",
        f"actors[{out!r}] = Actor_{out}.remote()",
    ]
    return lines


def _call(step: Step, _: int) -> list[str]:
    options = _options(step.get("options", {}))
    method = f"actors[{step['actor']!r}].{step['method']}" + (f".options({options})" if options else "")
    values = [repr(step["out"]), str(step["plus"]), str(step.get("pause", 0)), str(step.get("times", 0))]
    return [f"refs[{step['out']!r}] = {method}.remote({', '.join([*values, *map(_value, step['args'])])})"]


def _cancel(step: Step, at: int) -> list[str]:
    name, force = step["ref"], step["force"]
    action = f"ray.cancel(refs.get({name!r}) or streams[{name!r}], force={force}, recursive={step['recursive']})"
    return [f"observe('cancel:{at}', lambda: {action} or 0)"]


_STEPS = {
    "put": lambda step, at: [f"refs[{step['out']!r}] = ray.put({_value(step['value'])})"],
    "task": _task,
    "stream": _stream,
    "next": lambda step, at: [f"observe('next:{step['out']}', lambda: take({step['stream']!r}, {step['out']!r}))"],
    "actor": _actor,
    "call": _call,
    "kill": lambda step, at: [f"ray.kill(actors[{step['actor']!r}], no_restart={step['no_restart']})"],
    "lookup": lambda step, at: [f"observe('lookup:{at}', lambda: look_up({step['actor']!r}, {step['name']!r}))"],
    "cancel": _cancel,
    "get": lambda step, at: [f"observe('get:{at}', lambda: read({step['refs']!r}, {step.get('how', 'get')!r}))"],
    "wait": lambda step, at: [
        f"observe('wait:{at}', lambda: wait_for({step['refs']!r}, {step['num_returns']}, {step['timeout']}))"
    ],
    "group": lambda step, at: [f"make_group({step['out']!r}, {step['bundles']}, {step['strategy']!r})"],
    "ready": lambda step, at: [f"observe('ready:{at}', lambda: int(groups[{step['group']!r}].wait(left())))"],
    "remove": lambda step, at: [f"remove_groups([{step['group']!r}])"],
    "sleep": lambda step, at: [f"time.sleep({step['seconds']})"],
    "drop": lambda step, at: [f"drop({step['names']!r})"],
}
