"""The command line. Each command is a module beside this one, listed in `commands.py` and loaded when it is called.

Secrets come from the environment or `.env` only, and passwords better do: a command line is readable by every user of
the machine. What is wrong is said in one line on standard error, with exit code 1 (2 for a wrong command line).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rabbitry_workers.cli.commands import COMMANDS
from rabbitry_workers.cli.parsing import Parser, abridged, warn_of_passwords


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        The exit code.
    """
    if "_ARGCOMPLETE" in os.environ:
        from rabbitry_workers.cli.completion import complete

        complete(_parser())
    given = list(sys.argv[1:] if arguments is None else arguments)
    # For one command its module alone is loaded: a health check is run every few seconds.
    word = next((each for each in given if not each.startswith("-")), None)
    options = _parser(word if word in COMMANDS else None).parse_args(given)

    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    from rabbitry_broker.errors import RabbitryBrokerError

    warn_of_passwords(options)
    try:
        code = COMMANDS[options.command].load().run(options)
        sys.stdout.flush()
        return code
    except (RabbitryBrokerError, ValueError) as error:
        print(f"rabbitry: {abridged(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has seen enough (`| head`). What is left to be flushed at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands, or one that knows the arguments of `only`."""
    parser = Parser(prog="rabbitry", description="Ray's programming model on RabbitMQ and Redis.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        # The unused ones stay, by name: `rabbitry --help` and what is told of a mistyped one are complete.
        sub = commands.add_parser(name, help=command.help, description=command.help[0].upper() + command.help[1:] + ".")
        if only in (None, name):
            command.load().add_arguments(sub)
    return parser


def _version() -> str:
    from rabbitry import __version__

    return f"rabbitry {__version__}, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    sys.exit(main())
