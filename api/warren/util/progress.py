"""Progress bars over refs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from warren.calls import wait
from warren.object_ref import ObjectRef

STEP_SECONDS = 0.1


def progress(
    refs: Sequence[ObjectRef[Any]], *, desc: str | None = None, total: int | None = None, disable: bool | None = None
) -> Iterator[ObjectRef[Any]]:
    """Yield refs as they become ready, and show a bar of how many are (on stderr, by tqdm).

    Args:
        refs: what to wait for; each is yielded once, in the order of becoming ready.
        desc: text before the bar.
        total: how many there will be; default `len(refs)`.
        disable: True for no bar; None for none unless stderr is a terminal.

    Example:
        >>> for ref in progress(refs, desc="parsing"):      # doctest: +SKIP
        ...     handle(warren.get(ref))
    """
    from tqdm import tqdm

    waiting = list(refs)
    with tqdm(total=len(waiting) if total is None else total, desc=desc, disable=disable, leave=False) as bar:
        while waiting:
            ready, waiting = wait(waiting, num_returns=len(waiting), timeout=STEP_SECONDS)
            if ready:
                bar.update(len(ready))
                yield from ready
