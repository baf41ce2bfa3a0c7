"""What a program may leave behind while its session lives: nothing that was its own.

| stays | why |
|---|---|
| the records of cluster, nodes, job and client, the client's inbox | the session lives |
| functions | known by their contents; the next program may use them |
| records of dead actors, for an hour | others may ask what they died of |
| marks that keep a late copy from running, for a while | they expire |
"""

from __future__ import annotations

from typing import Any

import rabbitry
from rabbitry import current
from rabbitry.cluster import node_records

OBJECTS = frozenset(("o", "x", "h", "hg", "b", "p", "r", "g", "w", "d", "n", "actor"))


class Look:
    """Looks at what is left, and knows what was there before.

    Args:
        alone: False if others use the cluster meanwhile: what they hold is no leftover.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._client = current.client()

    def __call__(self, *, keys: bool = True) -> dict[str, Any]:
        """Return what is left, by kind; nothing if all is gone.

        Args:
            keys: look at the keys in the store too: those of a process that was killed stay for half a minute.
        """
        client = self._client
        client.collect()
        left: dict[str, Any] = {}
        if client.in_flight:
            left["in flight"] = client.in_flight
        if client.references.counts:
            left["handles"] = {key.hex(): count for key, count in list(client.references.counts.items())[:5]}
        if client.references._pins:
            left["pins"] = [key.hex() for key in list(client.references._pins)[:5]]
        if client.streams:
            left["streams"] = [key.hex() for key in list(client.streams)[:5]]
        if client.children:
            left["children"] = len(client.children)
        if left or not self._alone:
            return left
        free, all_of_it = rabbitry.available_resources(), rabbitry.cluster_resources()
        held = {name: amount - free.get(name, 0) for name, amount in all_of_it.items() if free.get(name, 0) != amount}
        held.pop("object_store_memory", None)
        if held:
            left["resources"] = held
            left["nodes"] = [
                {name: record[name] for name in ("name", "available", "waiting", "figures")}
                for record in node_records(client)
                if record["alive"]
            ]
        if keys and (found := self._keys()):
            left["keys"] = found
        return left

    def _keys(self) -> list[str]:
        """Return the keys of objects and of living actors that do not expire."""
        client = self._client
        prefix, cursor, found = client.keys.prefix, b"0", []
        while True:
            cursor, names = client.store.call(b"SCAN", cursor, b"MATCH", prefix + b"*:{*", b"COUNT", 5000)
            for name in names:
                kind = name[len(prefix) :].partition(b":{")[0].decode("latin1")
                # What expires is nobody's leftover: -1 is a key without an end, -2 one that is gone by now.
                if kind in OBJECTS and int(client.store.call(b"TTL", name)) == -1:
                    found.append(name[len(prefix) :].decode("latin1"))
            if cursor == b"0":
                return sorted(found)[:10]
