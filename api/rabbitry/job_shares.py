"""What a job gets of a cluster that others use too: its share, and the priority of its tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from rabbitry import environment
from rabbitry.option_checks import priority as check_priority

if TYPE_CHECKING:
    from rabbitry.job_config import JobConfig

SMALLEST_SHARE = 0.001
LARGEST_SHARE = 1000.0


class JobShare(NamedTuple):
    """What a job says of itself.

    Attributes:
        share: weight of its work beside that of other jobs.
        priority: of its tasks that have none of their own.
    """

    share: float = 1.0
    priority: int = 0


def check_share(share: Any, what: str = "share") -> float:
    """Return a share as it was given.

    Raises:
        TypeError: it is no number.
        ValueError: it is not between `SMALLEST_SHARE` and `LARGEST_SHARE`.

    >>> check_share(2)
    2.0
    """
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise TypeError(f"{what}={share!r} is not a number")
    if not (math.isfinite(share) and SMALLEST_SHARE <= share <= LARGEST_SHARE):
        raise ValueError(f"{what}={share!r} is not between {SMALLEST_SHARE:g} and {LARGEST_SHARE:g}")
    return float(share)


def of_job(config: JobConfig | None) -> JobShare:
    """Return what a job's configuration says, or else the environment.

    Raises:
        ValueError: a variable with an impossible value.
    """
    share = None if config is None else config.share
    priority = None if config is None else config.priority
    if share is None:
        given = environment.number(environment.JOB_SHARE, float)
        share = 1.0 if given is None else check_share(given, environment.JOB_SHARE)
    if priority is None:
        given = environment.number(environment.JOB_PRIORITY, int)
        priority = 0 if given is None else check_priority(environment.JOB_PRIORITY, given)
    return JobShare(share, priority)
