"""`breakpoint()` inside tasks and actors: Python's debugger at a socket, to which `rabbitry debug` connects.

    task --breakpoint()--> announced in the store, waits --`rabbitry debug`--> connected: pdb --continue--> goes on

The socket is on 127.0.0.1 unless RABBITRY_DEBUGGER_EXTERNAL=1. Who connects must say a token, which stands, signed, in
the store: whoever may read it may run code on the cluster anyway. What waits says so again every few seconds; an entry
that is older belongs to a process that has ended, and goes with the next one that is written, or read.
"""

from __future__ import annotations

import hmac
import os
import pdb  # noqa: T100  a debugger is what this is about
import secrets
import socket
import sys
import time
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from rabbitry import current, environment
from rabbitry.util.node_address import get_node_ip_address
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys

if TYPE_CHECKING:
    from rabbitry.client import Client
    from rabbitry.nodes import Caller

AGAIN_SECONDS: Final = 5.0  # between two signs of life of what waits
STALE_SECONDS: Final = 30.0
TOKEN_SECONDS: Final = 5.0  # for who connects to say the token
_TOKEN_BYTES: Final = 32


def set_trace(*_: object, **__: object) -> None:
    """Stop at the caller: in a task or actor until somebody has connected with `rabbitry debug`, else in pdb here.

    `breakpoint()` calls this in tasks and actors, unless PYTHONBREAKPOINT says something else.
    """
    stop_at(sys._getframe(1))


def stop_at(frame: FrameType) -> None:
    """Stop at a frame; see `set_trace`."""
    client = current.peek()
    if client is None or not client.executing:
        pdb.Pdb().set_trace(frame)
        return
    debugger = _wait_for_debugger(client, frame.f_code.co_filename, frame.f_lineno, "")
    if debugger is not None:
        debugger.set_trace(frame)


def post_mortem(error: BaseException) -> None:
    """Look at what raised an error, before the task fails with it (with RABBITRY_DEBUG_POST_MORTEM=1)."""
    client, at = current.peek(), _last(error.__traceback__)
    if client is None or at is None:
        return
    file, line = at.tb_frame.f_code.co_filename, at.tb_lineno
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  a class of the user's
        text = type(error).__name__
    debugger = _wait_for_debugger(client, file, line, text)
    if debugger is not None:
        debugger.reset()
        debugger.interaction(None, error.__traceback__)
        debugger.detach()


def _last(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _wait_for_debugger(client: Client, file: str, line: int, error: str) -> RemotePdb | None:
    """Announce a place, and wait until somebody connects; None if that cannot be announced."""
    # Names of files and texts of errors may hold what is no text, which no record takes.
    file, error = (each.encode("utf-8", "backslashreplace").decode() for each in (file, error))
    external = environment.is_on(*environment.DEBUGGER_EXTERNAL)
    token = secrets.token_hex(_TOKEN_BYTES)
    with socket.create_server(("", 0) if external else ("127.0.0.1", 0), backlog=1) as server:
        place = _Place(client, file, line, error)
        where = f"{file}:{line}" + (f" ({error})" if error else "")
        print(f"rabbitry: {place.name} waits at {where}: run `rabbitry debug`", file=sys.stderr, flush=True)
        place.facts.update(
            host=get_node_ip_address() if external else "127.0.0.1", port=server.getsockname()[1], token=token
        )
        server.settimeout(AGAIN_SECONDS)
        try:
            while True:
                place.announce()
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                if _says_token(connection, token):
                    return RemotePdb(connection)
                connection.close()
        except RabbitryBrokerError as problem:
            print(f"rabbitry: nobody can be told of the breakpoint at {where}: {problem}", file=sys.stderr)
            return None
        finally:
            place.forget()


def _says_token(connection: socket.socket, token: str) -> bool:
    connection.settimeout(TOKEN_SECONDS)
    said = b""
    try:
        while len(said) < 2 * _TOKEN_BYTES:
            data = connection.recv(2 * _TOKEN_BYTES - len(said))
            if not data:
                return False
            said += data
    except OSError:
        return False
    connection.settimeout(None)
    return hmac.compare_digest(said, token.encode())


class _Place:
    """A place that waits for a debugger, as it stands in the store."""

    def __init__(self, client: Client, file: str, line: int, error: str) -> None:
        from rabbitry.runtime_context import RuntimeContext

        context = RuntimeContext(client)
        self._client = client
        self._id = secrets.token_bytes(8)
        self.name = context.get_task_name() or "a task"
        self.facts: dict[str, Any] = {
            "id": self._id.hex(), "name": self.name, "file": file, "line": line, "error": error, "pid": os.getpid(),
            "task_id": context.get_task_id(), "actor_id": context.get_actor_id(), "job_id": context.get_job_id(),
            "node_id": context.get_node_id(), "hostname": socket.gethostname(), "since": time.time(),
        }  # fmt: skip

    def announce(self) -> None:
        """Say that it waits, for a while."""
        client = self._client
        record = client.signer.seal(b"breakpoint" + self._id, encode({**self.facts, "seen": _now(client.store)}))
        key = client.keys.breakpoints
        client.store.call(b"HSET", key, self._id, record)
        client.store.call(b"EXPIRE", key, int(2 * STALE_SECONDS))
        waiting(client.store, client.keys, client.signer)  # and forgets those whose process is gone

    def forget(self) -> None:
        """It waits no longer."""
        try:
            self._client.store.call(b"HDEL", self._client.keys.breakpoints, self._id)
        except RabbitryBrokerError:
            return  # it is forgotten in a minute


def waiting(store: Caller, keys: Keys, signer: Signer) -> list[dict[str, Any]]:
    """Return the places that wait for a debugger, the oldest first; entries of processes that are gone are deleted.

    Args:
        store: runs the commands.
        keys: of the cluster.
        signer: of the cluster.
    """
    found: list[dict[str, Any]] = []
    stored = store.call(b"HGETALL", keys.breakpoints)
    now = _now(store) if stored else 0.0
    for key, record in zip(stored[::2], stored[1::2], strict=True):
        try:
            facts = decode(signer.open(b"breakpoint" + key, record))
            fresh = now - facts["seen"] < STALE_SECONDS
        except (RabbitryBrokerError, ValueError, TypeError, LookupError):
            fresh = False  # whoever wrote it is none of ours
        if fresh:
            found.append(facts)
        else:
            store.call(b"HDEL", keys.breakpoints, key)
    return sorted(found, key=lambda facts: float(facts["since"]))


def _now(store: Caller) -> float:
    """Return the time of the store: clocks of machines differ, and each of them may look for stale entries."""
    seconds, microseconds = store.call(b"TIME")
    return int(seconds) + int(microseconds) / 1e6


class RemotePdb(pdb.Pdb):
    """Python's debugger, its commands and answers over a connection. When that ends, the program goes on.

    Args:
        connection: to who debugs.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection: socket.socket | None = connection
        # Two: a text file that is read and written forgets at each write what it has read ahead.
        self._commands = connection.makefile("r", encoding="utf-8", errors="replace", newline="\n")
        self._answers = connection.makefile("w", encoding="utf-8", errors="replace", newline="\n")
        super().__init__(stdin=self._commands, stdout=self._answers, nosigint=True)
        self.use_rawinput = False
        self.prompt = "(rabbitry-pdb) "

    def detach(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            self._commands.close()
            self._answers.close()
        except OSError:
            pass  # who debugged is gone already
        finally:
            connection.close()

    def do_continue(self, arg: str) -> bool | None:
        """Go on, without the debugger unless there are breakpoints of its own."""
        done = super().do_continue(arg)
        if not self.breaks:
            self.detach()
        return done

    do_c = do_cont = do_continue

    def do_EOF(self, arg: str) -> bool | None:  # noqa: N802  pdb's name
        """Who debugged is gone: go on."""
        self.clear_all_breaks()
        return self.do_continue(arg)

    def do_quit(self, arg: str) -> bool | None:
        """End what is debugged: the task fails with bdb.BdbQuit."""
        done = super().do_quit(arg)
        self.detach()
        return done

    do_q = do_exit = do_quit

    def interaction(self, frame: FrameType | None, traceback: Any) -> None:
        """Talk; a connection that broke is an end of it."""
        try:
            super().interaction(frame, traceback)
        except (OSError, ValueError):
            self.clear_all_breaks()
            self.set_continue()
            self.detach()
