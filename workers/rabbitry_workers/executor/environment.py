"""Environment variables of an executor: those of its tasks' `runtime_env`, and what their resources say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from rabbitry_broker.resources import ResourceRequest

GPUS: Final = "CUDA_VISIBLE_DEVICES"
THREADS: Final = "OMP_NUM_THREADS"

_REFERENCE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expanded(variables: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return `variables` with what they name as `${NAME}` (or `$NAME`) put in.

    That is one of the others, else one of `environment`; a variable that names itself means the latter. What does not
    exist is empty; without braces it stays as it is, since a text may have a dollar sign for other reasons.

    >>> expanded({"PATH": "/mine:${PATH}", "CACHE": "${BASE}/cache", "BASE": "/b"}, {"PATH": "/bin"})
    {'PATH': '/mine:/bin', 'CACHE': '/b/cache', 'BASE': '/b'}
    >>> expanded({"A": "${NO} $NO $$ ${A"}, {})
    {'A': ' $NO $$ ${A'}
    """

    def value_of(name: str, above: frozenset[str]) -> str | None:
        if name not in variables or name in above:
            return environment.get(name)
        within = above | {name}

        def put_in(reference: re.Match[str]) -> str:
            value = value_of(reference[1] or reference[2], within)
            if value is None:
                return "" if reference[1] else reference[0]
            return value

        return _REFERENCE.sub(put_in, variables[name])

    return {name: value_of(name, frozenset()) or "" for name in variables}


class Environment:
    """Shows this process what its grant holds: the GPUs, and how many threads its CPUs are good for."""

    def __init__(self) -> None:
        self._gpus_of_node = os.environ.get(GPUS)
        self._threads_are_ours = THREADS not in os.environ  # else the user has said how many
        self._threads_for = ""

    def show(self, resources: str, gpus: list[str] | None) -> None:
        """Set the variables for what is about to run. HOT PATH: once a chunk."""
        if gpus:
            os.environ[GPUS] = ",".join(gpus)
        elif self._gpus_of_node is None:
            os.environ.pop(GPUS, None)
        else:
            os.environ[GPUS] = self._gpus_of_node
        if self._threads_are_ours and resources != self._threads_for:
            self._threads_for = resources
            os.environ[THREADS] = str(ResourceRequest.parse(resources).threads)
