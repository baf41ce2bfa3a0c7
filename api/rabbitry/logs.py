"""What tasks print, printed here: `(name pid=...) text`, and `(name pid=..., ip=...) text` from other hosts.

Lines that several processes print alike are shown once (`log_dedup`), prefixes in colour on a terminal, and bars of
`experimental.tqdm_ray` are drawn.
"""

from __future__ import annotations

import logging
import secrets
import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

from rabbitry import environment
from rabbitry.log_dedup import Deduplicator, Source
from rabbitry.notebook import CurrentCell
from rabbitry_broker.errors import RabbitryBrokerError, ReplyTimeout
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.terminal import printable

if TYPE_CHECKING:
    from rabbitry.client import Client
    from rabbitry.experimental.tqdm_ray import BarManager

log = logging.getLogger("rabbitry")

POLL_SECONDS = 0.5
LAST_SECONDS = 1.0  # for the last words of the nodes when the driver leaves
_BAR = b"__ray_tqdm_magic_token__"  # of `experimental.tqdm_ray`, which only drivers that have bars load
_CYAN = 36
_COLOURS = (35, 36, 32, 90, 94, 95)  # of processes, with RAY_COLOR_PREFIX=1; those that can be read on black and white
QUIET_SECONDS = 0.05  # without a word from other nodes, after the first one


class LogPrinter:
    """The driver's thread that prints the job's output. `start` and `stop` belong to the session.

    Args:
        client: the driver's.
        plain: lines are printed without saying who printed them.

    Raises:
        ValueError: a variable of the environment makes no sense.
    """

    def __init__(self, client: Client, *, plain: bool = False) -> None:
        self._client = client
        self._plain = plain
        self._dedup = Deduplicator.from_environment()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._cell = CurrentCell()

    def start(self) -> None:
        """Subscribe, then print from a thread."""
        client = self._client
        self._connection = client.store.open_connection("logs")
        self._connection.call(b"SUBSCRIBE", client.keys.logs_channel(client.job))
        self._thread = threading.Thread(target=self._run, name="rabbitry-logs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.run_once(POLL_SECONDS)
                self._print_due()
            except RabbitryBrokerError:
                if self._stopped.wait(0.2):
                    return
                self._reopen()

    def _reopen(self) -> None:
        try:
            self._connection.reopen()
            self._connection.call(b"SUBSCRIBE", self._client.keys.logs_channel(self._client.job))
        except RabbitryBrokerError:
            return  # the next round tries again

    def run_once(self, timeout: float) -> bytes | None:
        """Print what arrives within `timeout` seconds.

        Returns:
            b"" for output, the token of `stop` if that came; None if nothing did.
        """
        try:
            message = self._connection.read(timeout)
        except ReplyTimeout:
            return None
        if not isinstance(message, list) or message[0] != b"message":
            return b""
        client = self._client
        try:
            name, pid, host, address, is_error, lines, token = decode(
                client.signer.open(b"logs" + client.job, message[2])
            )
        except (RabbitryBrokerError, ValueError) as error:
            client.put_aside("logs", message[2], str(error))
            return b""
        if token:
            return bytes(token)
        if any(_BAR in line for line in lines):
            from rabbitry.experimental.tqdm_ray import take_out

            lines = take_out(lines)
            if not lines:
                return b""
        where = f"pid={pid}" if host == client.store.large.host else f"pid={pid}, ip={address}"
        prefix = printable(f"({name} {where}) " if name else f"({where}) ")
        source = Source("" if self._plain else prefix, (host, pid), is_error)
        if self._dedup is not None:
            lines = self._dedup.take(source, lines)
        self._print(source, lines)
        return b""

    def _print_due(self) -> None:
        """Print what was kept back long enough."""
        if self._dedup is not None:
            for source, line in self._dedup.due():
                self._print(source, [line])

    def _print(self, source: Source, lines: list[bytes]) -> None:
        if not lines:
            return
        out = sys.stderr if source.is_error else sys.stdout
        bars = _bars()
        if bars is not None:
            bars.hide_bars()
        try:
            self._cell.direct(out)
            prefix = coloured(source.prefix, source.process[1], out)
            out.write("".join([f"{prefix}{line.decode('utf-8', 'replace')}\n" for line in lines]))
            out.flush()
        except (AttributeError, ValueError, OSError):
            return  # the driver's stdout is closed, or there is none
        finally:
            if bars is not None:
                bars.unhide_bars()

    def stop(self) -> None:
        """Print what is still there, then end."""
        self._stopped.set()
        self._cell.stop()
        if self._thread is not None:
            self._thread.join(2.0)
            if not self._thread.is_alive():
                try:
                    self._print_last()
                except (RabbitryBrokerError, OSError):
                    log.debug("the last output is lost", exc_info=True)
                if self._dedup is not None:
                    for source, line in self._dedup.rest():
                        self._print(source, [line])
        self._connection.close()
        bars = _bars()
        if bars is not None:
            bars.end()

    def _print_last(self) -> None:
        """Ask the nodes for what they have, and print it. The first answers for this host, others have little time."""
        client, token = self._client, secrets.token_bytes(8)
        request = client.signer.seal(b"control", encode(["flush-output", client.job, token]))
        # Not the client's connection, which would wait long for a server that is away.
        connection = client.store.open_connection("logs-end")
        try:
            if not connection.call(b"PUBLISH", client.keys.control_channel, request):
                return  # no node listens
        finally:
            connection.close()
        deadline = time.monotonic() + LAST_SECONDS
        patience = LAST_SECONDS
        while time.monotonic() < deadline:
            came = self.run_once(patience)
            if came is None or (came == token and client.endpoint.traits.output_in_order):
                return
            if came == token:
                patience = QUIET_SECONDS


def coloured(prefix: str, pid: int, out: TextIO) -> str:
    """Return a prefix in colour, if that is wanted: on a terminal, unless NO_COLOR or RAY_COLOR_PREFIX=0 says no.

    RAY_COLOR_PREFIX=1 gives each process a colour, on anything.
    """
    wanted = environment.text(*environment.COLOR_PREFIX)
    if not prefix or wanted == "0" or (wanted != "1" and (environment.text("NO_COLOR") or not out.isatty())):
        return prefix
    colour = _COLOURS[pid % len(_COLOURS)] if wanted == "1" else _CYAN
    return f"\x1b[{colour}m{prefix.rstrip()}\x1b[0m "


def _bars() -> BarManager | None:
    module = sys.modules.get("rabbitry.experimental.tqdm_ray")
    return None if module is None else module.instance()
