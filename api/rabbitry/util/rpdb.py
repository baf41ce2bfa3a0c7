"""`set_trace()` by the name that Ray's programs import it; `breakpoint()` does the same in tasks and actors."""

from __future__ import annotations

from rabbitry import environment
from rabbitry.debugging import post_mortem, set_trace

__all__ = ["post_mortem", "set_trace"]

_post_mortem = post_mortem  # by the name that Ray's libraries call


def _is_ray_debugger_post_mortem_enabled() -> bool:
    """Return True if what fails in a task waits for a debugger; for Ray's libraries."""
    return environment.is_on(*environment.POST_MORTEM)
