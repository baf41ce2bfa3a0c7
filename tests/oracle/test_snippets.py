"""Whole programs print the same on rabbitry as on Ray; why a fact may differ stands beside it in the snippet."""

from __future__ import annotations

import os

import pytest

from tests.oracle.run_on_both import (
    PYTHON_VARIABLE,
    RECORDED,
    Fact,
    all_snippets,
    differences,
    on_rabbitry,
    on_ray,
    recorded,
)


@pytest.mark.parametrize("name", all_snippets())
def test_a_program_prints_what_it_prints_on_ray(name: str) -> None:
    assert differences(recorded(name), on_rabbitry(name)) == []


def test_every_snippet_was_recorded() -> None:
    have = {path.stem for path in RECORDED.glob("*.json")}
    assert have == set(all_snippets()), "run: python -m tests.oracle.run_on_both --record"


@pytest.mark.asks_ray
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", all_snippets())
def test_the_record_is_what_ray_prints(name: str) -> None:
    python = os.environ[PYTHON_VARIABLE]
    assert [Fact(fact.label, fact.value) for fact in on_ray(name, python)] == recorded(name)


def test_differences_are_told() -> None:
    rays = [Fact("a", 1), Fact("b", 2), Fact("c", 3)]
    assert differences(rays, rays) == []
    assert differences(rays, [Fact("a", 1), Fact("b", 5), Fact("c", 3)]) == ["b: Ray 2, rabbitry 5"]
    assert differences(rays, [Fact("a", 1), Fact("b", 5, "better"), Fact("c", 3)]) == []
    assert differences(rays, [Fact("a", 1, "better"), *rays[1:]]) == ["a: said to differ (better), but does not"]
    assert differences(rays, rays[:2]) == ["Ray printed 3 facts, rabbitry 2"]
    assert differences(rays, [Fact("x", 1)]) == ["Ray went on with 'a', rabbitry with 'x'"]
