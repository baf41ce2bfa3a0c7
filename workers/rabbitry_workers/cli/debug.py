"""`rabbitry debug`: the tasks that wait at a breakpoint, and a debugger in one of them."""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import time
from contextlib import suppress
from typing import Any

from rabbitry_workers.cli.output import print_data, print_table
from rabbitry_workers.cli.parsing import add_addresses, add_format, cluster_of

CONNECT_SECONDS = 5.0
READ_BYTES = 1 << 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    parser.add_argument("--id", metavar="ID", help="connect to this breakpoint (or its beginning) without asking")
    parser.add_argument("--list", action="store_true", help="only show what waits")
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Show what waits, ask for one of them, and debug it; again until the answer is nothing."""
    cluster = cluster_of(options)
    if options.list:
        show(_waiting(cluster), options.format)
        return 0
    if options.id:
        found = [each for each in _waiting(cluster) if each["id"].startswith(options.id)]
        if len(found) != 1:
            raise ValueError(f"{len(found) or 'no'} breakpoints that wait have the id {options.id!r}")
        return attach(found[0])
    while True:
        places = _waiting(cluster)
        if not places:
            print("nothing waits at a breakpoint")
            return 0
        show(places, "table")
        try:
            answer = input("number of the breakpoint, Enter to look again, q to end: ").strip()
        except EOFError:
            print()
            return 0
        if answer in ("q", "quit"):
            return 0
        if answer:
            if not answer.isdecimal() or int(answer) >= len(places):
                print(f"there is no number {answer!r}")
                continue
            attach(places[int(answer)])


def _waiting(cluster: Any) -> list[dict[str, Any]]:
    from rabbitry.debugging import waiting
    from rabbitry_broker.signing import Signer
    from rabbitry_broker.store.keys import Keys
    from rabbitry_broker.store.server import Connection

    connection = Connection.open(cluster.endpoint, timeout=cluster.connect_timeout, name="rabbitry-debug")
    try:
        return waiting(connection, Keys.of(cluster.endpoint), Signer(cluster.endpoint.secrets))
    finally:
        connection.close()


def show(places: list[dict[str, Any]], format: str) -> None:
    """Print the places that wait, without their tokens."""
    if format != "table":
        print_data([{key: value for key, value in each.items() if key != "token"} for each in places], format)
        return
    rows = [
        (
            str(number),
            each["id"],
            f"{time.time() - each['since']:.0f} s",
            each["name"],
            f"{each['file']}:{each['line']}",
            each["error"],
            f"{each['hostname']}, process {each['pid']}",
        )
        for number, each in enumerate(places)
    ]
    print_table(("NO", "ID", "WAITS", "TASK", "AT", "ERROR", "WHERE"), rows)


def attach(place: dict[str, Any]) -> int:
    """Connect this terminal with a debugger until either ends.

    Raises:
        ValueError: it cannot be reached.
    """
    try:
        connection = socket.create_connection((place["host"], place["port"]), CONNECT_SECONDS)
    except OSError as error:
        here = place["hostname"] == socket.gethostname()
        hint = "" if here else (
            f" It is on {place['hostname']}: run `rabbitry debug` there, or tasks with RABBITRY_DEBUGGER_EXTERNAL=1."
        )  # fmt: skip
        raise ValueError(f"the debugger at {place['host']}:{place['port']} cannot be reached: {error}.{hint}") from None
    with connection:
        connection.settimeout(None)
        with suppress(OSError):
            connection.sendall(place["token"].encode())
        _relay(connection)
    return 0


def _relay(connection: socket.socket) -> None:
    from rabbitry_broker.terminal import printable

    reading = [connection.fileno(), 0]
    while True:
        ready, _, _ = select.select(reading, [], [])
        if connection.fileno() in ready:
            try:
                data = connection.recv(READ_BYTES)
            except ConnectionError:
                data = b""
            if not data:
                print()
                return
            sys.stdout.write(printable(data.decode("utf-8", "replace"), keep="\n\t"))
            sys.stdout.flush()
        elif 0 in ready:
            typed = os.read(0, READ_BYTES)
            if not typed:
                reading.remove(0)
            with suppress(OSError):  # it has ended meanwhile: what it said last is read, then its end
                if typed:
                    connection.sendall(typed)
                else:
                    connection.shutdown(socket.SHUT_WR)  # it goes on then
