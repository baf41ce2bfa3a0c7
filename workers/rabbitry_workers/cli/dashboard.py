"""`rabbitry dashboard`: the HTTP service of a cluster."""

from __future__ import annotations

import argparse

from rabbitry_workers.cli.parsing import add_addresses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8265, metavar="N", help="0 for any (default: %(default)s)")
    parser.add_argument("--no-token", action="store_true", help="let in everybody on this host")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name by which browsers reach it"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from rabbitry_workers.http.serve import DashboardOptions, run_dashboard

    known = {name: value for name, value in vars(options).items() if name != "command"}
    return run_dashboard(DashboardOptions(**known))
