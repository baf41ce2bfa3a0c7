"""Questions to a node: answered beside the loop, refused with a reason, and never its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rabbitry_broker.messages import MalformedMessage, decode, encode
from rabbitry_workers.node.peers import requests
from rabbitry_workers.node.peers.requests import Refusal, Requests
from tests.workers.node.fakes import World

TOKEN = b"t" * 16


class Asked(World):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.requests = Requests(
            self.node,
            {
                "double": lambda asked: lambda: 2 * asked["number"],
                "refuse": self._refuse,
                "wait": lambda asked: lambda: self.go.wait(10),
                "break": lambda asked: lambda: 1 / 0,
            },
        )

    @staticmethod
    def _refuse(asked: dict[str, Any]) -> Any:
        raise Refusal("not today")

    def ask(self, word: str, node: bytes | None = None, number: int = 1, **arguments: Any) -> None:
        self.requests.on_ask(node or self.node.id, encode([TOKEN, number, word, arguments]))

    def answers(self, count: int = 1) -> list[Any]:
        deadline = time.monotonic() + 10
        while True:
            self.loop.run()
            found = [
                decode(self.node.signer.open(b"answer" + TOKEN, command[2]))[1:]
                for command in self.store.sent
                if command[:2] == (b"PUBLISH", self.node.keys.answers_channel(TOKEN))
            ]
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.005)


@pytest.fixture
def asked() -> Iterator[Asked]:
    world = Asked()
    yield world
    world.go.set()
    world.requests.close()


def test_a_question_is_answered_to_who_asked(asked: Asked) -> None:
    asked.ask("double", number=7)
    assert asked.answers()[0][:2] == [7, "KeyError: 'number'"]
    asked.requests.on_ask(asked.node.id, encode([TOKEN, 8, "double", {"number": 21}]))
    assert asked.answers(2)[1] == [8, "", 42]


def test_of_others_nothing_is_said(asked: Asked) -> None:
    asked.ask("refuse", node=b"another")
    asked.ask("refuse")
    assert asked.answers() == [[1, "not today", None]]


def test_a_word_of_another_version_and_a_fault_are_refused(asked: Asked) -> None:
    asked.ask("unheard")
    asked.ask("break", number=2)
    (first, second) = asked.answers(2)
    assert "no answer to 'unheard'" in first[1]
    assert second[1].startswith("ZeroDivisionError")


def test_nonsense_is_no_question(asked: Asked) -> None:
    for question in (b"", b"\xc1", encode(["t", 1, "double", {}]), encode([TOKEN, 1, "double"])):
        with pytest.raises(MalformedMessage):
            asked.requests.on_ask(asked.node.id, question)


def test_beyond_a_number_of_questions_they_are_refused(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "WAITING_MAX", 2)
    for number in range(3):
        asked.ask("wait", number=number)
    assert asked.answers() == [[2, "it has too many questions to answer now", None]]
    asked.go.set()
    assert sorted(asked.answers(3))[0] == [0, "", True]


def test_a_question_that_is_asked_again_meanwhile_is_answered_once(asked: Asked) -> None:
    for _ in range(3):
        asked.ask("wait")
    asked.ask("refuse", number=2)
    asked.go.set()
    assert asked.answers(2) == [[2, "not today", None], [1, "", True]]
    asked.ask("wait")  # the answer was lost
    asked.ask("wait", number=3)
    assert asked.answers(4)[2:] == [[1, "", True], [3, "", True]]
