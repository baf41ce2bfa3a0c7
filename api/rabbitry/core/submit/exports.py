"""The functions and actor classes that a client has stored for executors, and how long they are kept there.

In Redis a function is held by whoever may still need it (`rabbitry_broker.store.functions`): the clients that exported
it, until they leave; detached actors; detached tasks, for a week. Here is what one client does about it:

| when | what |
|---|---|
| a function is used for the first time | it is stored, and held by this client |
| nobody can submit with it any more, since it was collected, and nothing of ours is in flight | it is let go of |
| others took us for dead, and let go of all that we held | what is still in use is stored again |

Before it goes it stays for a day (collected) or a quarter of an hour (its client has left), for what runs twice.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence, Sized
from typing import Any, Final, Protocol

from rabbitry.core.flight import Flight
from rabbitry_broker.functions import export

log = logging.getLogger("rabbitry")

LOOK_SECONDS: Final = 5.0  # between two looks for what was collected


class _Exported:
    """A function in the store, and the objects that were pickled to it: closures are often made again and again."""

    __slots__ = ("detached", "is_class", "sources")

    def __init__(self) -> None:
        self.detached = False
        self.is_class = False
        self.sources: list[Callable[[], Any]] = []

    def living(self) -> Any:
        """Return one of its sources that still exists; None if there is none."""
        found = [(each, source) for each in self.sources if (source := each()) is not None]
        self.sources = [each for each, _ in found]
        return found[0][1] if found else None


class FunctionStore(Protocol):
    """Where functions are; see `rabbitry_broker.store.functions.Functions`."""

    def put(self, digest: bytes, pickled: bytes, client: bytes, *, detached: bool = False) -> None:
        """Store a function that a client needs."""

    def release(self, client: bytes, digests: Sequence[bytes]) -> None:
        """A client needs functions no more."""


class Exports:
    """What one client has exported. Any thread may call anything.

    Args:
        client: its id.
        functions: where they are stored.
        flight: nothing is let go of while something is in flight.
        actors: the client's own, by creation object: they may need their classes again.
        register: makes the client known as alive.
    """

    def __init__(
        self,
        client: bytes,
        functions: FunctionStore,
        flight: Flight,
        actors: Sized,
        register: Callable[[], None],
    ) -> None:
        self._client = client
        self._functions = functions
        self._flight = flight
        self._actors = actors
        self._register = register
        self._lock = threading.RLock()
        self._exported: dict[bytes, _Exported] = {}

    def become(self, client: bytes) -> None:
        """What it is for: `become` of the whole."""
        self._client = client

    def __len__(self) -> int:
        """Return how many functions this client holds in the store."""
        return len(self._exported)

    def export(self, digest: bytes, pickled: bytes, source: Any, *, detached: bool = False) -> None:
        """Store a pickled function, unless it is there.

        Args:
            digest: its content hash.
            pickled: the function.
            source: the function, or the class, itself.
            detached: for tasks that may run when this client has left.
        """
        with self._lock:
            known = self._exported.get(digest)
            if known is None or (detached and not known.detached):
                self._register()
                self._functions.put(digest, pickled, self._client, detached=detached)
                known = self._exported.setdefault(digest, _Exported())
                known.detached = known.detached or detached
            known.is_class = known.is_class or isinstance(source, type)
            if known.living() is not source:
                known.sources.append(_reference(source))

    def run_once(self) -> None:
        """Let go of what was collected."""
        if not self._exported:
            return
        with self._lock:
            if self._flight.count:
                return
            has_actors = bool(len(self._actors))
            gone = [
                digest
                for digest, known in self._exported.items()
                if known.living() is None and not (known.is_class and has_actors)
            ]
            if gone:
                self._functions.release(self._client, gone)
                for digest in gone:
                    del self._exported[digest]

    def again(self) -> None:
        """Others took this client for dead, and let go of what it held: store what is still in use."""
        with self._lock:
            living = {digest: known.living() for digest, known in self._exported.items()}
            for digest in [digest for digest, source in living.items() if source is None]:
                del self._exported[digest], living[digest]
        # Pickling runs what users wrote, which may take locks of theirs, wait for other threads or submit tasks.
        for digest, source in living.items():
            try:
                pickled = export(source)[1]
            except Exception as error:  # noqa: BLE001  of users' code, and it concerns this function alone
                # Something that it uses has changed; what is there stays for a while.
                log.warning("cannot store %r again: %s", source, error)
                continue
            with self._lock:
                known = self._exported.get(digest)
                if known is not None:
                    # Under the old hash, which plans have, also if a global that the function uses has changed since.
                    self._functions.put(digest, pickled, self._client, detached=known.detached)


def _reference(source: Any) -> Callable[[], Any]:
    """Return what returns the source while it exists."""
    try:
        return weakref.ref(source)
    except TypeError:
        return lambda: source
