"""What the parsers of all commands share: which cluster is meant, and errors that ask what may have been meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from rabbitry_workers.joining import Joining


LONGEST_MESSAGE: Final = 1000  # characters


class Parser(argparse.ArgumentParser):
    """A parser that asks "Did you mean ...?". Its sub-parsers do as well."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but what is unknown is an error here, where the options that it may have meant are known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{_closest(word, self._option_string_actions)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(
                action, f"invalid choice: {value!r} (choose from {known}){_closest(str(value), action.choices)}"
            )

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """As argparse's, which takes the `--` of `--option=--` for the end of the options and gives an empty list."""
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            raise argparse.ArgumentError(action, "expected a value, got '--'")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, with what is wrong in the last line."""
        self.print_usage(_stderr())
        self.exit(2, f"{self.prog}: {abridged(message)}\n")


def abridged(message: str) -> str:
    """Return a message that quotes what it was given in a length that can be read."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    half = LONGEST_MESSAGE // 2
    return f"{message[:half]} ... ({len(message)} characters) ... {message[-half:]}"


def _stderr() -> Any:
    import sys

    return sys.stderr


def _closest(word: str, known: Iterable[Any]) -> str:
    from rabbitry.suggestions import closest

    return closest(word, map(str, known))


def add_addresses(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a cluster; `cluster_of` reads them."""
    parser.add_argument(
        "--address", metavar="URL", help="RabbitMQ (default: RABBITRY_BROKER_URL), or unix:///directory"
    )
    parser.add_argument("--store", metavar="URL", help="Redis (default: RABBITRY_STORE_URL)")
    parser.add_argument("--prefix", help="of keys and queues (default: RABBITRY_PREFIX, else rabbitry:)")


def cluster_of(options: argparse.Namespace, *, newest: bool = True) -> Joining:
    """Return the cluster that `add_addresses`, the environment and `.env` name.

    Args:
        options: as parsed.
        newest: take the newest session of this user on this machine if nothing names a cluster.

    Raises:
        SettingsError: something is missing or impossible.
        ConnectError: there is no cluster.
    """
    from rabbitry_workers.joining import find_cluster

    return find_cluster(options.address, options.store, options.prefix, newest=newest)


def add_format(parser: argparse.ArgumentParser, choices: Sequence[str] = ("table", "json", "yaml")) -> None:
    """Add `--format`; `output.show` heeds it."""
    parser.add_argument("--format", choices=choices, default=choices[0], help=f"{', '.join(choices)}")


def warn_of_passwords(options: argparse.Namespace) -> None:
    """Log a warning if an address on the command line has a password in it."""
    import logging
    from urllib.parse import urlsplit

    for argument, variable in (("address", "RABBITRY_BROKER_URL"), ("store", "RABBITRY_STORE_URL")):
        try:
            password = urlsplit(getattr(options, argument, None) or "").password
        except ValueError:
            password = None  # it cannot be taken apart, and is refused further on
        if password:
            logging.getLogger("rabbitry").warning(
                "every user of this machine can read the password in --%s: set %s instead", argument, variable
            )
