"""What any client may tell all nodes by a control message: one table of words, their forms and who acts on them.

cancel        ids of tasks, client that asked, by force, with its children
kill-actor    actor id, without a restart, stored error that says why
drain         node id
flush-output  job id, token to publish behind what is there
job-ended     job id
clients-gone  ids of clients that count as dead
group-asked   group id: it is to be planned
group-planned group id, token of the plan, for each node (id, index and resource class of bundles)
group-kept    group id, and the same: it waits for long, what becomes free there is for it
group-dropped group id, token of the plan: it comes to nothing
group-stands  group id
group-ended   group id
groups-wait   planner's id: nodes that get room are to say so at once
node-room     node id, its record, sealed
set-up        job id, what stands in headers for an environment
ask           node id, question (see `requests`)
copy          host id, object id, again: that host's nodes were asked before; they are to copy its value into Redis

A new word is one line in `FORMS` and one handler that the agent hands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import MalformedMessage, decode
from rabbitry_broker.signing import Signer
from rabbitry_workers.node.model.node import Node

FORMS: Final[dict[str, Any]] = {
    "cancel": tuple[str, list[bytes], bytes, bool, bool],
    "kill-actor": tuple[str, bytes, bool, bytes],
    "drain": tuple[str, bytes],
    "flush-output": tuple[str, bytes, bytes],
    "job-ended": tuple[str, bytes],
    "clients-gone": tuple[str, list[bytes]],
    "group-asked": tuple[str, bytes],
    "group-planned": tuple[str, bytes, bytes, list[tuple[bytes, list[tuple[int, str]]]]],
    "group-kept": tuple[str, bytes, list[tuple[bytes, list[tuple[int, str]]]]],
    "group-dropped": tuple[str, bytes, bytes],
    "group-stands": tuple[str, bytes],
    "group-ended": tuple[str, bytes],
    "groups-wait": tuple[str, bytes],
    "node-room": tuple[str, bytes, bytes],
    "set-up": tuple[str, bytes, bytes],
    "ask": tuple[str, bytes, bytes],
    "copy": tuple[str, bytes, bytes, bool],
}


class Controls:
    """Acts on control messages. Loop thread only.

    Args:
        node: which hears them.
        handlers: for each word of `FORMS`, what to do with that which follows the word.
    """

    def __init__(self, node: Node, handlers: Mapping[str, Callable[..., object]]) -> None:
        if handlers.keys() != FORMS.keys():
            raise ValueError(f"control words without a handler or a form: {sorted(handlers.keys() ^ FORMS.keys())}")
        self._node = node
        self._handlers = handlers

    def act(self, data: bytes) -> None:
        """Act on a control message from any client."""
        try:
            word, *rest = read_control(self._node.signer, data)
        except RabbitryBrokerError as error:
            self._node.store.put_aside("control", data, str(error))
            return
        self._handlers[word](*rest)


def read_control(signer: Signer, data: bytes) -> list[Any]:
    """Return a control message: its word, then what belongs to it.

    Raises:
        ForgedMessage: nobody who knows the secret wrote it.
        MalformedMessage: it is none.
    """
    try:
        message = decode(signer.open(b"control", data))
        form = FORMS[message[0]]
        return list(msgspec.convert(message, form))
    except (TypeError, ValueError, LookupError, RecursionError, msgspec.MsgspecError) as error:
        raise MalformedMessage(f"control message: {error!r}") from error
