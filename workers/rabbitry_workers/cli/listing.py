"""`rabbitry list`: tasks, actors, nodes, ... as rows."""

from __future__ import annotations

import argparse
import sys

from rabbitry_workers.cli.output import print_data, show
from rabbitry_workers.cli.parsing import add_format
from rabbitry_workers.cli.seeing import KINDS, add_seeing, filter_of, state_of

WIDE = ("worker_id", "parent_task_id", "func_or_class_name")  # columns that tables show with --detail only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument(
        "-f", "--filter", action="append", default=[], type=filter_of, metavar="KEY=VALUE",
        help="only what fits; also KEY!=VALUE, and several times",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="rows at most (default 100)")
    parser.add_argument("--detail", action="store_true", help="all columns")
    add_format(parser)
    add_seeing(parser)


def run(options: argparse.Namespace) -> int:
    """Print the rows."""
    from rabbitry.state.answers import answer_list
    from rabbitry.state.schemas import SCHEMAS, ListApiOptions, StateResource

    resource = StateResource(options.kind.replace("-", "_"))
    with state_of(options) as state:
        wanted = ListApiOptions(limit=options.limit, detail=options.detail, filters=options.filter)
        answer = answer_list(state, resource, wanted)
    if options.format == "table":
        columns = SCHEMAS[resource].list_columns(detail=options.detail)
        if not options.detail:
            columns = [each for each in columns if each not in WIDE]
        show(answer.result, columns, "table")
    else:
        print_data(answer.result, options.format)
    for warning in answer.warnings or ():
        print(f"rabbitry: {warning}", file=sys.stderr)
    if len(answer.result) < answer.num_filtered:
        print(
            f"rabbitry: {len(answer.result)} of {answer.num_filtered} are shown: --limit or --filter", file=sys.stderr
        )
    if answer.num_after_truncation < answer.total:
        print(
            f"rabbitry: of {answer.total - answer.num_after_truncation} more nothing is known any longer",
            file=sys.stderr,
        )
    return 0
