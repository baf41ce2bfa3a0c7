"""Redis Cluster: which of its masters serves a slot.

All keys of one rabbitry cluster but the chunks of large values lie in one slot (`keys.py`), hence on one master at a
time: scripts change them in one step, and a connection to that master is like one to a Redis that stands alone. Every
(re)connection asks for it first, so a failover or a slot that moves is followed as soon as the old connection breaks,
or its server says that it is not the one (see `Connection`). Chunks lie on all masters (`chunks.py`).
"""

from __future__ import annotations

import binascii
import bisect
from typing import Any, Final, NamedTuple

from rabbitry_broker.errors import ConnectError
from rabbitry_broker.store.redis import refusals
from rabbitry_broker.store.redis.address import Address
from rabbitry_broker.store.redis.asking import ask_each

SLOTS: Final = 16384

# Servers that others told of, by address: those that the address names may have been replaced one by one.
_told: dict[str, frozenset[tuple[str, int]]] = {}


def slot_of(key: bytes) -> int:
    """Return the slot of a key: of its hash tag, if it has one.

    Example:
        >>> slot_of(b"{rabbitry:}o:1") == slot_of(b"rabbitry:"), slot_of(b"123456789")
        (True, 12739)
    """
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS


class Share(NamedTuple):
    """A range of slots and who serves it."""

    first: int
    last: int
    host: str
    port: int


def find_master(address: Address, slot: int, timeout: float) -> tuple[str, int]:
    """Return host and port of the master of a slot, as the first server that answers says.

    Args:
        address: of a Redis Cluster.
        slot: which one.
        timeout: seconds for all servers together.

    Raises:
        ConnectError: no server answers, or nobody serves the slot.
    """
    return master_of(address, shares(address, timeout), slot)


def master_of(address: Address, known: list[Share], slot: int) -> tuple[str, int]:
    """Return host and port of the master of a slot, by what `shares` returned.

    Raises:
        ConnectError: nobody serves the slot.
    """
    at = bisect.bisect_right(known, slot, key=lambda share: share.first) - 1
    if at < 0 or known[at].last < slot:
        raise ConnectError(
            address.url,
            f"no server of the Redis Cluster serves slot {slot}",
            "Give every slot to a master: `redis-cli --cluster check` tells which have none.",
        )
    return known[at].host, known[at].port


def shares(address: Address, timeout: float) -> list[Share]:
    """Return who serves which slots, in the order of these.

    Raises:
        ConnectError: no server answers, or they are no Redis Cluster.
    """
    problems: list[str] = []
    hosts = [*address.nodes, *sorted(_told.get(address.url, frozenset()) - set(address.nodes))]
    credentials = (address.username, address.password)
    for answer in ask_each(address, hosts, ("CLUSTER", "SLOTS"), credentials=credentials, timeout=timeout):
        if isinstance(answer.reply, list):
            found = sorted(_share(entry, answer.host) for entry in answer.reply)
            if found:
                _told[address.url] = frozenset((each.host, each.port) for each in found)
                return found
            problems.append(str(answer._replace(reply="knows of no slots")))
            continue
        if "cluster support disabled" in str(answer.reply):
            raise refusals.is_no_cluster(address)
        if answer.reached:
            raise refusals.refused(address, str(answer.reply))
        problems.append(str(answer))
    raise ConnectError(
        address.url,
        f"no server of the Redis Cluster answers ({'; '.join(problems)})",
        "Check the addresses, and that the servers run and have formed a cluster.",
    )


def _share(entry: list[Any], asked: str) -> Share:
    first, last, master = entry[:3]
    # A server that does not know its own address sends none: it is the one that was asked.
    return Share(first, last, (master[0] or b"").decode() or asked, master[1])
