"""What a publisher keeps of messages that the broker does not write down: see `queues.rabbitmq.light`."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from rabbitry_broker.queues.rabbitmq import light
from rabbitry_broker.queues.rabbitmq.light import LightMessages


@dataclass
class Sent:
    queue: str
    number: int
    published: float = 0.0
    ended: list[bool] = field(default_factory=list)

    def needed(self) -> bool:
        return not self.ended


def kept(*messages: Sent) -> LightMessages[Sent]:
    made: LightMessages[Sent] = LightMessages()
    for each in messages:
        assert made.has_room(each.queue, 0)
        made.keep(each)
    return made


def test_what_is_needed_comes_back_in_order_and_once() -> None:
    one, two, three = Sent("a", 1), Sent("b", 2), Sent("a", 3)
    messages = kept(one, two, three)
    assert len(messages) == 3 and "a" in messages and "c" not in messages
    assert messages.take("a") == [one, three]
    assert messages.take("a") == [] and len(messages) == 1 and "a" not in messages
    messages.keep(three)
    messages.keep(one)
    two.ended.append(True)
    assert messages.take_all() == [one, three]
    assert len(messages) == 0


def test_what_has_ended_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light, "KEPT", 2)
    first, other = Sent("a", 1), Sent("b", 2)
    messages = kept(first, other)
    assert not messages.has_room("a", 0) and not messages.has_room("c", 0)
    other.ended.append(True)
    assert messages.has_room("a", 0), "whatever its queue is"
    assert len(messages) == 1 and "b" not in messages
    first.ended.append(True)
    assert messages.has_room("a", 0)
    assert len(messages) == 0 and "a" not in messages


def test_what_is_needed_for_long_is_found() -> None:
    old, ended, young = Sent("a", 1, 1.0), Sent("b", 2, 1.0, [True]), Sent("c", 3, 9.0)
    messages = kept(old, ended, young)
    assert messages.queues_older_than(5.0) == ["a"]
    assert len(messages) == 2


def test_a_queue_whose_messages_overlap_rests() -> None:
    messages = kept()
    messages.rest("a", 5)
    assert not messages.has_room("a", 4)
    assert messages.has_room("a", 5) and messages.has_room("b", 4)
