"""What executors print: read from their pipes, published line by line to the job's driver."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from warren_broker.messages import encode

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent
    from warren_workers.node.executors import ExecutorProcess

READ_BYTES = 1 << 16
LINE_BYTES_MAX = 1 << 20  # a longer line is cut into pieces of this size


class OutputReader:
    """Handlers on the agent's loop, two an executor."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def watch(self, executor: ExecutorProcess) -> None:
        """Forward an executor's output until its pipes end."""
        for fd, is_error in zip(executor.outputs, (False, True), strict=True):
            os.set_blocking(fd, False)
            self._watch_one(executor, fd, is_error)

    def _watch_one(self, executor: ExecutorProcess, fd: int, is_error: bool) -> None:
        loop = self._agent.loop
        rest = bytearray()

        def on_event(_: int, __: int) -> None:
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                loop.remove_handler(fd)
                os.close(fd)
                if rest:
                    self._publish(executor, is_error, [bytes(rest)])
                return
            rest.extend(data)
            if b"\n" in data or len(rest) > LINE_BYTES_MAX:
                *lines, last = bytes(rest).split(b"\n")
                rest[:] = last
                if len(rest) > LINE_BYTES_MAX:
                    lines.append(bytes(rest))
                    rest.clear()
                self._publish(executor, is_error, lines)

        loop.add_handler(fd, on_event, loop.READ)

    def _publish(self, executor: ExecutorProcess, is_error: bool, lines: list[bytes]) -> None:
        agent = self._agent
        running = executor.running()
        if running is not None:
            executor.last_name = running[0].header.name
        name = executor.last_name
        job = executor.key[0]
        message = [name, executor.pid, agent.config.name, is_error, lines]
        sealed = agent.signer.seal(b"logs" + job, encode(message))
        agent.store.call(b"PUBLISH", agent.keys.logs_channel(job), sealed)
