"""Which orders a test tries: always the same few in `make test`, many that are new in `make fuzz`.

| variable | what it says |
|---|---|
| `FUZZ_ORDERS` | how many times as many as in `make test`; default 1 |
| `FUZZ_FIRST_ORDER` | the first of them; default 0. A failure names its order, which is to be tried first then |
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def orders(usual: int) -> range:
    """Return the seeds of the orders to try.

    Args:
        usual: how many in `make test`.
    """
    first = int(os.environ.get("FUZZ_FIRST_ORDER", "0"))
    return range(first, first + usual * int(os.environ.get("FUZZ_ORDERS", "1")))


@contextmanager
def named(seed: int) -> Iterator[None]:
    """Have whatever goes wrong in here say in which order it did."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"order {seed}: {type(error).__name__}: {error}") from error
