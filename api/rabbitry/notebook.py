"""Jupyter: is this a notebook, which cell runs, and how things look as HTML.

Nothing of IPython is imported here: in a notebook it is there already.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Iterable
from typing import Any


def kernel() -> Any:
    """Return the kernel of the notebook that this process serves, None if it serves none (IPython's console too)."""
    module = sys.modules.get("IPython")
    get_shell = getattr(module, "get_ipython", None)
    return getattr(get_shell(), "kernel", None) if get_shell is not None else None


class CurrentCell:
    """The cell that runs, or ran last: where output of tasks belongs that comes in a thread of ours.

    Some kernels show what a thread prints under the cell that started the thread, which is that of `init()`.
    """

    def __init__(self) -> None:
        self._kernel = kernel()
        self._parent: Any = None
        if self._kernel is not None:
            self._look()
            self._kernel.shell.events.register("pre_run_cell", self._look)

    def _look(self, *_: Any) -> None:
        """Notice the cell; called by IPython in the thread that runs it."""
        self._parent = self._kernel.get_parent()

    def direct(self, stream: Any) -> None:
        """Let what the calling thread writes to a stream (`sys.stdout`, `sys.stderr`) appear there."""
        if self._parent is not None and hasattr(stream, "set_parent"):
            stream.set_parent(self._parent)

    def stop(self) -> None:
        """Notice no more cells."""
        if self._kernel is not None:
            self._kernel.shell.events.unregister("pre_run_cell", self._look)
            self._kernel = None


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a small HTML table; whatever is in it is escaped."""
    cells = "".join(
        f'<tr><td style="text-align:left"><b>{html.escape(name)}</b></td>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in rows
    )
    return f'<div class="rabbitry"><b>{html.escape(title)}</b><table>{cells}</table></div>'
