"""What this process's program calls the library: `rabbitry`, or `ray` under the alias.

Names that users see in titles of processes and in texts of errors follow it, since programs for Ray look for them.
"""

from __future__ import annotations

_name = "rabbitry"


def name() -> str:
    """Return the name by which the program imports the library."""
    return _name


def say_ray() -> None:
    """From now on the program is one that says `ray`."""
    global _name
    _name = "ray"


def not_started(do: str = "first") -> str:
    """Return the text of errors of what needs a session.

    Args:
        do: the end of the sentence that says when to call `init`.
    """
    return f"{'Ray' if _name == 'ray' else _name} has not been started yet. Call {_name}.init() {do}."
