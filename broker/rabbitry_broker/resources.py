"""Resource requests and totals in exact arithmetic, and the resource class that names a queue.

Amounts are integers in units of 1/10000, so that ten tasks of `num_cpus=0.1` fill exactly one CPU. A request is
canonical: equal requests have equal class names, and a class name says all there is to know of a request.
"""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

CPU: Final = "CPU"
GPU: Final = "GPU"
MEMORY: Final = "memory"
HEAD: Final = "node:__internal_head__"

UNITS: Final = 10_000
"""Units of an amount: the finest request is 0.0001 of a resource."""

NOTHING: Final = "none"
"""The class name of a request for nothing."""

# Of the free memory, what tasks may ask for; the rest is left to objects.
_TASK_MEMORY_SHARE: Final = 0.7
_FIRST: Final = {CPU: 0, GPU: 1, MEMORY: 2}
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "_-.:")
_DIGITS: Final = len(str(UNITS)) - 1


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What a task needs, or what a node has. Immutable, hashable, canonical.

    Made by `from_floats`, `from_units` or `parse`.

    Attributes:
        class_name: the resource class, e.g. `CPU=0.5,license=1`; `none` for nothing.
        units: (name, amount in units of 1/10000), in canonical order, without zeros.

    >>> ResourceRequest.from_floats({"license": 1, "CPU": 0.1 + 0.2, "GPU": 0}).class_name
    'CPU=0.3,license=1'
    """

    class_name: str
    units: tuple[tuple[str, int], ...] = field(compare=False, repr=False)

    @classmethod
    def from_floats(cls, amounts: Mapping[str, float]) -> ResourceRequest:
        """Return the request for `amounts`, rounded to 0.0001; `memory` is in bytes.

        Raises:
            TypeError: an amount that is no number, or a name that is no text.
            ValueError: negative, infinite or finer than 0.0001; a GPU amount above 1 that is not whole; no name.
        """
        return cls.from_units({name: _to_units(name, amount) for name, amount in amounts.items()})

    @classmethod
    def free(cls, amounts: Mapping[str, float]) -> ResourceRequest:
        """Return what is left of a node, as its record says: of its GPUs too that may be any amount.

        >>> ResourceRequest.from_floats({"GPU": 1}).times_in(ResourceRequest.free({"GPU": 1.5}))
        1
        """
        return cls.from_units({name: _to_units(name, amount) for name, amount in amounts.items()}, is_free=True)

    @classmethod
    def from_units(cls, amounts: Mapping[str, int], *, is_free: bool = False) -> ResourceRequest:
        """Return the request for `amounts`, which are in units of 1/10000.

        Args:
            amounts: by name.
            is_free: it is what is left of a node, and no request.

        Raises:
            ValueError: negative; a GPU amount above 1 that is not whole; no name.
        """
        for name, units in amounts.items():
            if not name:
                raise ValueError("a resource has an empty name; give custom resources a name, as in {'license': 1}")
            if units < 0:
                raise ValueError(f"resource {name!r} has a negative amount {_text_of(units)}; it must be 0 or more")
        gpu = amounts.get(GPU, 0)
        if gpu > UNITS and gpu % UNITS and not is_free:
            raise ValueError(f"GPU={_text_of(gpu)} is not possible: ask for a fraction below 1 or for whole GPUs")
        ordered = tuple(sorted(((n, u) for n, u in amounts.items() if u), key=_rank))
        text = ",".join(f"{_escape(name)}={_text_of(units)}" for name, units in ordered)
        return cls(text or NOTHING, ordered)

    @classmethod
    def parse(cls, class_name: str) -> ResourceRequest:
        """Return the request that has this class name (remembered: a cluster has few).

        Raises:
            ValueError: not a class name.
        """
        return _parse(class_name)

    def __bool__(self) -> bool:
        """True unless nothing is requested."""
        return bool(self.units)

    def to_floats(self) -> dict[str, float]:
        """Return name -> amount, in canonical order, without zeros."""
        return {name: units / UNITS for name, units in self.units}

    def to_units(self) -> dict[str, int]:
        """Return name -> amount in units of 1/10000, in canonical order, without zeros."""
        return dict(self.units)

    def amount(self, name: str) -> int:
        """Return how much of `name` is in it, in units of 1/10000 (0 if nothing)."""
        for own, units in self.units:
            if own == name:
                return units
        return 0

    @property
    def threads(self) -> int:
        """How many threads its CPUs are good for, 1 or more: what libraries use is not theirs to guess."""
        return max(1, self.amount(CPU) // UNITS)

    def fits_in(self, total: ResourceRequest) -> bool:
        """Return True if a node with `total` could run it when nothing else is there."""
        have = dict(total.units)
        return all(have.get(name, 0) >= units for name, units in self.units)

    def times_in(self, total: ResourceRequest, at_most: int = 1000) -> int:
        """Return how many times it fits into `total`, counted up to `at_most`.

        >>> ResourceRequest.parse("CPU=0.5").times_in(ResourceRequest.parse("CPU=2,license=1"))
        4
        """
        have = dict(total.units)
        return min([have.get(name, 0) // units for name, units in self.units], default=at_most)

    def missing_from(self, totals: Iterable[ResourceRequest]) -> str:
        """Return what keeps every node from ever running it, as text for a person; "" if some node could.

        Args:
            totals: what the cluster's nodes have in all.
        """
        nodes = list(totals)
        if not nodes:
            return "the cluster has no node"
        if any(self.fits_in(node) for node in nodes):
            return ""
        lacking = []
        for name, units in self.units:
            most = max(node.amount(name) for node in nodes)
            if most < units:
                have = f"at most {_for_people(name, most)} on one node" if most else "no node has any"
                lacking.append(f"{name}: {_for_people(name, units)} needed, {have}")
        if not lacking:
            return f"no single node has all of {self.class_name} together"
        return "; ".join(lacking)


def detect_totals(
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    memory: float | None = None,
    resources: Mapping[str, float] | None = None,
) -> ResourceRequest:
    """Return what a node on this machine offers; what is not given is detected (container limits count).

    Args:
        num_cpus: CPUs; None for what affinity and control groups leave us.
        num_gpus: whole GPUs; None for those in `CUDA_VISIBLE_DEVICES`, else all NVIDIA devices.
        memory: bytes that tasks may ask for; None for 70% of what is free now.
        resources: custom resources, name -> amount.

    Raises:
        TypeError: an amount that is no number.
        ValueError: an impossible amount, `CPU`, `GPU` or `memory` among the custom ones, or more GPUs than
            `CUDA_VISIBLE_DEVICES` has.
    """
    # Not at the top: drivers that ask for resources need none of the detection.
    from rabbitry_broker import machine

    amounts: dict[str, float] = dict(resources or {})
    for name, option in ((CPU, "num_cpus"), (GPU, "num_gpus"), (MEMORY, "memory")):
        if name in amounts:
            raise ValueError(f"{name!r} is not a custom resource: say {option}={amounts[name]!r} instead")
    if HEAD in amounts:
        raise ValueError(f"{HEAD!r} is a reserved resource: one node of the cluster has it by itself")
    amounts[CPU] = machine.usable_cpus() if num_cpus is None else num_cpus
    if num_gpus is None:
        amounts[GPU] = len(machine.visible_gpus())
    else:
        if _to_units(GPU, num_gpus) % UNITS:
            raise ValueError(f"num_gpus={num_gpus} of a node is not possible: a node has whole GPUs")
        named = machine.visible_gpus_variable()
        if named is not None and num_gpus > len(named):
            raise ValueError(
                f"num_gpus={num_gpus} but CUDA_VISIBLE_DEVICES={','.join(named)!r} shows {len(named)}: "
                "ask for fewer, or widen or unset the variable"
            )
        amounts[GPU] = num_gpus
    amounts[MEMORY] = int(machine.available_memory() * _TASK_MEMORY_SHARE) if memory is None else memory
    return ResourceRequest.from_floats(amounts)


@functools.lru_cache(maxsize=4096)
def _parse(class_name: str) -> ResourceRequest:
    if class_name == NOTHING:
        return ResourceRequest.from_units({})
    amounts: dict[str, int] = {}
    for item in class_name.split(","):
        escaped, separator, amount = item.partition("=")
        name = _unescape(escaped, class_name)
        units = _units_of(amount)
        if not separator or not name or units is None or name in amounts:
            raise ValueError(f"{class_name!r} is not a resource class such as 'CPU=0.5,license=1' (at {item!r})")
        amounts[name] = units
    return ResourceRequest.from_units(amounts)


def _to_units(name: str, amount: float) -> int:
    if not isinstance(name, str):
        raise TypeError(f"resource name {name!r} is a {type(name).__name__}, not text")
    if isinstance(amount, int):
        return amount * UNITS
    try:
        value = float(amount)
    except (TypeError, ValueError):
        raise TypeError(f"resource {name!r} has amount {amount!r}, which is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"resource {name!r} has amount {amount!r}; it must be finite")
    units = round(value * UNITS)
    if not units and value:
        raise ValueError(f"resource {name!r} has amount {amount!r}; the finest possible is {1 / UNITS:.4f}")
    return units


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    return (_FIRST.get(item[0], len(_FIRST)), item[0])


def _text_of(units: int) -> str:
    whole, part = divmod(abs(units), UNITS)
    text = f"{whole}.{part:0{_DIGITS}d}".rstrip("0") if part else str(whole)
    return f"-{text}" if units < 0 else text


def _units_of(text: str) -> int | None:
    whole, point, part = text.partition(".")
    if not whole.isdecimal() or not text.isascii() or (point and not part.isdecimal()) or len(part) > _DIGITS:
        return None
    return int(whole) * UNITS + (int(part.ljust(_DIGITS, "0")) if part else 0)


def _for_people(name: str, units: int) -> str:
    if name == MEMORY and units >= UNITS << 20:
        return f"{_text_of(units)} bytes ({units / UNITS / (1 << 30):.2f} GiB)"
    return _text_of(units)


def _escape(name: str) -> str:
    if _PLAIN.issuperset(name):
        return name
    # Percent-encoding, so that no name holds a separator of class names or what a queue name may not.
    encoded = name.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in encoded)


def _unescape(escaped: str, class_name: str) -> str:
    if "%" not in escaped:
        return escaped
    head, *rest = escaped.split("%")
    try:
        data = bytearray(head.encode())
        for piece in rest:
            data += bytes.fromhex(piece[:2])
            data += piece[2:].encode()
        return data.decode("utf-8", "surrogatepass")
    except ValueError:
        raise ValueError(f"{class_name!r} is not a resource class: bad escape in {escaped!r}") from None
