"""The ledger: every submission with what may come of it, and every effect that a call left behind.

Submissions are kept in the driver. Effects are lines that calls append to one file (`O_APPEND`, one write a line: the
kernel keeps lines of several processes whole), before they do anything else, so that a run that was killed counts.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rabbitry

OUTCOME_TIMEOUT = 40.0  # seconds for all outcomes of a scenario once its faults are healed


def note(path: str, key: str) -> None:
    """Append one effect to the ledger's file; called from tasks and actors."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{key} {os.getpid()}\n".encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Submission:
    """One accepted call.

    Attributes:
        key: its name in the file of effects.
        ref: its result.
        expected: the value that is right.
        errors: classes that are a right outcome as well.
        runs: how often it may have begun; None for any number of times, but at least once.
    """

    key: str
    ref: Any
    expected: Any
    errors: tuple[type[BaseException], ...]
    runs: int | None


class Ledger:
    """Submissions of one scenario and their effects. One thread.

    Attributes:
        path: file of effects, for `note`.
    """

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "effects")
        Path(self.path).touch(mode=0o600)
        self._submissions: list[Submission] = []

    def add(
        self,
        key: str,
        ref: Any,
        expected: Any,
        *,
        errors: tuple[type[BaseException], ...] = (),
        runs: int | None = None,
    ) -> None:
        """Enter a submission; see `Submission`."""
        self._submissions.append(Submission(key, ref, expected, errors, runs))

    def effects(self) -> Counter[str]:
        """Return how often each key was noted."""
        return Counter(line.split(" ")[0] for line in Path(self.path).read_text().splitlines())

    def __len__(self) -> int:
        return len(self._submissions)

    def check(self, timeout: float = OUTCOME_TIMEOUT) -> Counter[str]:
        """Wait for all outcomes and hold them against what was promised; return how many there are of each kind.

        Raises:
            AssertionError: some outcome is missing or wrong; all of them are listed.
        """
        deadline = time.monotonic() + timeout
        wrong: list[str] = []
        outcomes: Counter[str] = Counter()
        for each in self._submissions:
            left = max(0.05, deadline - time.monotonic())
            try:
                value = rabbitry.get(each.ref, timeout=left)
            except rabbitry.exceptions.GetTimeoutError:
                wrong.append(f"{each.key}: no outcome")
                continue
            except Exception as error:
                outcomes[type(error).__name__] += 1
                if not isinstance(error, each.errors):
                    wrong.append(f"{each.key}: {type(error).__name__}: {str(error)[-300:]}")
                continue
            outcomes["right"] += 1
            if value != each.expected:
                wrong.append(f"{each.key}: {value!r} and not {each.expected!r}"[:300])
        effects = self.effects()
        for each in self._submissions:
            begun = effects[each.key]
            if each.runs is not None and begun > each.runs:
                wrong.append(f"{each.key}: begun {begun} times, {each.runs} allowed")
        shown = "\n  ".join(wrong[:20])
        assert not wrong, f"{len(wrong)} of {len(self)} outcomes are wrong:\n  {shown}"
        return outcomes
