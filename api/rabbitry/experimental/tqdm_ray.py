"""Progress bars of tasks and actors, drawn by the driver: `for x in tqdm(items): ...` anywhere.

A task prints the state of a bar as a line of JSON with a mark. It comes to the driver with the rest of the output, and
the printer takes such lines out and draws. Bars need the package tqdm at the driver, which draws none without it.

A bar is gone when it is closed, and all of them with the session.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from rabbitry import current, environment
from rabbitry.util.debug import log_once
from rabbitry.util.node_address import get_node_ip_address

log = logging.getLogger("rabbitry")

RAY_TQDM_MAGIC = "__ray_tqdm_magic_token__"
"""Marks the lines that are states of bars."""

ProgressBarState = dict[str, Any]
_NUMBERS = ("x", "pos", "pid")
_print = builtins.print


class tqdm:  # noqa: N801  Ray's name, and tqdm's
    """A progress bar that the driver draws, wherever this runs. A part of what tqdm's own can do.

    Args:
        iterable: what to go through; None to call `update`.
        desc: what stands before the bar.
        total: how many there are; None for the length of `iterable`, if it has one.
        unit: what they are.
        position: line, among the bars of this process.
        flush_interval_s: seconds between two drawings at least.
    """

    DEFAULT_FLUSH_INTERVAL_SECONDS = 1.0

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        if total is None and iterable is not None:
            try:
                total = len(iterable)  # type: ignore[arg-type]
            except TypeError:
                total = None
        self._iterable = iterable
        self.total = total
        self.n = 0
        self._desc = desc or ""
        self._unit = unit or "it"
        self._position = position or 0
        self._interval = self.DEFAULT_FLUSH_INTERVAL_SECONDS if flush_interval_s is None else flush_interval_s
        self._uuid = uuid.uuid4().hex
        self._closed = False
        client = current.peek()
        self._in_task = client is not None and client.executing
        self._flushed = 0.0

    def set_description(self, desc: str) -> None:
        """Set what stands before the bar."""
        self._desc = desc
        self._flush()

    def update(self, n: int = 1) -> None:
        """Go on by `n`."""
        self.n += n
        self._flush()

    def refresh(self) -> None:
        """Draw, if it is time."""
        self._flush()

    def close(self) -> None:
        """Draw the last state, and end the bar."""
        self._closed = True
        self._flush(now=True)

    def _flush(self, *, now: bool = False) -> None:
        moment = time.monotonic()
        if not now and moment - self._flushed < self._interval:
            return
        self._flushed = moment
        if self._in_task:
            # With its end in the same text: what another thread prints cannot get in between.
            _print(json.dumps(self._get_state()) + "\n", end="", flush=True)
        else:
            instance().process_state_update(self._get_state())

    def _get_state(self) -> ProgressBarState:
        return {
            "__magic_token__": RAY_TQDM_MAGIC,
            "x": self.n,
            "pos": self._position,
            "desc": self._desc,
            "total": self.total,
            "unit": self._unit,
            "ip": get_node_ip_address(),
            "pid": os.getpid(),
            "uuid": self._uuid,
            "closed": self._closed,
        }

    def __iter__(self) -> Iterator[Any]:
        if self._iterable is None:
            raise ValueError("No iterable provided")
        for item in self._iterable:
            self.update(1)
            yield item


class BarManager:
    """Draws the bars of all processes of a job, those of one process below each other. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bars: dict[str, tuple[Any, ProgressBarState]] = {}
        self._hidden = False

    def process_state_update(self, state: ProgressBarState) -> None:
        """Draw what a bar has come to; a new one appears, a closed one ends.

        Raises:
            ValueError, TypeError, KeyError: it is no state of a bar.
        """
        factory = _real_tqdm()
        if factory is None:
            return
        for name in _NUMBERS:
            if not isinstance(state[name], (int, float)):
                raise TypeError(f"{name} of a progress bar is no number")
        total = state["total"]
        if total is not None and not isinstance(total, (int, float)):
            raise TypeError("total of a progress bar is no number")
        where = "" if state["pid"] == os.getpid() else f"(pid={state['pid']}) "
        description = f"{where}{state['desc']}"
        key = str(state["uuid"])
        with self._lock:
            bar = self._bars[key][0] if key in self._bars else None
            if bar is None:
                bar = factory(desc=description, total=total, unit=str(state["unit"]), dynamic_ncols=True, leave=True)
                _patch_print()
            bar.set_description(description, refresh=False)
            bar.total = total
            bar.n = state["x"]
            self._bars[key] = (bar, state)
            self._place()
            if state["closed"]:
                del self._bars[key]
                bar.close()
                self._place()
                if not self._bars:
                    _restore_print()
            elif not self._hidden:
                bar.refresh()

    def _place(self) -> None:
        """Give each bar its line: by process, then by its position there."""
        first = 0
        processes: dict[Any, list[tuple[Any, int]]] = {}
        for bar, state in self._bars.values():
            processes.setdefault((state["ip"], state["pid"]), []).append((bar, int(state["pos"])))
        for bars in processes.values():
            for bar, position in bars:
                if bar.pos != -(first + position):
                    bar.clear()
                    bar.pos = -(first + position)
            first += 1 + max(position for _, position in bars)

    def hide_bars(self) -> None:
        """Take the bars off the screen, for other output."""
        with self._lock:
            if not self._hidden:
                self._hidden = True
                for bar, _ in self._bars.values():
                    bar.clear()

    def unhide_bars(self) -> None:
        """Draw them again."""
        with self._lock:
            if self._hidden:
                self._hidden = False
                for bar, _ in self._bars.values():
                    bar.refresh()

    def end(self) -> None:
        """End all bars: nobody will say more of them."""
        with self._lock:
            for bar, _ in self._bars.values():
                bar.close()
            self._bars.clear()
            _restore_print()


_manager = BarManager()


def instance() -> BarManager:
    """Return what draws the bars of this process."""
    return _manager


def take_out(lines: list[bytes]) -> list[bytes]:
    """Draw the lines that are states of bars; return the others."""
    rest = []
    for line in lines:
        if RAY_TQDM_MAGIC.encode() not in line:
            rest.append(line)
            continue
        try:
            instance().process_state_update(json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            log.debug("a line with the mark of a progress bar is none: %s", error)
            rest.append(line)
    return rest


def safe_print(*args: Any, **kwargs: Any) -> None:
    """Print without disturbing bars. `print` itself does this while there are bars, unless RAY_TQDM_PATCH_PRINT=0."""
    if kwargs.get("file") not in (sys.stdout, sys.stderr, None):
        _print(*args, **kwargs)
        return
    instance().hide_bars()
    try:
        _print(*args, **kwargs)
    finally:
        instance().unhide_bars()


def _patch_print() -> None:
    if builtins.print is _print and not environment.is_off("RAY_TQDM_PATCH_PRINT"):
        builtins.print = safe_print


def _restore_print() -> None:
    if builtins.print is safe_print:
        builtins.print = _print


def _real_tqdm() -> Any:
    try:
        from tqdm.auto import tqdm as real
    except ImportError:
        if log_once("no_tqdm"):
            log.warning("tqdm is not installed, so the progress bars of tasks are not drawn. `pip install tqdm`.")
        return None
    return real
