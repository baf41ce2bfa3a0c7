"""Which parts are told at each control word, and in which order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_workers.node.peers.controls import FORMS
from rabbitry_workers.node.words import Words

WHO = b"n" * 28


class Told:
    """A part that only listens."""

    def __init__(self, name: str, heard: list[Any]) -> None:
        self._name, self._heard = name, heard

    def __getattr__(self, method: str) -> Any:
        return lambda *rest, **named: self._heard.append((f"{self._name}.{method}", *rest, *named.values()))


@pytest.fixture
def heard() -> list[Any]:
    return []


@pytest.fixture
def life() -> Any:
    return SimpleNamespace(draining=False)


@pytest.fixture
def handlers(heard: list[Any], life: Any) -> dict[str, Any]:
    names = ("cancelling", "owners", "ends", "pool", "environments", "planner", "keeping")
    parts: dict[str, Any] = {name: Told(name, heard) for name in names}
    node: Any = SimpleNamespace(id=WHO)
    return Words(
        node,
        life,
        **parts,
        flush_output=print,
        on_ask=print,
        on_copy=print,
        on_drain=lambda why: heard.append(("drain", why)),
        look_again=lambda: heard.append(("look again",)),
    ).handlers()


def test_every_word_has_a_handler(handlers: dict[str, Any]) -> None:
    assert handlers.keys() == FORMS.keys()


def test_only_the_node_that_is_meant_leaves(handlers: dict[str, Any], heard: list[Any]) -> None:
    handlers["drain"](b"another")
    assert not heard
    handlers["drain"](WHO)
    assert heard == [("drain", "rabbitry stop")]


def test_a_job_ends_for_processes_environments_and_groups(handlers: dict[str, Any], heard: list[Any]) -> None:
    handlers["job-ended"](b"job")
    assert heard == [("pool.end_job", b"job"), ("environments.end_job", b"job"), ("planner.on_job_ended",)]


@pytest.mark.parametrize(
    ("word", "rest", "method"),
    [("dropped", (b"g", b"t"), "on_dropped"), ("stands", (b"g",), "on_stands"), ("ended", (b"g",), "on_ended")],
)
def test_who_holds_bundles_is_told_before_who_plans_them(
    handlers: dict[str, Any], heard: list[Any], word: str, rest: tuple[bytes, ...], method: str
) -> None:
    handlers[f"group-{word}"](*rest)
    then = [] if word == "stands" else [("look again",)]  # queues of its bundles are no more
    assert heard == [(f"keeping.{method}", *rest), (f"planner.{method}", *rest), *then]


def test_tasks_and_actors_end_as_they_were_asked_to(handlers: dict[str, Any], heard: list[Any]) -> None:
    handlers["cancel"](b"task", b"client", True, False)
    handlers["kill-actor"](b"actor", False, b"why")
    assert heard == [("cancelling.cancel", b"task", b"client", True, False), ("ends.kill", b"actor", False, b"why")]


def test_a_node_that_leaves_sets_up_nothing(handlers: dict[str, Any], heard: list[Any], life: Any) -> None:
    handlers["set-up"](b"job", b"code")
    life.draining = True
    handlers["set-up"](b"job", b"code")
    assert heard == [("environments.set_up", b"job", b"code")]
