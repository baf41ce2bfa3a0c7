"""What a client knows of actors in the cluster: by name, which it made, which are dead; and killing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from rabbitry.arguments import shown
from rabbitry.core.failures import killed_cause, owner_gone_cause
from rabbitry.core.identity import Identity, Job
from rabbitry_broker import records
from rabbitry_broker.store.actors import DEAD

MADE_MOST = 1000  # actors made here, before it is looked which of them are dead
DEAD_KEPT = 1000  # actors known to be dead
NAMES_KEPT = 1000  # names that were looked up, with the actors that had them


class Records(Protocol):
    """Records of actors in the store; see `ActorRecords`."""

    def holder(
        self, namespace: str, name: str, *fields: str, likely: bytes | None
    ) -> tuple[bytes | None, list[bytes | None]]:
        """Return the actor that has a name, and fields of its record; at less cost if it is the `likely` one."""

    def names(self) -> list[tuple[str, str]]:
        """Return (namespace, name) of all."""

    def fields(self, actor_id: bytes, *names: str) -> list[bytes | None]:
        """Return fields of one actor's record."""

    def states(self, actor_ids: list[bytes]) -> list[tuple[str, bytes]]:
        """Return (state, cause of death) of each."""

    def kill(self, actor_id: bytes, *, no_restart: bool, cause: bytes) -> str:
        """Kill an actor; return the state it was in."""


class ActorDirectory:
    """Finds, remembers and kills actors for one client. Any thread may call anything.

    Args:
        identity: of the client.
        job: where its actors live, unless it is said otherwise.
        records: of actors.
        flush: sends all that waits to be sent.

    Attributes:
        owned: creation object -> actor, as long as the client has handles on it.
        made: actors that live as long as this process, as far as is known; None where nobody asks. Cleared of the dead
            by `any_alive`, at the latest when there are twice as many as it left.
        dead: error records of the last `DEAD_KEPT` that are known to be dead.
    """

    def __init__(self, identity: Identity, job: Job, records: Records, *, flush: Callable[[], None]) -> None:
        self._signer = identity.signer
        self._job = job
        self._records = records
        self._flush = flush
        self._made_most = MADE_MOST
        self._last_named: dict[tuple[str, str], bytes] = {}  # who had a name when it was looked up last
        self.owned: dict[bytes, bytes] = {}
        self.made: set[bytes] | None = None
        self.dead: dict[bytes, bytes] = {}

    # -- finding -----------------------------------------------------------------------------------------------------

    def lookup(self, name: str, namespace: str | None) -> tuple[bytes, bytes]:
        """Return (id, facts) of the living actor of that name.

        Raises:
            ValueError: there is none.
        """
        space = namespace or self._job.namespace
        last = self._last_named
        # Ray Serve looks the same few names up in each request: who had one last probably has it still.
        likely = last.get((space, name))
        actor_id, (state, facts) = self._records.holder(space, name, "state", "facts", likely=likely)
        if actor_id is not None:
            if actor_id != likely:
                if len(last) >= NAMES_KEPT:
                    last.clear()
                last[space, name] = actor_id
            if state is not None and state.decode() != DEAD and facts is not None:
                return actor_id, self._signer.open(b"facts" + actor_id, facts)
        raise ValueError(
            f"Failed to look up actor with name {shown(name)} in namespace {shown(space)}. Either it was never "
            "created, is dead, or lives in another namespace (pass namespace=...)."
        )

    def facts_of(self, actor_id: bytes) -> bytes:
        """Return an actor's facts.

        Raises:
            ValueError: no such actor.
        """
        (facts,) = self._records.fields(actor_id, "facts")
        if facts is None:
            raise ValueError(f"no actor {actor_id.hex()} is known")
        return self._signer.open(b"facts" + actor_id, facts)

    def list_named(self, all_namespaces: bool) -> list[tuple[str, str]]:
        """Return (namespace, name) of the named living actors."""
        mine = self._job.namespace
        return [(space, name) for space, name in self._records.names() if all_namespaces or space == mine]

    # -- made here ---------------------------------------------------------------------------------------------------

    def created(self, creation: bytes, actor_id: bytes) -> None:
        """An actor was made here that lives as long as this client, and as there are handles on its creation object."""
        self.owned[creation] = actor_id
        if self.made is not None:
            self.made.add(actor_id)
            if len(self.made) > self._made_most:
                self.any_alive()
                self._made_most = max(MADE_MOST, 2 * len(self.made))

    def any_alive(self) -> bool:
        """True if an actor that was made here lives, whoever has handles on it. One round trip if there may be one."""
        if not self.made:
            return False
        made = list(self.made)
        for actor_id, (state, _) in zip(made, self._records.states(made), strict=True):
            if state == DEAD or not state:
                self.made.discard(actor_id)
        return bool(self.made)

    # -- the dead ----------------------------------------------------------------------------------------------------

    def note_dead(self, actor_id: bytes, record: bytes) -> None:
        """Calls to this actor fail here, without a trip. One that is forgotten again fails by its node or by a look."""
        dead = self.dead
        dead.pop(actor_id, None)
        while len(dead) >= DEAD_KEPT:
            dead.pop(next(iter(list(dead))), None)
        dead[actor_id] = record

    def find_dead(self, actor_ids: list[bytes]) -> dict[bytes, bytes]:
        """Look which of these are dead; return the error records of calls to them."""
        found: dict[bytes, bytes] = {}
        for actor_id, (state, cause) in zip(actor_ids, self._records.states(actor_ids), strict=True):
            if state == DEAD or not state:
                found[actor_id] = records.ERROR + (cause or killed_cause(actor_id))
                self.note_dead(actor_id, found[actor_id])
        return found

    def kill(self, actor_id: bytes, *, no_restart: bool, class_name: str = "") -> None:
        """Kill an actor's process at once; running and waiting calls fail."""
        self._flush()
        cause = killed_cause(actor_id, class_name)
        state = self._records.kill(actor_id, no_restart=no_restart, cause=cause)
        if no_restart and state != DEAD:
            # The node hears of it a moment later: a call that comes after this must not be served any more.
            self.note_dead(actor_id, records.ERROR + cause)

    def leave(self, lingering: Iterable[bytes]) -> None:
        """The client leaves: its actors end, those that only its calls keep alive too, but for detached ones."""
        for actor_id in [*self.owned.values(), *lingering]:
            self._records.kill(actor_id, no_restart=True, cause=owner_gone_cause(actor_id))
        self.owned.clear()

    def state_of(self, actor_id: bytes) -> str:
        """Return an actor's state by its record; "" if there is none (any more)."""
        ((state, _),) = self._records.states([actor_id])
        return state
