"""The module `ray`: what its attributes are, and what asking for them costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rabbitry
from rabbitry.ray_alias import face, wheel


@pytest.fixture
def looked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of which files were looked for."""
    looked: list[str] = []
    find = wheel.file

    def file(name: str) -> object:
        looked.append(name)
        return find(name)

    monkeypatch.setattr(wheel, "file", file)
    face._is_module.cache_clear()
    yield looked
    face._is_module.cache_clear()


def test_an_attribute_is_looked_for_among_files_once(looked_for: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ray = face.Face()
    ray.__dict__.pop("get_actor", None)  # as before anybody has asked rabbitry for it
    assert ray.get_actor is rabbitry.get_actor
    looked_for.clear()
    assert ray.get_actor is rabbitry.get_actor
    assert not looked_for
    replaced = object()
    monkeypatch.setattr(rabbitry, "get_actor", replaced)
    assert ray.get_actor is replaced
