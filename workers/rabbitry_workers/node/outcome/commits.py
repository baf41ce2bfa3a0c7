"""Commits in the name of executors: what a node itself says that became of tasks.

What a commit leaves to do (clients to be told, dependants to be published) is done here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rabbitry.core.failures import orphan_items
from rabbitry.exceptions import store_error
from rabbitry_broker import records
from rabbitry_broker.ids import TASK_BYTES, is_detached, owner_of
from rabbitry_broker.messages import Completion, Task, TaskHeader, encode_completion
from rabbitry_broker.store.results import OWNER_GONE
from rabbitry_broker.store.specs import Dependant
from rabbitry_workers.executor.calls import result_ids
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Failed, Publishes, Settle
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.slices import in_slices


def _all_of_them(released: list[Dependant]) -> list[Dependant]:
    return released


def _untold(failed: list[Failed]) -> None:
    """Nobody wants to know."""


class Commits:
    """Writes results and the ends of tasks. Loop thread only.

    Args:
        node: in whose store.
        publishing: of what commits release.
        settle: of deliveries.

    Attributes:
        not_ended: of what a result released that stood before, returns what has not ended since.
        on_failed: told of the tasks that get an error from here.
    """

    def __init__(self, node: Node, publishing: Publishes, settle: Settle) -> None:
        self._node = node
        self._publishing = publishing
        self._settle = settle
        self.on_failed: Callable[[list[Failed]], object] = _untold
        self.not_ended: Callable[[list[Dependant]], list[Dependant]] = _all_of_them

    def commit(
        self, held: Held, header: TaskHeader, items: list[bytes], ended: list[bytes], *, stands: bool = False
    ) -> None:
        """Commit results in the name of an executor.

        Args:
            held: the delivery whose task it is.
            header: of the task.
            items: results (id, record, id, record, ...).
            ended: ids of the tasks that have ended with them.
            stands: they were committed before, and so may be what they released.
        """
        self._commit([held], header.owner, items, ended, stands=stands)

    def _commit(
        self, helds: list[Held], client: bytes, items: list[bytes], ended: list[bytes], *, stands: bool = False
    ) -> None:
        """Commit results that `client` is told of; all of them lie under one tag."""
        store = self._node.store
        owner = owner_of(items[0]) if items else client
        slices = list(in_slices(items))
        for number, part in enumerate(slices, 1):
            over = ended if number == len(slices) else []
            entry = encode_completion(self._node.signer, client, Completion(b"", len(over), 0.0, part, over))
            if owner == client:
                left = store.commit(owner, part, entry, require_owner=True, publish=not stands)
            else:
                left = store.commit(owner, part, b"", require_owner=not is_detached(owner), publish=not stands)
                store.tell(client, entry)
            self.follow_up(owner, part, left, helds, stands=stands)

    def commit_records(self, failed: list[Failed]) -> None:
        """Commit for each of these tasks the same record as all its results; in few steps, but in one go."""
        together: dict[tuple[bytes, bytes], tuple[dict[int, Held], list[bytes], list[bytes]]] = {}
        for held, header, task, record in failed:
            ids = result_ids(task[0], header.num_returns)
            tag = owner_of(ids[0]) if ids else header.owner
            helds, items, ended = together.setdefault((header.owner, tag), ({}, [], []))
            helds[id(held)] = held
            for key in ids:
                items += (key, record)
            ended.append(task[0])
        for (client, _), (helds, items, ended) in together.items():
            self._commit(list(helds.values()), client, items, ended)
        self.on_failed(failed)

    def commit_error(
        self, held: Held, header: TaskHeader, task: Task, error: Exception, *, outstanding: bool = False
    ) -> None:
        """Commit the same error for every result of a task; see `commit_record`."""
        self.commit_record(held, header, task, records.ERROR + store_error(error), outstanding=outstanding)

    def commit_record(
        self, held: Held, header: TaskHeader, task: Task, record: bytes, *, outstanding: bool = False
    ) -> None:
        """Commit the same record for every result of a task; `outstanding`: it counts among what its delivery holds."""
        self.commit_records([(held, header, task, record)])
        if outstanding:
            self._settle(held, 1)

    def tell(self, object_id: bytes, record: bytes) -> None:
        """Give an object, which no task makes, the record that its owner waits for."""
        self._commit([], owner_of(object_id), [object_id, record], [object_id[:TASK_BYTES]])

    def orphan(self, object_ids: list[bytes]) -> None:
        """Objects of the dead that somebody waits for will never come: an error takes their place.

        Those who wait for them are told, and dependants run.
        """
        owner = owner_of(object_ids[0])
        items = orphan_items(object_ids)
        self.follow_up(owner, items, self._node.store.commit(owner, items, b"", require_owner=False), [])

    def follow_up(
        self, owner: bytes, items: list[bytes], left: list[Any], helds: list[Held], *, stands: bool = False
    ) -> None:
        """Do what a commit leaves to do.

        Args:
            owner: under whose tag it was.
            items: what was committed.
            left: what the store says is left.
            helds: the deliveries whose tasks they were.
            stands: it was committed before.
        """
        if not left or left[0] == OWNER_GONE:
            return
        store = self._node.store
        publish, tell = store.dependants(owner, left)
        if stands and publish:
            publish = self.not_ended(publish)
        known = dict(zip(items[::2], items[1::2], strict=True))
        for client, suffix in tell:
            key = owner + suffix
            note = Completion(b"", 0, 0.0, [key, known[key]])
            store.tell(client, encode_completion(self._node.signer, client, note))
        if publish:
            self._publishing.publish_dependants(helds, publish)
