"""Why something waits: for results, for resources, for an actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rabbitry.nodes import could_run
from rabbitry.state.tasks import ENDS, Task
from rabbitry_broker import queue_names as names
from rabbitry_broker.queue_names import QueueKind, QueueName
from rabbitry_broker.resources import ResourceRequest

SHOWN: Final = 3  # of what is waited for, so many are named


class Reasons:
    """Tells why tasks and actors wait, from one look at the cluster.

    Args:
        nodes: their records, with `alive`.
        tasks: what is known of tasks, by id.
        actors: states of actors, by id (hex).
    """

    def __init__(self, nodes: Sequence[dict[str, Any]], tasks: Mapping[bytes, Task], actors: Mapping[str, str]) -> None:
        self._nodes = [node for node in nodes if node["alive"]]
        self._tasks = tasks
        self._actors = actors

    def for_arguments(self, task: Task) -> str:
        """Return why a task waits whose arguments are not all there."""
        missing = [each for each in map(self._tasks.get, task.needs) if each is not None and not each.has_ended]
        if not missing:
            return "waits for results of other tasks"
        told = [f"{each.header.name if each.header else 'a task'} ({each.id.hex()})" for each in missing[:SHOWN]]
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        return f"waits for results of {', '.join(told)}{more}"

    def for_room(self, resources: str, queue: str, node: bytes = b"") -> str:
        """Return why a task waits that nobody runs.

        Args:
            resources: the class of what it needs.
            queue: that it was sent to.
            node: that has it already; b"" for none.
        """
        place = _place(queue)
        if place is not None and place.kind is QueueKind.ACTOR:
            return self._for_actor(place.id.hex())
        if place is not None and place.kind is QueueKind.BUNDLE:
            return f"waits for room in {_bundles(place)} of placement group {place.id.hex()}"
        try:
            request = ResourceRequest.parse(resources)
        except ValueError:
            return f"needs {resources!r}, which no node understands"
        selector = place.selector if place is not None else ""
        if place is not None and place.kind is QueueKind.NODE:
            wanted = [each for each in self._nodes if each["id"] == place.id]
            if not wanted:
                return f"must run on node {place.id.hex()}, which is not alive"
        elif node:
            wanted = [each for each in self._nodes if each["id"] == node]
        else:
            wanted = self._nodes
        if not self._nodes:
            return "no node is alive"
        able = [each for each in wanted if could_run(each, request, selector)]
        if not able:
            lack = request.missing_from([ResourceRequest.from_floats(each["totals"]) for each in wanted])
            if lack:
                return f"no node has what it needs: {lack}"
            return f"no node has the labels that it needs: {selector}"
        where = f"node {able[0]['name']}" if len(wanted) == 1 else f"any of {len(able)} nodes that could run it"
        short = [
            f"{name} (needs {needed:g}, free at most {max(each['available'].get(name, 0.0) for each in able):g})"
            for name, needed in request.to_floats().items()
            if all(each["available"].get(name, 0.0) < needed for each in able)
        ]
        if short:
            return f"waits for room on {where}: {', '.join(short)}"
        return f"{where} has room, and will take it" if not node else f"{where} has it, and will begin it"

    def _for_actor(self, actor: str) -> str:
        state = self._actors.get(actor)
        if state == "ALIVE":
            return "waits in its actor's queue"
        if state == "RESTARTING":
            return "waits for its actor, which is being restarted"
        if state is None or state == "DEAD":
            return "its actor is dead, and will answer with an error"
        return "waits for its actor, which has no process yet"


def _place(queue: str) -> QueueName | None:
    try:
        return names.parse(queue) if queue else None
    except ValueError:
        return None


def _bundles(place: QueueName) -> str:
    if place.bundle_index != names.ANY_BUNDLE:
        return f"bundle {place.bundle_index}"
    if not place.among:
        return "any bundle"
    which = [at for at in range(place.among.bit_length()) if place.has_bundle(at)]
    more = f" and {len(which) - SHOWN} more" if len(which) > SHOWN else ""
    return f"one of the bundles {', '.join(map(str, which[:SHOWN]))}{more}"


def ended(task: Task | None) -> bool:
    """True if a task is known to have ended."""
    return task is not None and any(each.state in ENDS for each in task.attempts.values())
