"""The options that checkers know are those that there are."""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path

import pytest

import rabbitry
from rabbitry import option_rules

STUB = Path(rabbitry.__file__).with_name("typed_options.pyi")
LATER = {"max_calls", "_num_objects_per_yield"}  # what belongs to the decorator


def typed(name: str) -> set[str]:
    """Return the keys of a TypedDict and its bases."""
    classes = {each.name: each for each in ast.parse(STUB.read_text()).body if isinstance(each, ast.ClassDef)}
    keys: set[str] = set()
    waiting = [name]
    while waiting:
        made = classes.get(waiting.pop())
        if made is not None:
            keys |= {each.target.id for each in made.body if isinstance(each, ast.AnnAssign)}  # type: ignore[union-attr]
            waiting += [base.id for base in made.bases if isinstance(base, ast.Name)]
    return keys


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("TaskOptions", set(option_rules.TASK)),
        ("TaskCallOptions", set(option_rules.TASK) - LATER),
        ("ActorOptions", set(option_rules.ACTOR)),
        ("ActorCallOptions", set(option_rules.ACTOR) - {"concurrency_groups"}),
        ("MethodOptions", set(option_rules.METHOD)),
        ("MethodCallOptions", set(option_rules.METHOD_CALL)),
    ],
)
def test_checkers_know_the_options_there_are(name: str, rules: Collection[str]) -> None:
    assert typed(name) | {"num_returns"} == set(rules) | {"num_returns"}
