"""What changes a cluster from outside: cancelling tasks, killing actors, having nodes leave.

A task's owner is asked, as whoever borrowed its result would do; it knows how many results there are and
commits its end.
"""

from __future__ import annotations

from rabbitry.core.failures import killed_cause
from rabbitry.core.resolve.notes import CANCEL, FORCE, RECURSIVE
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import is_detached, owner_of
from rabbitry_broker.messages import Completion, encode_completion
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.actors import DEAD, ActorRecords
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.dashboard.source import Refused
from rabbitry_workers.stop import stop_nodes


class Acting:
    """Acts on a cluster. Any thread may use it: each action has a connection of its own.

    Args:
        endpoint: the cluster.
        timeout: seconds to reach a server.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout

    def cancel(self, task_id: bytes, *, force: bool) -> None:
        """Cancel a task, with what it submitted."""
        signer = Signer(self._endpoint.secrets)
        store = ObjectStore(self._endpoint, signer)
        try:
            owner = owner_of(task_id)
            store.announcements.cancel(store.keys, [task_id], owner, force=force, recursive=True)
            if not is_detached(task_id):
                asked = [RECURSIVE, FORCE] if force else [RECURSIVE]
                note = Completion(b"", 0, 0.0, asked, [task_id], CANCEL)
                store.clients.tell(owner, encode_completion(signer, owner, note))
        finally:
            store.close()

    def kill(self, actor_id: bytes, *, restart: bool) -> None:
        """Kill an actor.

        Raises:
            Refused: it is dead, or there is none.
        """
        store = ObjectStore(self._endpoint, Signer(self._endpoint.secrets))
        try:
            state = ActorRecords(store).kill(actor_id, no_restart=not restart, cause=killed_cause(actor_id))
        finally:
            store.close()
        if not state or state == DEAD:
            raise Refused("There is no such actor any more.")

    def drain(self, node: str) -> str:
        """Have a node leave; return how it is called.

        Raises:
            NoSuchNode: it is not alive.
        """
        return stop_nodes(self._endpoint, [node], timeout=self._timeout)[0]
