"""Progress bars over refs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rabbitry.calls import wait
from rabbitry.generators import ObjectRefGenerator
from rabbitry.notebook import kernel
from rabbitry.object_ref import ObjectRef

STEP_SECONDS = 0.1
"""How long the bar goes without a new look at what is ready."""

FEW = 1000
"""Up to so many refs each is yielded as soon as it is ready. A look at more costs milliseconds: once a step, then."""


T = TypeVar("T")


def progress(
    refs: Iterable[ObjectRef[T]],
    *,
    desc: str | None = None,
    total: int | None = None,
    unit: str = "task",
    leave: bool = True,
    disable: bool | None = None,
) -> Iterator[ObjectRef[T]]:
    """Yield refs as they become ready, and show on standard error how many are (a bar of tqdm).

    A task that failed is ready too: `get` on its ref raises.

    Args:
        refs: what to wait for, each ref once; or the generator that a streaming task returned. Each is yielded once,
            in the order of becoming ready.
        desc: text before the bar.
        total: how many there will be; default: the number of refs, and unknown for a generator.
        unit: what one of them is called.
        leave: whether the bar stays on the screen at the end.
        disable: True for no bar; None for one if standard error is a terminal, or this is a notebook.

    Raises:
        ValueError: a ref is given twice.
        TypeError: something is no ref.

    Example:
        >>> for ref in progress(refs, desc="parsing"):      # doctest: +SKIP
        ...     handle(rabbitry.get(ref))
    """
    tqdm = _bar()
    if disable is None and kernel() is not None:
        disable = False
    if isinstance(refs, ObjectRefGenerator):
        with tqdm(total=total, desc=desc, unit=unit, leave=leave, disable=disable) as bar:
            for ref in refs:
                bar.update()
                yield ref
        return
    waiting = list(refs)
    with tqdm(
        total=len(waiting) if total is None else total, desc=desc, unit=unit, leave=leave, disable=disable
    ) as bar:
        while waiting:
            few = len(waiting) <= FEW
            ready, waiting = wait(waiting, num_returns=1 if few else len(waiting), timeout=STEP_SECONDS)
            if few and ready and waiting:
                more, waiting = wait(waiting, num_returns=len(waiting), timeout=0)
                ready += more
            if ready:
                bar.update(len(ready))
                yield from ready
            else:
                bar.refresh()  # so that the time in it goes on


def _bar() -> Any:
    """Return tqdm's class; in a notebook its widget, where ipywidgets is installed, else a line of text."""
    # Imported by who wants a bar: `import rabbitry` does without.
    if kernel() is not None:
        import importlib.util

        if importlib.util.find_spec("ipywidgets") is not None:
            from tqdm.notebook import tqdm as widget

            return widget
    from tqdm import tqdm

    return tqdm
