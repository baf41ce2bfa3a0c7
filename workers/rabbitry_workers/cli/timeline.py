"""`rabbitry timeline`: what ran when and where, as a trace for Perfetto or chrome://tracing."""

from __future__ import annotations

import argparse
import time

from rabbitry_workers.cli.seeing import add_seeing, state_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("-o", "--output", metavar="FILE", help="to write to (default: rabbitry-timeline-TIME.json)")
    parser.add_argument("--job", metavar="ID", help="only of this job, in hexadecimal")
    add_seeing(parser)


def run(options: argparse.Namespace) -> int:
    """Write it."""
    from rabbitry.state.timeline import timeline_of, write

    with state_of(options) as state:
        events = timeline_of(state, options.job)
    path = options.output or time.strftime("rabbitry-timeline-%Y-%m-%d-%H-%M-%S.json")
    try:
        write(events, path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None
    print(f"{len(events)} events are in {path}: open it at https://ui.perfetto.dev or in chrome://tracing")
    return 0
