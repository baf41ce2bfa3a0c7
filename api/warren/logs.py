"""What tasks print, printed here: `(name pid=... node=...) text`."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from warren_broker.errors import ReplyTimeout, WarrenBrokerError
from warren_broker.messages import decode

if TYPE_CHECKING:
    from warren.client import Client

POLL_SECONDS = 0.5


class LogPrinter:
    """The driver's thread that prints the job's output. `start` and `stop` belong to the session."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Subscribe, then print from a thread."""
        client = self._client
        self._connection = client.store.open_connection("logs")
        self._connection.call(b"SUBSCRIBE", client.keys.logs_channel(client.job))
        self._thread = threading.Thread(target=self._run, name="warren-logs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.run_once(POLL_SECONDS)
            except WarrenBrokerError:
                if self._stopped.wait(0.2):
                    return
                self._reopen()

    def _reopen(self) -> None:
        try:
            self._connection.reopen()
            self._connection.call(b"SUBSCRIBE", self._client.keys.logs_channel(self._client.job))
        except WarrenBrokerError:
            return  # the next round tries again

    def run_once(self, timeout: float) -> None:
        """Print what arrives within `timeout` seconds."""
        try:
            message = self._connection.read(timeout)
        except ReplyTimeout:
            return
        if not isinstance(message, list) or message[0] != b"message":
            return
        client = self._client
        try:
            name, pid, node, is_error, lines = decode(client.signer.open(b"logs" + client.job, message[2]))
        except WarrenBrokerError as error:
            client.put_aside("logs", message[2], str(error))
            return
        out = sys.stderr if is_error else sys.stdout
        prefix = f"({name} pid={pid} node={node}) " if name else f"(pid={pid} node={node}) "
        text = "".join([f"{prefix}{line.decode('utf-8', 'replace')}\n" for line in lines])
        try:
            out.write(text)
            out.flush()
        except (ValueError, OSError):
            return  # the driver's stdout is closed

    def stop(self) -> None:
        """Print what is still there, then end."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(2.0)
        self._connection.close()
