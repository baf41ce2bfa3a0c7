"""`rabbitry completion`: what a shell runs to complete commands and their arguments."""

from __future__ import annotations

import argparse

from rabbitry_workers.cli.output import MissingExtra

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("shell", choices=SHELLS, help='such as in: eval "$(rabbitry completion bash)"')


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise MissingExtra("completion", "argcomplete") from None
    print(shellcode(["rabbitry"], shell=options.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks, and end; return if argcomplete is not there."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)
