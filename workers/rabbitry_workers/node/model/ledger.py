"""The ledger: which resources of a node are taken, by whom, and which GPUs those are.

All amounts are exact integers (units of 1/10000). The one state is what is free of each resource and of each GPU;
everything else is derived from it. A grant moves only forward:

    HELD --lend--> LENT --reclaim--> HELD        (the executor blocks in `get`, and continues)
    HELD | LENT --release--> RELEASED

The free amount goes below zero only by `force_acquire` and `reclaim`: work that is already running cannot be refused.
Nothing is admitted while it is below what the request needs, so such a debt is paid back first.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from rabbitry_broker.machine import visible_gpus_variable
from rabbitry_broker.resources import CPU, GPU, UNITS, ResourceRequest


class GrantState(enum.Enum):
    """Where a grant stands; the module's docstring draws the moves."""

    HELD = "held"
    LENT = "lent"
    RELEASED = "released"


_MOVES: Final = {
    GrantState.HELD: frozenset((GrantState.LENT, GrantState.RELEASED)),
    GrantState.LENT: frozenset((GrantState.HELD, GrantState.RELEASED)),
    GrantState.RELEASED: frozenset[GrantState](),
}


class Grant:
    """What a ledger gave to one task or actor. Only its ledger changes it.

    Attributes:
        request: what was asked for.
        gpu_ids: the GPUs to show to the process, as `CUDA_VISIBLE_DEVICES` names them; several grants share an id
            if they asked for fractions.
        state: held, lent (its CPU is with others while it waits), or released.
        ledger: that gave it: the node's, or that of a bundle.
    """

    __slots__ = ("gpu_ids", "gpu_units", "ledger", "request", "state")

    def __init__(self, ledger: Ledger, request: ResourceRequest, gpu_ids: tuple[str, ...], gpu_units: int) -> None:
        self.ledger = ledger
        self.request = request
        self.gpu_ids = gpu_ids
        self.gpu_units = gpu_units  # of each of the ids
        self.state = GrantState.HELD

    def __repr__(self) -> str:
        gpus = f", gpu_ids={','.join(self.gpu_ids)}" if self.gpu_ids else ""
        return f"Grant({self.request.class_name}{gpus}, {self.state.value})"


class Ledger:
    """The account of one node, or of one placement group bundle. One thread (the agent's loop) may use it.

    Args:
        totals: what there is to give.
        gpu_ids: names of the GPUs, at least as many as `totals` has; None for "0", "1", ...

    Raises:
        ValueError: fewer GPU names than GPUs, or a name twice.

    >>> ledger = Ledger(ResourceRequest.from_floats({"CPU": 1}))
    >>> half = ResourceRequest.from_floats({"CPU": 0.5})
    >>> first, second, third = ledger.acquire(half), ledger.acquire(half), ledger.acquire(half)
    >>> third is None
    True
    >>> ledger.release(first)
    >>> ledger.available()
    {'CPU': 0.5}
    """

    def __init__(self, totals: ResourceRequest, gpu_ids: Sequence[str] | None = None) -> None:
        self._totals = totals
        self._total_of = totals.to_units()
        self._free = {name: units for name, units in totals.units if name != GPU}
        self._free_gpus: dict[str, int] = {}
        rest = totals.amount(GPU)
        needed = -(-rest // UNITS)
        names = [str(number) for number in range(needed)] if gpu_ids is None else list(gpu_ids)[:needed]
        if len(set(names)) < needed:
            raise ValueError(f"{totals.class_name} needs {needed} different GPU ids, got {gpu_ids!r}")
        for name in names:
            # A bundle may hold a share of one GPU only: its last id then has less than a whole.
            self._free_gpus[name] = min(UNITS, rest)
            rest -= UNITS

    @property
    def totals(self) -> ResourceRequest:
        """What the node has in all."""
        return self._totals

    def set_total(self, name: str, units: int) -> None:
        """From now on the node has so much of a resource (not GPUs); what is taken of it stays taken.

        Args:
            name: of the resource.
            units: of 1/10000; with 0 it has the resource no more.

        >>> ledger = Ledger(ResourceRequest.from_floats({"CPU": 1}))
        >>> ledger.set_total("license", UNITS)
        >>> ledger.available()
        {'CPU': 1.0, 'license': 1.0}
        """
        before = self._total_of.get(name, 0)
        self._totals = ResourceRequest.from_units({**self._total_of, name: units})
        self._total_of = self._totals.to_units()
        self._add(name, units - before)

    def can_ever(self, request: ResourceRequest) -> bool:
        """Return True if `request` fits when nothing else is running."""
        return request.fits_in(self._totals)

    def has_room(self, request: ResourceRequest) -> bool:
        """Return True if `acquire(request)` would succeed now."""
        free = self._free
        for name, units in request.units:
            if name == GPU:
                if self._choose_gpus(units) is None:
                    return False
            elif free.get(name, 0) < units:
                return False
        return True

    def room(self, request: ResourceRequest, at_most: int = 1000) -> int:
        """Return how many times `acquire(request)` would succeed now, counted up to `at_most`.

        >>> Ledger(ResourceRequest.from_floats({"CPU": 2})).room(ResourceRequest.from_floats({"CPU": 0.5}))
        4
        """
        free = self._free
        times = at_most
        for name, units in request.units:
            if name != GPU:
                times = min(times, max(0, free.get(name, 0)) // units)
            elif units >= UNITS:
                times = min(times, sum(left >= UNITS for left in self._free_gpus.values()) // (units // UNITS))
            else:
                times = min(times, sum(max(0, left) // units for left in self._free_gpus.values()))
        return times

    def acquire(self, request: ResourceRequest) -> Grant | None:
        """Take `request`, all of it or nothing.

        Returns:
            The grant, or None if there is no room now.
        """
        if not self.has_room(request):
            return None
        gpu = request.amount(GPU)
        chosen = self._choose_gpus(gpu) if gpu else ()
        return self._take(request, chosen or (), gpu)

    def force_acquire(self, request: ResourceRequest) -> Grant:
        """Take `request` even if that leaves less than nothing: for work that runs already.

        GPUs come from those with most room.

        Raises:
            ValueError: the node has not as many GPUs at all, so there is no id to give.
        """
        gpu = request.amount(GPU)
        chosen = self._choose_gpus(gpu) if gpu else ()
        if chosen is None:
            count = max(1, gpu // UNITS)
            chosen = tuple(sorted(self._free_gpus, key=lambda name: -self._free_gpus[name])[:count])
            if len(chosen) < count:
                raise ValueError(f"{request.class_name} needs {count} GPUs, the node has {len(self._free_gpus)}")
        return self._take(request, chosen, gpu)

    def release(self, grant: Grant) -> None:
        """Give back all that `grant` still holds.

        Raises:
            ValueError: it was released before.
        """
        lent = grant.state is GrantState.LENT
        self._move(grant, GrantState.RELEASED)
        for name, units in grant.request.units:
            if name != GPU and not (lent and name == CPU):
                self._add(name, units)
        for gpu in grant.gpu_ids:
            self._free_gpus[gpu] += grant.gpu_units

    def lend(self, grant: Grant) -> None:
        """Give back the CPU of a grant whose process waits for others; memory, GPUs and the rest stay taken.

        Raises:
            ValueError: it is lent already, or released.
        """
        self._move(grant, GrantState.LENT)
        self._add(CPU, grant.request.amount(CPU))

    def reclaim(self, grant: Grant) -> None:
        """Take the CPU of a lent grant again, by force: its process continues.

        Raises:
            ValueError: it is not lent.
        """
        self._move(grant, GrantState.HELD)
        self._add(CPU, -grant.request.amount(CPU))

    def times(self, request: ResourceRequest) -> int:
        """Return how many times `request` fits when nothing else is running."""
        return request.times_in(self._totals)

    def free_units(self) -> dict[str, int]:
        """Return what is free, exactly, in units of 1/10000; below zero where force was used."""
        free = dict(self._free)
        if self._free_gpus:
            free[GPU] = sum(self._free_gpus.values())
        return free

    def free_gpu_shares(self) -> list[int]:
        """Return what is free of each GPU, in units of 1/10000."""
        return list(self._free_gpus.values())

    @property
    def is_idle(self) -> bool:
        """True if nothing of it is with anybody."""
        return {name: units for name, units in self.free_units().items() if units} == self._total_of

    def available(self) -> dict[str, float]:
        """Return what is free of each resource of the node, 0.0 where nothing is (or less than nothing)."""
        free = self.free_units()
        return {name: max(0, free[name]) / UNITS for name, _ in self._totals.units}

    def _take(self, request: ResourceRequest, gpu_ids: tuple[str, ...], gpu: int) -> Grant:
        for name, units in request.units:
            if name != GPU:
                self._add(name, -units)
        share = min(gpu, UNITS)
        for name in gpu_ids:
            self._free_gpus[name] -= share
        return Grant(self, request, gpu_ids, share)

    def _add(self, name: str, units: int) -> None:
        free = self._free.get(name, 0) + units
        if free or name in self._total_of:
            self._free[name] = free
        else:
            # Something the node does not have was taken by force and is back.
            self._free.pop(name, None)

    def _choose_gpus(self, units: int) -> tuple[str, ...] | None:
        """Return ids for that much GPU, None if there is no room: whole ones, or the fullest where a fraction fits."""
        free = self._free_gpus
        if units >= UNITS:
            count = units // UNITS
            whole = [name for name, left in free.items() if left >= UNITS]
            return tuple(whole[:count]) if len(whole) >= count else None
        fitting = [name for name, left in free.items() if left >= units]
        return (min(fitting, key=free.__getitem__),) if fitting else None

    @staticmethod
    def _move(grant: Grant, state: GrantState) -> None:
        if state not in _MOVES[grant.state]:
            raise ValueError(f"{grant!r} cannot become {state.value}")
        grant.state = state


def gpu_names(totals: ResourceRequest) -> list[str] | None:
    """Return what this node's `CUDA_VISIBLE_DEVICES` calls its GPUs; None if it is not set or does not name enough."""
    named = list(dict.fromkeys(visible_gpus_variable() or ()))
    return named if len(named) * UNITS >= totals.amount(GPU) else None
