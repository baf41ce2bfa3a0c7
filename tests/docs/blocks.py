"""Finds the Python in a page of the manual.

A block fenced as `python` is run; one fenced as `output` right after it is what it has to print, to the letter. A
comment `<!-- not run: reason -->` on the line before a fence excepts a block, `<!-- on a cluster -->` anywhere on the
page has the page run on RabbitMQ and Redis instead of the embedded engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[^\s`]*)(?: [^`]*)?$")
NOT_RUN = re.compile(r"^ *<!-- not run: .+ -->$")
CLUSTER = "<!-- on a cluster -->"


@dataclass
class Block:
    """One block of Python.

    Attributes:
        line: of the page, on which its first line stands.
        source: the program.
        output: what it has to print; None if that is not said.
    """

    line: int
    source: str
    output: str | None = None


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that are to be run, in order.

    Raises:
        ValueError: output that no block of Python comes before, or a fence that is not closed.
    """
    found: list[Block] = []
    fence: re.Match[str] | None = None
    body: list[str] = []
    start, before, latest = 0, "", None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        match = FENCE.match(line)
        if fence is None:
            if match:
                fence, body, start = match, [], number + 1
            elif line.strip():
                before = line
            continue
        if not match or match["kind"]:
            body.append(line[len(fence["indent"]) :])
            continue
        text = "".join(f"{each}\n" for each in body)
        if fence["kind"] == "python":
            latest = None if NOT_RUN.match(before) else Block(start, text)
            found += [latest] if latest else []
        elif fence["kind"] == "output":
            if latest is None:
                raise ValueError(f"{page}:{start}: output of no block that is run")
            latest.output, latest = text, None
        fence, before = None, ""
    if fence:
        raise ValueError(f"{page}:{start}: the fence is not closed")
    return found


def wants_cluster(page: Path) -> bool:
    """Return True if a page is to be run on RabbitMQ and Redis."""
    return CLUSTER in page.read_text(encoding="utf-8")
