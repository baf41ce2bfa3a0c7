"""What agent and executor say to each other, over a local socket pair.

HOT PATH: one message carries many tasks. A message is a 4-byte length and a MessagePack array whose first item is one
of the words below.

agent -> executor
    RUN      first, header bytes, [task, ...], gpu ids     run these; they have sequence numbers first, first + 1, ...
    TAKEN    revoked[, begun]                              what you have not begun was taken back: 0 as the answer
                                                           to BLOCKED, 1 by a revocation; all below `begun` is yours
    RETIRE                                                 end if you hold nothing
    EXIT                                                   end now
    ACTOR    header bytes, task, gpu ids, epoch, restarts    host this actor from now on
    CANCEL   task id                                        (actor hosts) cancel this call
executor -> agent
    DONE     upto, tasks, busy seconds, retries, dependants, continuation, *times   all below `upto` are committed;
                                                           number `upto` is the continuation, if it is not None
    DONE_SET sequences, tasks, busy seconds, retries, dependants, *times   these calls are committed (actors: any order)
             times: when they ended and how long they took, and which failed how (`events.RunTimes.take`)
    BROKEN   reason                                         it cannot be what its job and environment want; it ends
    CREATED  error, label                                   the constructor succeeded (b"") or failed (stored error);
                                                            what its output is to be marked with, "" for its class
    BLOCKED  current, in_wait                               waiting in get, or in wait: everything after `current`
                                                            is not started
    UNBLOCKED
    PUBLISH  queue, priority, frame                         publish for me, or hand over here (embedded: calls only)
    LEAVING  reason, last                                   beginning nothing after number `last`; BYE follows when
                                                           nobody needs this process any more
    BYE      reason                                         ending by itself (retired, max_calls)
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec

RUN: Final = 1
TAKEN: Final = 2
RETIRE: Final = 3
EXIT: Final = 4
ACTOR: Final = 5
CANCEL: Final = 6
DONE: Final = 11
BLOCKED: Final = 12
UNBLOCKED: Final = 13
PUBLISH: Final = 14
BYE: Final = 15
DONE_SET: Final = 16
CREATED: Final = 17
BROKEN: Final = 18
LEAVING: Final = 19

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Any]).decode
_READ_BYTES: Final = 1 << 18


def pack_message(message: list[Any]) -> bytes:
    """Return a message with its length before it."""
    data = _encode(message)
    return len(data).to_bytes(4, "big") + data


class Splitter:
    """Cuts a byte stream into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[list[Any]]:
        """Return the messages that `data` completes."""
        messages: list[list[Any]] = []
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "big")
            if end - at - 4 < size:
                break
            messages.append(_decode(bytes(buffer[at + 4 : at + 4 + size])))
            at += 4 + size
        if at:
            del buffer[:at]
        return messages


class BlockingChannel:
    """The executor's end: blocking reads and writes. Reads belong to one thread; writes are whole messages.

    Args:
        sock: of the executor; None if it is set before anything is sent or received.
        on_lost: called when something is to be said to an agent that is gone. User code may be on the stack: it must
            not get to see that, and what it does counts for nothing any more.
    """

    def __init__(self, sock: socket.socket | None = None, on_lost: Callable[[], object] = lambda: None) -> None:
        import threading

        self.on_lost = on_lost
        self.sock: socket.socket = sock  # type: ignore[assignment]
        self._splitter = Splitter()
        self._ready: list[list[Any]] = []
        self._write_lock = threading.Lock()

    def send(self, message: list[Any]) -> None:
        """Send one message."""
        data = pack_message(message)
        with self._write_lock:
            try:
                self.sock.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                self.on_lost()
                raise

    def receive(self) -> list[Any] | None:
        """Return the next message, waiting for it; None when the agent is gone."""
        while not self._ready:
            try:
                data = self.sock.recv(_READ_BYTES)
            except ConnectionError:
                return None
            if not data:
                return None
            self._ready = self._splitter.feed(data)
            self._ready.reverse()
        return self._ready.pop()

    def waiting(self) -> bool:
        """True if a message is here already (read without blocking)."""
        if self._ready:
            return True
        try:
            data = self.sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:
            return True
        if data:
            self._ready = self._splitter.feed(data)
            self._ready.reverse()
        return bool(self._ready) or not data
