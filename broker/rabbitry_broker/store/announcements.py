"""What every node is to learn of: cancelled tasks, ended jobs, new queues; and the slots that nodes tell of."""

from __future__ import annotations

from collections.abc import Sequence

from rabbitry_broker.messages import encode
from rabbitry_broker.queue_names import is_exclusive
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.redis.script import Argument
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.server import Server

ENDED_JOBS_KEPT = 1000  # records of drivers that left
CLIENTS_AT_ONCE = 1000  # in one message
CANCELLED_SECONDS = 3600  # that a node which comes late learns of a cancellation


class Announcements:
    """Tells nodes. Any thread may call anything."""

    def __init__(self, server: Server, keys: Keys, signer: Signer, room: Room) -> None:
        self._server = server
        self._keys = keys
        self._signer = signer
        self._room = room

    def begin_job(self, job: bytes, record: bytes) -> None:
        """A driver is there: put its record, as it is sealed, where nodes find it."""
        keys = self._keys
        self._server.pipeline([(b"SET", keys.job(job), record), (b"ZADD", keys.jobs, repr(self._server.time()), job)])

    def job(self, job: bytes) -> bytes | None:
        """Return the record of a driver that is there; None if it has left.

        Raises:
            ForgedMessage: it is not signed with one of our secrets.
        """
        (stored,) = self._server.call(b"MGET", self._keys.job(job))  # unlike GET, not offended by another type
        return None if stored is None else self._signer.open(b"job" + job, stored)

    def end_job(self, job: bytes) -> None:
        """A driver leaves: what it asked for goes, its record to those of ended ones, and its executors may end."""
        keys = self._keys
        message = self._signer.seal(b"control", encode(["job-ended", job]))
        records = (keys.job(job), keys.jobs, keys.ended_jobs, keys.ended_jobs_at)
        others = (keys.control_channel, message, keys.claims)
        now = repr(self._server.time())
        self._server.call(b"HDEL", keys.requested, job)  # before its record: who dies between has left that for others
        self._server.script("job_end", *records, job, now, ENDED_JOBS_KEPT, *others)

    def clients_gone(self, clients: Sequence[bytes]) -> None:
        """Clients count as dead since just now: nodes need not hold their work any longer."""
        for at in range(0, len(clients), CLIENTS_AT_ONCE):
            message = self._signer.seal(b"control", encode(["clients-gone", list(clients[at : at + CLIENTS_AT_ONCE])]))
            self._server.call(b"PUBLISH", self._keys.control_channel, message)

    def cancel(self, keys: Keys, task_ids: Sequence[bytes], client: bytes, *, force: bool, recursive: bool) -> int:
        """Tell every node that tasks are cancelled; late ones find them in the list for an hour.

        Who adds to the list removes what has been there for longer; the last ones go with the key.

        Returns:
            How many nodes are on record.
        """
        message = self._signer.seal(b"control", encode(["cancel", task_ids, client, force, recursive]))
        until = repr(self._server.time() + CANCELLED_SECONDS)
        listed: list[Argument] = [b"ZADD", keys.cancelled]
        for task_id in task_ids:
            listed += (until, task_id)
        *_, nodes = self._server.pipeline(
            [
                tuple(listed),
                (b"EXPIRE", keys.cancelled, 2 * CANCELLED_SECONDS),  # if no janitor takes out what is over
                (b"PUBLISH", keys.control_channel, message),
                (b"HLEN", keys.nodes),
            ]
        )
        return int(nodes)

    def environment(self, job: bytes, code: bytes) -> None:
        """Have every node set up the environment of a job: its first task need not wait for that then."""
        message = self._signer.seal(b"control", encode(["set-up", job, code]))
        self._server.call(b"PUBLISH", self._keys.control_channel, message)

    def queue(self, queue: str) -> None:
        """Tell every node of a queue that is published to for the first time (an actor's host needs no telling)."""
        if is_exclusive(queue):
            return
        self._announce(self._keys.queues, queue)

    def claim(self, queue: str, job: bytes) -> bool:
        """Ask for the common queue of a class of resources for one job; the claim ends with the job.

        Returns:
            False if another job that is there has it, or this one has ended: it is to use a queue of its own.
        """
        return bool(self._server.script("claim_queue", self._keys.claims, self._keys.jobs, queue, job))

    def priorities(self, queue: str) -> None:
        """Tell every node that the tasks of a queue have priorities: what is most urgent must not wait on a node."""
        self._announce(self._keys.prioritized, queue)

    def _announce(self, among: bytes, queue: str) -> None:
        commands = [
            (b"ZREM", self._keys.retired, queue),
            (b"SADD", among, queue),
            (b"PUBLISH", self._keys.queues_channel, queue),
        ]
        self._room.when_room(lambda: self._server.pipeline(commands))

    def cluster_slots(self) -> int:
        """Return how many one-CPU tasks the living nodes can run at once; 0 if unknown."""
        values = self._server.call(b"HVALS", self._keys.nodes + b":slots")
        return sum(int(value) for value in values or ())
