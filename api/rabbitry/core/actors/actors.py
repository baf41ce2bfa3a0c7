"""`Actors`: what the public face asks of a client about actors, in one place."""

from __future__ import annotations

from collections import deque

from rabbitry.core.actors.calls import ActorCalls
from rabbitry.core.actors.creating import ActorCreating
from rabbitry.core.actors.directory import ActorDirectory
from rabbitry.core.actors.ends import ActorEnds
from rabbitry.core.flight import Flight


class Actors:
    """The parts that deal with actors. Its methods are those of the parts, bound once.

    Attributes:
        tracked: the plans of calls whose results have not come, by task id.
        owned: creation object -> actor, as long as the client has handles on it.
        ending: actors whose last handle went, and that were not told yet.
    """

    def __init__(
        self, flight: Flight, directory: ActorDirectory, creating: ActorCreating, calls: ActorCalls, ends: ActorEnds
    ) -> None:
        self.directory = directory
        self.calls = calls
        self.ends = ends
        self.tracked = flight.calls
        self.owned = directory.owned
        self.ending: deque[bytes] = ends.ending
        self.create = creating.create
        self.call = calls.call
        self.method_plan = calls.method_plan
        self.pending = calls.pending
        self.lookup = directory.lookup
        self.facts_of = directory.facts_of
        self.list_named = directory.list_named
        self.kill = directory.kill
        self.any_alive = directory.any_alive

    def known_dead(self, actor_id: bytes) -> bool:
        """True if calls to the actor fail here, without a trip."""
        return actor_id in self.directory.dead

    def state_of(self, actor_id: bytes) -> str:
        """Return the actor's state by its record; "" if there is none (any more)."""
        return self.directory.state_of(actor_id)
