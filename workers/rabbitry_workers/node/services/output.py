"""What executors print: read from their pipes, published line by line to the job's driver, and kept in files.

What has no newline counts as a line when nothing follows it for `PARTIAL_SECONDS`, or not enough to end it within
`PARTIAL_SECONDS_MAX`. Of what carriage returns overwrite, the last is published, as a terminal would show it.

Whose a line is, is said by marks in the stream (`rabbitry_broker.output_marks`); of what is printed past Python's own
streams (by a child process, by C code) the node knows only which task ran when it read it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rabbitry_broker import broker_address
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import KIND_TASK, encode
from rabbitry_broker.output_marks import IN_PIPE, begins_mark, escape, split
from rabbitry_broker.terminal import printable
from rabbitry_workers.node.model.lanes import LAST_LINES, Executor
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.services.log_files import LogFiles

if TYPE_CHECKING:
    from rabbitry_broker.endpoint import Endpoint

READ_BYTES = 1 << 16
GATHER_SECONDS = 0.02  # after little was read of a pipe, before it is looked at again
LITTLE_BYTES = 4096
LINE_BYTES_MAX = 1 << 20  # a longer line is cut into pieces of this size
PARTIAL_SECONDS = 0.2
PARTIAL_SECONDS_MAX = 1.0
BAR = b"__ray_tqdm_magic_token__"  # in lines that are states of `rabbitry.experimental.tqdm_ray`
QUOTED_LINES = 20  # in the error of a task that a process died with
QUOTED_CHARACTERS = 500  # of each of them
# What faulthandler says of each process of ours, and nobody wants to know.
_OUR_FRAME = b"/rabbitry_workers/"
_START_FRAMES = (b"in _run_code", b"in _run_module_as_main")

log = logging.getLogger("rabbitry.node")


class OutputReader:
    """Handlers on the agent's loop, two an executor."""

    def __init__(self, node: Node, files: LogFiles) -> None:
        self._node = node
        self._files = files
        self._pipes: dict[int, _Pipe] = {}  # by descriptor, until they end
        self._address = address_of(node.endpoint) or node.config.name

    def watch(self, executor: Executor) -> None:
        """Forward an executor's output until its pipes end."""
        for fd, is_error in zip(executor.outputs, (False, True), strict=True):
            os.set_blocking(fd, False)
            self._pipes[fd] = _Pipe(self, executor, fd, is_error)
            self._node.loop.add_handler(fd, self._on_event, self._node.loop.READ)

    def _on_event(self, fd: int, _: int) -> None:
        """Take what is there; after a line or two, let more gather before the next look.

        Who logs a line for each call would have the node woken for each, and the line published by itself.
        """
        pipe = self._pipes[fd]
        if 0 < self._read(fd) < LITTLE_BYTES:
            self._node.loop.update_handler(fd, 0)
            self._node.loop.call_later(GATHER_SECONDS, lambda: self._listen(fd, pipe))

    def _listen(self, fd: int, pipe: _Pipe) -> None:
        if self._pipes.get(fd) is pipe:  # not another one, by now
            self._node.loop.update_handler(fd, self._node.loop.READ)

    def _read(self, fd: int) -> int:
        """Take what is there; return how much that was."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if data:
            self._pipes[fd].take(data)
            return len(data)
        self._node.loop.remove_handler(fd)
        os.close(fd)
        pipe = self._pipes.pop(fd)
        pipe.publish_rest()
        pipe.close()
        return 0

    def _read_all(self, fd: int) -> None:
        for _ in range(LINE_BYTES_MAX // READ_BYTES):  # not for ever: it may go on printing
            if not self._read(fd):
                break

    def flush(self, job: bytes, token: bytes) -> None:
        """A driver is about to stop listening: publish what is there of its job, then the token."""
        for fd, pipe in list(self._pipes.items()):
            if pipe.executor.key[0] == job:
                self.named(pipe.executor)
                self._read_all(fd)
                pipe.publish_rest()
        self.send(job, ["", 0, b"", "", False, [], token])

    def ended(self, executor: Executor) -> None:
        """A process has ended: publish what it printed last, down to what it had not even written to its pipes."""
        self.named(executor)
        for fd, stream in zip(executor.outputs, (0, 1), strict=True):
            pipe = self._pipes.get(fd)
            # The number of a pipe that has ended may be another one's by now.
            if pipe is not None and pipe.executor is executor:
                self._read_all(fd)
            elif pipe is not None or executor.progress.tail(stream):
                pipe = _Pipe(self, executor, fd, bool(stream))
            if pipe is not None and pipe.executor is executor:
                pipe.take(executor.progress.tail(stream))
                pipe.publish_rest()
                if fd not in self._pipes or self._pipes[fd] is not pipe:
                    pipe.close()

    def last_words(self, executor: Executor, task_id: bytes = b"") -> str:
        """Return what an error says of the output of a process that has crashed, and keep that in any case.

        Args:
            executor: its `ended` was called.
            task_id: quote this task only, and what is nobody's in particular.
        """
        self._files.keep = True
        lines = [
            line
            for whose, line in executor.last_lines
            if (not task_id or whose in (b"", task_id)) and _OUR_FRAME not in line and not line.endswith(_START_FRAMES)
        ][-QUOTED_LINES:]
        if not lines:
            return ""
        quoted = "".join(f"\n    {_quoted(line)}" for line in lines)
        where = f"rabbitry logs task --id {task_id.hex()}" if task_id else f"rabbitry logs worker --pid {executor.pid}"
        return f"\n  Its last output:{quoted}\n  All of it: {where} (in {self._files.path} on {self._node.config.name})"

    def publish(
        self, executor: Executor, is_error: bool, lines: list[bytes], mark: tuple[bytes, str] | None = None
    ) -> None:
        """Publish lines in the name of what the executor runs; `mark` says which task that is, and its name."""
        if executor.actor and not executor.is_named and mark is not None and mark[0] not in (b"", executor.creation[0]):
            executor.unnamed.append((is_error, lines, mark))  # its pipe was read before its channel
            return
        running = executor.running()
        task_id = b""
        if mark is not None:
            task_id = mark[0]
            if not executor.actor:
                executor.last_name = mark[1]
        elif running is not None:
            task_id = running[0].tasks[running[1]][0]
            if running[0].header.kind == KIND_TASK:
                executor.last_name = running[0].header.name
        name = executor.last_name
        if mark is not None and task_id == executor.creation[0]:
            name = executor.creation[1]  # it had no name of its own yet
        # Of a function inside another one, its own name; an actor is known by its class, or what it says it is.
        name = name.rpartition("<locals>.")[2]
        host = self._node.config.host
        self.send(executor.key[0], [name, executor.pid, host, self._address, is_error, lines, b""])
        lines = [line for line in lines if BAR not in line]  # states of a progress bar say nothing later
        if not lines:
            return
        executor.last_lines.extend((task_id, line[: 4 * QUOTED_CHARACTERS]) for line in lines[-LAST_LINES:])
        self._keep(executor, is_error, lines, task_id, mark[1] if mark else name)

    def named(self, executor: Executor) -> None:
        """An actor has said what its output is marked with, or never will: publish what waited for that."""
        executor.is_named = True
        waiting, executor.unnamed = executor.unnamed, []
        for is_error, lines, mark in waiting:
            self.publish(executor, is_error, lines, mark)

    def _keep(self, executor: Executor, is_error: bool, lines: list[bytes], task_id: bytes, name: str) -> None:
        """Append lines to the file of that stream."""
        file = executor.log_files[is_error]
        if file is None:
            worker, job = executor.client_id.hex(), executor.key[0].hex()
            file = self._files(f"worker-{worker}-{job}-{executor.pid}.{'err' if is_error else 'out'}")
            if file is None:
                return
            executor.log_files[is_error] = file
        file.write(task_id, executor.actor, name, b"".join([escape(line) + b"\n" for line in lines]))

    def send(self, job: bytes, message: list[object]) -> None:
        """Publish to the job's driver."""
        sealed = self._node.signer.seal(b"logs" + job, encode(message))
        try:
            self._node.store.call(b"PUBLISH", self._node.keys.logs_channel(job), sealed)
        except RabbitryBrokerError as error:
            log.debug("output of job %s is lost: %s", job.hex(), error)

    def later(self, seconds: float, pipe: _Pipe) -> None:
        """Look at a pipe's rest after a while."""
        self._node.loop.call_later(seconds, pipe.look)


class _Pipe:
    """One pipe: what came, and has no newline yet."""

    def __init__(self, reader: OutputReader, executor: Executor, fd: int, is_error: bool) -> None:
        self.executor = executor
        self._reader = reader
        self._is_error = is_error
        self._rest = bytearray()
        self._since = 0.0  # when the rest began
        self._grown = False  # since the last look
        self._looks = False  # a look is planned
        self._mark: tuple[bytes, str] | None = None  # task and name of who prints; None if that is not known

    def take(self, data: bytes) -> None:
        """More came: publish the lines that it ends. A mark ends one, too: what follows is another task's."""
        if IN_PIPE[:1] in data or (self._rest and begins_mark(self._rest)):
            data = bytes(self._rest) + data
            self._rest.clear()
            while (found := split(data)) is not None:
                before, task_id, name, data = found
                if before:
                    self._take_text(before)
                    self.publish_rest()
                self._mark = (task_id, name) if task_id else None
            if not data:
                return
        self._take_text(data)

    def _take_text(self, data: bytes) -> None:
        rest = self._rest
        if not rest:
            self._since = time.monotonic()
        rest += data
        lines: list[bytes] = []
        if b"\n" in data:
            *lines, last = bytes(rest).split(b"\n")
            rest[:] = last
            self._since = time.monotonic()
        while len(rest) > LINE_BYTES_MAX:
            cut = whole_characters(rest[:LINE_BYTES_MAX])
            lines.append(bytes(rest[:cut]))
            del rest[:cut]
        if lines:
            self._publish([as_shown(line) for line in lines])
        self._grown = True
        if rest and not self._looks:
            self._looks = True
            self._reader.later(PARTIAL_SECONDS, self)

    def _publish(self, lines: list[bytes]) -> None:
        self._reader.publish(self.executor, self._is_error, lines, self._mark)

    def look(self) -> None:
        """Publish a rest that has waited long enough."""
        self._looks = False
        if not self._rest:
            return
        if begins_mark(self._rest):
            self._looks = True
            self._reader.later(PARTIAL_SECONDS, self)  # its end is on its way
            return
        if self._grown and time.monotonic() - self._since < PARTIAL_SECONDS_MAX:
            self._grown = False
            self._looks = True
            self._reader.later(PARTIAL_SECONDS, self)
            return
        cut = whole_characters(self._rest)
        line = as_shown(bytes(self._rest[:cut]))
        del self._rest[:cut]
        if line:
            self._publish([line])

    def publish_rest(self) -> None:
        """Publish what is left."""
        line = as_shown(bytes(self._rest))
        self._rest.clear()
        if line:
            self._publish([line])

    def close(self) -> None:
        """Nothing comes any more."""
        file = self.executor.log_files[self._is_error]
        if file is not None:
            file.close()
            self.executor.log_files[self._is_error] = None


def _quoted(line: bytes) -> str:
    return printable(line.decode("utf-8", "replace")[:QUOTED_CHARACTERS], keep="\t")


def as_shown(line: bytes) -> bytes:
    r"""Return a line as a terminal shows it in the end.

    >>> as_shown(b"10%\r20%"), as_shown(b"10%\r"), as_shown(b"line\r")
    (b'20%', b'10%', b'line')
    """
    if b"\r" not in line:
        return line
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def whole_characters(data: bytes | bytearray) -> int:
    """Return the length of `data` without a character of UTF-8 that is cut off at its end.

    >>> whole_characters("aü".encode()), whole_characters("aü".encode()[:-1]), whole_characters(bytes([0xFF] * 5))
    (3, 1, 5)
    """
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 4 if 0xF0 <= byte < 0xF8 else 3 if 0xE0 <= byte < 0xF0 else 2 if 0xC0 <= byte < 0xE0 else 1
            return len(data) - back if needed > back and len(data) > back else len(data)
    return len(data)


def address_of(endpoint: Endpoint) -> str:
    """Return the address by which this host reaches the cluster's servers; "" if they are on a local socket."""
    url = urlsplit(broker_address.parse(endpoint.broker_url).urls[0] if endpoint.broker_url else endpoint.store_url)
    if not url.hostname:
        return ""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(url.hostname, url.port or 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return ""
