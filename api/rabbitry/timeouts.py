"""What objects wait for when `get` has waited long enough: said in its GetTimeoutError."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import CLIENT_BYTES, TASK_BYTES

if TYPE_CHECKING:
    from rabbitry.client import Client

LOOKED_AT: Final = 100
"""Of so many missing objects it is found out what they wait for."""

PATIENCE_SECONDS: Final = 1.0
"""How long the store may take to answer, after the timeout."""

LEAST_SECONDS: Final = 0.05
"""Who waits for less polls: no round trips for a message that nobody reads."""

_STATES: Final = {
    "PENDING": "of an actor that is not created yet",
    "RESTARTING": "of an actor that is restarting",
    "ALIVE": "of an actor that is alive: running, or behind other calls",
}


def reasons(client: Client, missing: Iterable[bytes]) -> str:
    """Return what the objects wait for, as far as this process can tell; "" if it cannot.

    Args:
        client: of this process.
        missing: ids of objects.
    """
    tasks = list(dict.fromkeys(each[:TASK_BYTES] for each in missing))
    try:
        with client.store.within(time.monotonic() + PATIENCE_SECONDS):
            return _reasons(client, tasks)
    except RabbitryBrokerError:
        return " The store does not answer at the moment."


def _reasons(client: Client, tasks: list[bytes]) -> str:
    seen = tasks[:LOOKED_AT]
    store = client.store
    tracked = client.actors.tracked
    waits = store.pipeline([(b"HGET", client.keys.spec(each), b"n") for each in seen])
    counts: Counter[str] = Counter()
    for task, missing in zip(seen, waits, strict=True):
        plan = tracked.get(task)
        if missing is not None:
            counts["waiting for arguments that are not there yet"] += 1
        elif plan is not None:
            state = client.actors.state_of(plan.function)
            counts["a call " + _STATES.get(state, "of an actor that is gone")] += 1
        elif task[:CLIENT_BYTES] not in (client.id, client.detached_id):
            counts["of another process"] += 1
        else:
            counts["queued or running"] += 1
    text = ", ".join(f"{count} {what}" for what, count in counts.items())
    if len(tasks) > len(seen):
        text += f" (of the first {LOOKED_AT})"
    for needed, lacking in client.unserved():
        text += (
            f". Of all that this process has submitted, what needs {needed} waits for a node that can run it: {lacking}"
        )
    return f" {text[:1].upper()}{text[1:]}."
