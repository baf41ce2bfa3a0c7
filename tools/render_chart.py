"""Renders the Helm chart where there is no Helm: `python tools/render_chart.py [--set autoscaling.enabled=false]`.

It knows the part of the template language that the chart in deploy/helm keeps to, and refuses the rest: fields, `if`,
`range` over a mapping, and pipelines of the functions below. Where Helm is at hand, `make kubernetes-check` asks it.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).resolve().parent.parent / "deploy" / "helm" / "rabbitry"


class TemplateError(ValueError):
    """The template has what this renderer does not know, or what does not exist."""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quote(value: Any) -> str:
    return '"' + _text(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "add": lambda *numbers: sum(numbers),
    "nindent": lambda width, text: "".join(f"\n{' ' * width}{line}" for line in text.splitlines()),
    "not": lambda value: not value,
    "printf": lambda form, *values: form.replace("%v", "%s") % tuple(_text(value) for value in values),
    "quote": _quote,
    "toYaml": lambda value: yaml.safe_dump(value, sort_keys=False).rstrip("\n"),
}


def render(template: str, scope: Mapping[str, Any]) -> str:
    """Return a template filled in.

    Args:
        template: its text.
        scope: what `$` stands for: `Values`, `Release`.

    Raises:
        TemplateError: an unknown field, function or statement, or an `end` too many or too few.
    """
    trimmed = re.sub(r"-\}\}\s*", "}}", re.sub(r"\s*\{\{-", "{{", template))
    pieces = re.split(r"\{\{(.*?)\}\}", trimmed)  # text, action, text, action, ..., text
    output, end = _render(pieces, 0, {"$": scope}, wanted=True)
    if end != len(pieces):
        raise TemplateError("an `end` too many")
    return output


def _render(pieces: list[str], at: int, names: dict[str, Any], wanted: bool) -> tuple[str, int]:
    """Return the text of a block, and where what follows its `end` begins. A block that is not wanted is skipped."""
    output = []
    while True:
        output.append(pieces[at])
        if at + 1 == len(pieces):
            if len(names) > 1:
                raise TemplateError("an `end` too few")
            return "".join(output), len(pieces)
        action, at = pieces[at + 1].strip(), at + 2
        if action == "end":
            return "".join(output), at
        keyword, _, rest = action.partition(" ")
        inner = {**names, "inside": True}
        if keyword == "if":
            holds = wanted and bool(_value(rest, names))
            body, at = _render(pieces, at, inner, holds)
            output += [body] if holds else []
        elif keyword == "range":
            found = re.fullmatch(r"(\$\w+), (\$\w+) := (.+)", rest)
            if not found:
                raise TemplateError(f"range in a form that is not known: {action}")
            items = sorted(_value(found[3], names).items()) if wanted else []
            start = at
            _, at = _render(pieces, start, inner, False)
            output += [_render(pieces, start, {**inner, found[1]: k, found[2]: v}, True)[0] for k, v in items]
        elif wanted:
            output.append(_text(_value(action, names)))


def _value(expression: str, names: Mapping[str, Any]) -> Any:
    result: Any = None
    for number, stage in enumerate(expression.split(" | ")):
        lexer = shlex.shlex(stage, posix=False)
        lexer.whitespace_split = True
        words = list(lexer)
        passed_on = [result] if number else []
        if words[0] in FUNCTIONS:
            result = FUNCTIONS[words[0]](*[_operand(word, names) for word in words[1:]], *passed_on)
        elif len(words) == 1 and not number:
            result = _operand(words[0], names)
        else:
            raise TemplateError(f"not known: {stage}")
    return result


def _operand(word: str, names: Mapping[str, Any]) -> Any:
    if word.startswith('"'):
        return word[1:-1]
    if word.isdigit():
        return int(word)
    first, *fields = word.split(".")
    value = names.get(first or "$")
    for field in fields:
        if not isinstance(value, Mapping) or field not in value:
            raise TemplateError(f"{word}: there is no {field}")
        value = value[field]
    return value


def render_chart(chart: Path = CHART, settings: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the rendered templates of a chart by file name.

    Args:
        chart: its directory.
        settings: dotted names of values to set, as Helm's `--set`.

    Raises:
        TemplateError: see `render`.
    """
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    for name, value in (settings or {}).items():
        *path, last = name.split(".")
        place = values
        for each in path:
            place = place.setdefault(each, {})
        place[last] = value
    release = {"Name": "rabbitry", "Namespace": "rabbitry", "Service": "Helm"}
    scope = {"Values": values, "Release": release}
    return {
        path.name: render(path.read_text(encoding="utf-8"), scope) for path in sorted((chart / "templates").iterdir())
    }


def main() -> int:
    """Print the manifests of the chart."""
    parser = argparse.ArgumentParser(description="Render the Helm chart without Helm.")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as Helm's")
    settings = {}
    for each in parser.parse_args().set:
        name, _, value = each.partition("=")
        settings[name] = yaml.safe_load(value)
    for name, text in render_chart(settings=settings).items():
        if name.endswith(".yaml"):
            print("---\n" + text.strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
