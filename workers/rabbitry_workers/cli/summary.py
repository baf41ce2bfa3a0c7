"""`rabbitry summary`: how many tasks, actors and objects are in which state."""

from __future__ import annotations

import argparse
from typing import Any

from rabbitry_workers.cli.output import print_data, show
from rabbitry_workers.cli.parsing import add_format
from rabbitry_workers.cli.seeing import add_seeing, state_of

KINDS = ("tasks", "actors", "objects")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    add_format(parser)
    add_seeing(parser)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    from rabbitry.state.answers import answer_summary
    from rabbitry.state.schemas import SummaryApiOptions, SummaryResource

    with state_of(options) as state:
        answer: Any = answer_summary(state, SummaryResource(options.kind), SummaryApiOptions())
    found = answer.result["node_id_to_summary"]["cluster"]
    if options.format != "table":
        print_data(found, options.format)
        return 0
    rows = [{"name": name, **facts} for name, facts in found["summary"].items()]
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["name"]
    show(rows, columns, "table")
    for key, value in found.items():
        if key.startswith("total"):
            print(f"{key}: {value}")
    return 0
