"""What commands print: tables for people, JSON and YAML for programs, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.terminal import printable


class MissingExtra(RabbitryBrokerError, ImportError):
    """A command wants a package that is not installed. The message says which, and how to get it."""

    def __init__(self, what: str, package: str) -> None:
        super().__init__(f"{what} wants the package {package}: pip install 'rabbitry[cli]'")


def show(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | Sequence[str], format: str) -> None:
    """Print rows as a table, JSON or YAML.

    Args:
        rows: one for each line. As JSON and YAML they are shown whole.
        columns: of the table: the keys that are shown, with their headings.
        format: "table", "json" or "yaml".
    """
    if format != "table":
        print_data(list(rows), format)
        return
    heads = columns if isinstance(columns, Mapping) else {each: each.upper() for each in columns}
    print_table(list(heads.values()), [[cell(row.get(key)) for key in heads] for row in rows])


def print_data(data: Any, format: str) -> None:
    """Print data as "json" or "yaml"."""
    if format == "json":
        print(json.dumps(data, indent=2, default=str))
        return
    try:
        import yaml
    except ImportError:
        raise MissingExtra("--format yaml", "PyYAML") from None
    plain = json.loads(json.dumps(data, default=str))  # YAML would name the classes of what is no plain data
    print(yaml.safe_dump(plain, sort_keys=False), end="")


def cell(value: Any) -> str:
    """Return a value as it stands in a table.

    >>> cell(None), cell(1.5), cell({"CPU": 1.0})
    ('', '1.5', '{"CPU": 1.0}')
    """
    if value is None:
        return ""
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: drawn by rich on a terminal if it is installed, else in plain columns, one line a row."""
    lines = [[printable(each) for each in row] for row in rows]
    if sys.stdout.isatty():
        try:
            from rich import box
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table(box=box.SIMPLE_HEAD, header_style="bold")
            for head in heads:
                table.add_column(Text(head))
            for line in lines:
                table.add_row(*(Text(each, overflow="fold") for each in line))  # as they are: rich has a markup
            Console().print(table)
            return
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    for line in [list(heads), *lines]:
        print("  ".join(f"{each:<{width}}" for each, width in zip(line, widths, strict=True)).rstrip())


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on the terminal; True if the answer is yes.

    Args:
        question: without a question mark's "[y/N]".
        yes: do not ask: the user said `--yes`.

    Raises:
        ValueError: there is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ValueError("nobody is there to be asked: say --yes")
    return input(f"{printable(question)} [y/N] ").strip().lower() in ("y", "yes")
