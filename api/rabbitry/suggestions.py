"""What a user may have meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name most like `name`, "" if none is.

    >>> closest("num_cpu", ["num_cpus", "name"])
    " Did you mean 'num_cpus'?"
    """
    # Only a program that is about to fail comes here.
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""
