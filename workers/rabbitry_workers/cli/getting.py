"""`rabbitry get`: all that is known of one thing."""

from __future__ import annotations

import argparse
import sys

from rabbitry_workers.cli.output import print_data
from rabbitry_workers.cli.parsing import add_format
from rabbitry_workers.cli.seeing import KINDS, add_seeing, state_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    kinds = tuple(kind for kind in KINDS if kind not in ("cluster-events", "runtime-envs"))
    parser.add_argument("kind", choices=kinds, metavar="KIND", help=", ".join(kinds))
    parser.add_argument("id", metavar="ID", help="in hexadecimal; of a submitted job, that of the submission")
    add_format(parser, ("yaml", "json"))
    add_seeing(parser)


def run(options: argparse.Namespace) -> int:
    """Print it; exit code 1 if there is no such thing."""
    from rabbitry.state.answers import answer_list
    from rabbitry.state.schemas import ID_COLUMNS, ListApiOptions, StateResource

    resource = StateResource(options.kind.replace("-", "_"))
    with state_of(options) as state:
        wanted = ListApiOptions(detail=True, filters=[(ID_COLUMNS[resource], "=", options.id)])
        found = answer_list(state, resource, wanted).result
    if not found:
        print(f"rabbitry: there is no such thing among the {options.kind}: {options.id}", file=sys.stderr)
        return 1
    print_data(found if len(found) > 1 else found[0], options.format)
    return 0
