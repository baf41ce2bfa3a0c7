"""The tables of the manual that are made from the code: Ray's names, variables, the command line."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from docs import ray_names, variables

TOP: Final = Path(__file__).resolve().parent.parent


def names_there() -> dict[str, set[str]]:
    """Return what rabbitry has, group by group of `ray_names.NAMES`: asked of the modules themselves."""
    from rabbitry import exceptions, option_rules
    from rabbitry.runtime_context import RuntimeContext
    from rabbitry.session import init

    def attributes(module: str, wanted: Iterable[str]) -> set[str]:
        found = set()
        for name in wanted:
            try:
                getattr(importlib.import_module(module), name)
            except AttributeError:
                continue
            except ImportError as error:
                _reraise_if_ours(error)  # what it needs beyond rabbitry is not installed where the manual is built
            found.add(name)
        return found

    wanted = ray_names.NAMES
    return {
        "ray": attributes("rabbitry", wanted["ray"]),
        "ray.util": attributes("rabbitry.util", wanted["ray.util"]),
        "Modules": {name for name in wanted["Modules"] if _module_is_there(name)},
        "ray.init": {name for name in wanted["ray.init"] if name in inspect.signature(init).parameters},
        "Options of tasks": {*option_rules.TASK},
        "Options of actors": {*option_rules.ACTOR},
        "ray.get_runtime_context()": {name for name in dir(RuntimeContext) if not name.startswith("_")},
        **{
            group: attributes(group.replace("ray", "rabbitry", 1), wanted[group])
            for group in (
                "ray.util.scheduling_strategies",
                "ray.util.placement_group",
                "ray.util.state",
                "ray.util.metrics",
                "ray.job_submission",
            )
        },
        "runtime_env": {name for name in wanted["runtime_env"] if _runtime_env_takes(name)},
        "ray.exceptions": {*dir(exceptions)},
    }


def _module_is_there(name: str) -> bool:
    from rabbitry.ray_alias.table import OURS

    if name.split(".")[1] not in OURS:
        return False  # rabbitry may have a module of that name which is something else
    try:
        importlib.import_module(name.replace("ray", "rabbitry", 1))
    except ImportError as error:
        # Of another name: the module is there, and needs a package that is not installed where the manual is built.
        return not (error.name or "rabbitry").startswith("rabbitry")
    return True


def _reraise_if_ours(error: ImportError) -> None:
    if (error.name or "rabbitry").startswith("rabbitry"):
        raise error


def _runtime_env_takes(field: str) -> bool:
    from rabbitry.runtime_env import RuntimeEnv

    values: list[Any] = [
        {},
        {"NAME": "value"},
        ["package"],
        ["file:///a.zip"],
        ".",
        "module.function",
        {"image": "name"},
    ]
    for value in values:
        try:
            RuntimeEnv(**{field: value})
        except (TypeError, ValueError, OSError, NotImplementedError):
            continue
        return True
    return False


def unused_arguments_of_init() -> set[str]:
    """Return the arguments of `init` whose description says that they have no effect."""
    from rabbitry.session import init

    return set(re.findall(r"^ +(\w+): accepted\b", init.__doc__ or "", re.MULTILINE))


def ray_table() -> str:
    """Return Ray's names and what becomes of them, as Markdown."""
    there = names_there()
    unused = unused_arguments_of_init()
    parts = []
    for group, names in ray_names.NAMES.items():
        rows = []
        for name in names:
            note = ray_names.NOTES.get((group, name), "")
            if group == "ray.init" and name in unused:
                status, note = "differs", note or "accepted, without effect"
            elif name in there[group]:
                status = "differs" if note else "yes"
            else:
                status, note = "no", ray_names.INSTEAD.get(name, "")
            rows.append((f"`{name}`", status, note))
        parts.append(f"### {group}\n\n{_table(('name', 'there', ''), rows)}")
    return "\n".join(parts)


def variables_table() -> str:
    """Return all `RABBITRY_*` variables as Markdown."""
    from rabbitry_broker import settings

    rows = []
    fields = {variable: field for field, variable in settings._VARIABLES.items()}
    for name, argument, meaning in of_settings():
        field = settings.Settings.model_fields.get(fields.get(name, ""))
        default = "" if field is None or field.is_required() or field.default is None else f"`{field.default}`"
        limits = _limits(field.metadata) if field is not None else ""
        where = "all processes of a cluster" if not argument or argument in ("address", "store", "secret") else argument
        rows.append((f"`{name}`", meaning + (f" ({limits})" if limits else ""), default, where))
    parts = ["## Settings of a cluster\n", _table(("variable", "meaning", "default", "argument"), _of_arguments(rows))]
    for title, group in variables.GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts.append(_table(("variable", "meaning", "default"), [(f"`{n}`", *row) for n, row in group.items()]))
    return "\n".join(parts)


def _of_arguments(rows: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    # `init` takes these two; the others are settings of processes, and have no argument that users write.
    shown = {"RABBITRY_BROKER_URL": "`init(address=)`", "RABBITRY_STORE_URL": "`init(store=)`"}
    return [(*row[:3], shown.get(row[0].strip("`"), "")) for row in rows]


def of_settings() -> list[tuple[str, str, str]]:
    """Return (variable, argument, meaning) of each row in the docstring of the settings' module."""
    from rabbitry_broker import settings

    rows = re.findall(r"^\| (RABBITRY_\w+) \| (.*?) ?\| (.+?) \|$", settings.__doc__ or "", re.MULTILINE)
    return [(name, argument.strip(), meaning.replace("<", "&lt;")) for name, argument, meaning in rows]


def _limits(metadata: Iterable[Any]) -> str:
    signs = {"ge": "at least", "gt": "more than", "le": "at most"}
    return ", ".join(
        f"{text} {_plain(getattr(each, name))}"
        for each in metadata
        for name, text in signs.items()
        if hasattr(each, name)
    )


def _plain(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else str(number)


def command_line() -> str:
    """Return the help texts of all commands as Markdown."""
    from rabbitry_workers.cli import _parser

    return "\n".join(_commands_of(_parser()))


def _commands_of(parser: argparse.ArgumentParser) -> Iterable[str]:
    for commands in parser._actions:
        if not isinstance(commands, argparse._SubParsersAction):
            continue
        summaries = {each.dest: each.help or "" for each in commands._choices_actions}
        for name, command in commands.choices.items():
            if [each for each in command._actions if isinstance(each, argparse._SubParsersAction)]:
                yield from _commands_of(command)
                continue
            rows = [
                (f"`{_invocation(action)}`", _help_of(action))
                for action in command._actions
                if action.help != "==SUPPRESS=="
            ]
            summary = summaries.get(name, "")
            summary = summary[:1].upper() + summary[1:]
            yield f"## {command.prog}\n\n{summary}.\n\n{_table(('argument', 'meaning'), rows)}"


def _invocation(action: argparse.Action) -> str:
    metavar = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    return f"{', '.join(action.option_strings)} {metavar}".strip()


def _help_of(action: argparse.Action) -> str:
    return (action.help or "").replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


# Pages that stand elsewhere in the tree, and where their links lead in the manual ("" for nowhere).
_ELSEWHERE: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "threat_model.md": ("SECURITY.md", {"docs/": ""}),
    "kubernetes.md": ("deploy/kubernetes/README.md", {"../../docs/": ""}),
}
_LINK: Final = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)")


def page_from_elsewhere(name: str) -> str:
    """Return a page of the tree with its links led into the manual; one that leads nowhere becomes plain text."""
    place, moved = _ELSEWHERE[name]

    def follow(link: re.Match[str]) -> str:
        for prefix, new in moved.items():
            if link[2].startswith(prefix):
                return f"[{link[1]}]({new}{link[2].removeprefix(prefix)})"
        return link[1]

    return _LINK.sub(follow, (TOP / place).read_text(encoding="utf-8"))


LINKS_OUT: Final = {"../SECURITY.md": "threat_model.md", "../deploy/kubernetes/README.md": "kubernetes.md"}
"""Links from pages of the manual to those pages, and where they lead in the manual."""

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "ray_names.md": ray_table,
    "variables.md": variables_table,
    "command_line.md": command_line,
    **{name: partial(page_from_elsewhere, name) for name in _ELSEWHERE},
}
"""Name of each generated file, and what makes its text."""
