"""What nodes have to know of a job (import path, working directory, namespace, ...), kept for work that outlives it.

The record of a job goes when its driver leaves. Detached actors and tasks go on, and make tasks and actors of the same
job. So who creates something detached holds the record as it holds functions (`rabbitry_broker.store.functions`), and
so does each detached actor as long as it lives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rabbitry.core.identity import Identity
from rabbitry_broker.signing import ForgedMessage
from rabbitry_broker.store.functions import Kind, job_digest


class Kept(Protocol):
    """What is held as functions are; see `rabbitry_broker.store.functions.Functions`."""

    def put(self, digest: bytes, pickled: bytes, client: bytes, *, detached: bool = False, kind: Kind = ...) -> None:
        """Store it for a client."""

    def hold(self, digests: Sequence[bytes], client: bytes, *, detached: bool = False) -> list[bytes]:
        """Hold what is there; return what is not."""


class KeptJob:
    """The record of one client's job. Any thread may call anything.

    Args:
        identity: of the client.
        functions: where the record is kept.
        read: returns the job's record, None if it is gone; raises ForgedMessage.
        register: makes the client known as alive.
    """

    def __init__(
        self, identity: Identity, functions: Kept, read: Callable[[bytes], bytes | None], register: Callable[[], None]
    ) -> None:
        self._identity = identity
        self._functions = functions
        self._read = read
        self._register = register
        self._held: set[bool] = set()

    def hold(self, *, for_tasks: bool = False) -> bytes:
        """Hold the record; return its hash, for a detached actor to hold.

        Args:
            for_tasks: for detached tasks, which are nowhere on record.
        """
        identity = self._identity
        digest = job_digest(identity.job)
        if for_tasks in self._held:
            return digest
        self._register()
        if self._functions.hold([digest], identity.id, detached=for_tasks):
            try:
                record = self._read(identity.job)
            except ForgedMessage:
                return digest  # nodes do not believe it either
            if record is not None:
                self._functions.put(digest, record, identity.id, detached=for_tasks, kind=Kind.JOB)
        self._held.add(for_tasks)
        return digest

    def again(self) -> None:
        """Others took this client for dead, and let go of what it held: it is held again with the next use."""
        self._held.clear()
