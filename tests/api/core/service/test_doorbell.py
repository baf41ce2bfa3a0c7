"""The doorbell of the service thread."""

from __future__ import annotations

import threading

from rabbitry.core.service.doorbell import Doorbell

LONG = 300.0


def test_what_is_urgent_ends_the_time_in_which_more_may_gather() -> None:
    doorbell = Doorbell()
    doorbell.ring_later()
    assert doorbell.is_rung()
    gathered = threading.Thread(target=doorbell.let_gather, args=(0.0, LONG))
    gathered.start()
    doorbell.ring()
    gathered.join(LONG / 10)
    assert not gathered.is_alive()


def test_after_an_urgent_ring_nobody_waits_for_more() -> None:
    doorbell = Doorbell()
    doorbell.ring()
    doorbell.ring_later()
    doorbell.wait(LONG)
    doorbell.let_gather(0.0, LONG)
    doorbell.answer()
    assert not doorbell.is_rung()
    doorbell.let_gather(LONG, 0.0)  # what was urgent is answered: this returns at once


def test_either_ring_starts_who_answers() -> None:
    started: list[str] = []
    for name in ("ring", "ring_later"):
        doorbell = Doorbell()
        doorbell.start = lambda name=name: started.append(name)  # type: ignore[misc]
        getattr(doorbell, name)()
        assert doorbell.is_rung()
    assert started == ["ring", "ring_later"]
