"""Random numbers of forked processes: each draws its own, as it would if it had imported the libraries itself.

Python's `random` sees to that itself; numpy and torch go on where the process that was forked stood, all alike.
"""

from __future__ import annotations

import sys
from contextlib import suppress


def anew() -> None:
    """Seed, in a process just forked, the global generators of what it has imported already."""
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy is not None:
        with suppress(AttributeError):  # it is not that numpy
            numpy.seed()
    if torch is not None:
        with suppress(AttributeError):
            torch.default_generator.seed()
