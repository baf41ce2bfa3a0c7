"""Charts as SVG, drawn on the server: small, the same in light and dark, and without a library in the browser.

Colours are classes (`style.css`). Whatever text goes in is escaped here, and nowhere else is markup made from text.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.source import Span

WIDTH, HEIGHT = 600.0, 100.0
ROW_HEIGHT = 22
NARROW = 2.0
"""Spans that are narrower, of a width of 1000, are drawn together: nobody could click on one."""
BARS = 500
"""Others are drawn each with its name and a link, so many at most: a browser has to draw all of it each second."""


def rates(finished: Sequence[int], failed: Sequence[int]) -> str:
    """Return an area of what ended in each second, with what failed on top of it."""
    seconds = len(finished)
    if seconds < 2:
        return ""
    sums = [good + bad for good, bad in zip(finished, failed, strict=True)]
    top = round_up(max(sums))
    xs = [WIDTH * at / (seconds - 1) for at in range(seconds)]

    def area(values: Sequence[int], floor: Sequence[int], kind: str) -> str:
        up = [f"{x:.1f},{HEIGHT - HEIGHT * value / top:.1f}" for x, value in zip(xs, values, strict=True)]
        down = [f"{x:.1f},{HEIGHT - HEIGHT * value / top:.1f}" for x, value in zip(xs, floor, strict=True)]
        return f'<polygon class="area {kind}" points="{" ".join([*up, *reversed(down)])}"/>'

    grid = "".join(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (0, HEIGHT / 2, HEIGHT))
    marks = "".join(f"<span>{formats.count(value)}</span>" for value in (top, top / 2, 0))
    label = f"tasks that ended in each of the last {seconds} seconds; in the last one {sums[-1]}"
    return (
        f'<div class="plot"><div class="marks">{marks}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{label}">{grid}'
        f"{area(finished, [0] * seconds, 'finished')}{area(sums, finished, 'failed') if any(failed) else ''}</svg>"
        f'<div class="scale"><span>{seconds} s ago</span><span>now</span></div></div>'
    )


def round_up(number: float) -> int:
    """Return a number not below it that reads well on an axis.

    Example:
        >>> round_up(0), round_up(7), round_up(106), round_up(1234)
        (2, 10, 200, 2000)
    """
    decade = 1
    while True:
        for factor in (1, 2, 5):
            if factor * decade >= max(2, number):
                return factor * decade
        decade *= 10


def timeline(spans: Sequence[Span], *, now: float, seconds: float) -> str:
    """Return what ran where in the last seconds: a row for each worker, a bar for each task."""
    lanes = sorted({span.lane for span in spans})
    rows = {lane: number for number, lane in enumerate(lanes)}
    begin, width = now - seconds, 1000.0
    height = ROW_HEIGHT * max(1, len(lanes))
    bars: list[str] = []
    slivers: dict[tuple[str, str], set[int]] = {}
    for span in spans:
        start = max(0.0, (span.started - begin) / seconds * width)
        end = min(width, ((span.ended or now) - begin) / seconds * width)
        kind = "failed" if span.failed else "finished" if span.ended else "running"
        if end - start < NARROW or len(bars) >= BARS:
            slivers.setdefault((span.lane, kind), set()).update(range(int(start), int(end) + 1))
            continue
        took = formats.duration((span.ended or now) - span.started)
        bars.append(
            f'<a href="/tasks/{escape(span.task)}" tabindex="-1"><rect class="bar {kind}" x="{start:.2f}" '
            f'y="{rows[span.lane] * ROW_HEIGHT + 3}" width="{end - start:.2f}" '
            f'height="{ROW_HEIGHT - 6}"><title>{escape(span.name)}: {took}</title></rect></a>'
        )
    for (lane, kind), places in slivers.items():
        top = rows[lane] * ROW_HEIGHT + 3
        lines = "".join(f"M{at} {top}h1v{ROW_HEIGHT - 6}h-1z" for at in sorted(places))
        bars.append(f'<path class="bar {kind}" d="{lines}"/>')
    ticks = "".join(
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>' for x in (0, 250, 500, 750, 1000)
    )
    return (
        f'<svg class="spans" viewBox="0 0 {width:.0f} {height}" preserveAspectRatio="none" '
        f'style="height:{height}px" role="img" aria-label="what ran in the last {seconds:g} seconds">'
        f"{ticks}{''.join(bars)}</svg>"
    )
