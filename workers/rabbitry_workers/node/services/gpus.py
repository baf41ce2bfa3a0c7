"""How busy the node's GPUs are, as `nvidia-smi` tells: a child that looks every few seconds and prints what it sees.

A child, since NVIDIA's library may take seconds to answer (the driver is loaded, a device hangs), and the agent's loop
must not wait for it. It ends when nobody reads what it prints, so it outlives no agent by much.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

from rabbitry_broker.machine import visible_gpus_variable
from rabbitry_broker.resources import GPU
from rabbitry_workers.node.model.node import Node

PROGRAM: Final = "nvidia-smi"
LOOK_SECONDS: Final = 5
AGAIN_SECONDS: Final = 60.0  # a child that has ended is started anew after so long
QUERY: Final = "index,uuid,name,utilization.gpu,memory.used,memory.total"
READ_BYTES: Final = 1 << 16
MIB: Final = 1 << 20

GpuUse = tuple[str, float | None, int | None, int | None]
"""Name, share of the time in use (0 to 1), bytes in use, bytes in all; None for what the device does not tell."""

Start = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]

log = logging.getLogger("rabbitry.node")


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )


class GpuWatch:
    """Service on the agent's loop: `start`, `run_once`, `close`. Nothing happens on a node without GPUs.

    Args:
        node: whose GPUs they are.
        which: finds the program.
        start: starts it.
    """

    def __init__(self, node: Node, which: Callable[[str], str | None] = shutil.which, start: Start = _start) -> None:
        self._node = node
        self._which = which
        self._start = start
        self._visible = visible_gpus_variable()
        self._child: subprocess.Popen[bytes] | None = None
        self._fd = -1
        self._rest = b""
        self._found: dict[str, GpuUse] = {}

    def start(self) -> None:
        """Look from now on."""
        if self._node.config.totals.get(GPU):
            self.run_once()
            self._node.periodic.every(AGAIN_SECONDS, self.run_once, stretch=False)

    def run_once(self) -> None:
        """Start the child, unless it runs."""
        if self._child is not None and (self._fd >= 0 or self._child.poll() is None):
            return
        self._child = None
        program = self._which(PROGRAM)
        if program is None:
            return
        try:
            child = self._start(
                [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", f"--loop={LOOK_SECONDS}"]
            )
        except OSError as error:
            log.warning("how busy the GPUs are is not known: %s", error)
            return
        assert child.stdout is not None
        self._child, self._fd = child, child.stdout.fileno()
        os.set_blocking(self._fd, False)
        self._node.loop.add_handler(self._fd, self._on_event, self._node.loop.READ)

    def read(self) -> list[GpuUse]:
        """Return what is known of each GPU of the node."""
        return list(self._found.values())

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._end()
            self._child.poll()

    def _on_event(self, fd: int, _: int) -> None:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-READ_BYTES:]
        for line in lines:
            self._take(line.decode("utf-8", "replace"))

    def _end(self) -> None:
        """What it said counts no more. It is waited for later: a child that hangs must hold up nobody."""
        if self._fd >= 0:
            self._node.loop.remove_handler(self._fd)
            self._fd = -1
        if self._child is not None:
            if self._child.stdout is not None:
                self._child.stdout.close()
            if self._child.poll() is None:
                self._child.kill()
        self._rest = b""
        self._found.clear()

    def _take(self, line: str) -> None:
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(QUERY.split(",")):
            return  # an error that is printed in the place of figures
        index, uuid, name, busy, used, total = fields
        if self._visible is not None and not any(each == index or uuid.startswith(each) for each in self._visible):
            return
        share, taken, whole = _number(busy), _number(used), _number(total)
        self._found[uuid] = (
            f"GPU {index} ({name})",
            None if share is None else share / 100,
            None if taken is None else int(taken * MIB),
            None if whole is None else int(whole * MIB),
        )


def _number(text: str) -> float | None:
    """Return a figure; None for `[N/A]` and the like."""
    try:
        return float(text)
    except ValueError:
        return None
