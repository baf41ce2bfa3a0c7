"""What this machine, or the container it is, lets us use: CPUs, memory, GPUs.

Containers do not change what `/proc` says of the machine; their limits stand in control groups (version 1 or 2), and
any group between ours and the root may set one. The lowest limit counts.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")
_DEV: Final = Path("/dev")
# Version 1 writes "no limit" as a number close to 2**63.
_NO_LIMIT: Final = 1 << 60
_LOOK_SECONDS: Final = 0.9


def usable_cpus(proc: Path = _PROC, cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return how many CPUs this process can keep busy: affinity and control group quota, rounded down, at least 1.

    Args:
        proc: where the proc file system is mounted.
        cgroup_root: where the control groups are mounted.
    """
    if sys.platform == "linux":
        count = float(len(os.sched_getaffinity(0)))
    else:
        count = float(os.cpu_count() or 1)
    for group in _groups("cpu", proc, cgroup_root):
        count = min(count, _cpu_quota(group))
    return max(1, int(count))


def available_memory(proc: Path = _PROC, cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return the bytes of memory that can still be taken, by the kernel's estimate and by the control groups.

    Args:
        proc: where the proc file system is mounted.
        cgroup_root: where the control groups are mounted.
    """
    free = _system_available(proc)
    for group in _groups("memory", proc, cgroup_root):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
        # Page cache counts as used but goes when memory is wanted.
        used -= min(used, _statistic(group / "memory.stat", ("inactive_file", "total_inactive_file")))
        free = min(free, max(0, limit - used))
    return free


def total_memory(proc: Path = _PROC, cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return the bytes of memory of this machine, or of the control group that has the lowest limit.

    Args:
        proc: where the proc file system is mounted.
        cgroup_root: where the control groups are mounted.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in (_text(proc / "meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    for group in _groups("memory", proc, cgroup_root):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT:
            total = min(total, limit)
    return total


class Load:
    """How busy this machine is, looked at not more often than each second. For one thread.

    Args:
        clock: seconds.
        proc: where the proc file system is mounted.
        cgroup_root: where the control groups are mounted.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, proc: Path = _PROC, cgroup_root: Path = _CGROUP_ROOT
    ) -> None:
        self._clock = clock
        self._proc = proc
        self._cgroup_root = cgroup_root
        self._times = _processor_times(proc)
        self._looked_at = clock()
        self._total = total_memory(proc, cgroup_root)
        self._seen: tuple[float, int, int] = (-1.0, 0, 0)

    def look(self) -> tuple[float, int, int]:
        """Return (share of the processors in use since the last look, or -1; memory in use; memory in all)."""
        now = self._clock()
        if self._seen[2] and now - self._looked_at < _LOOK_SECONDS:
            return self._seen
        times = _processor_times(self._proc)
        busy, whole = times[0] - self._times[0], times[1] - self._times[1]
        share = round(busy / whole, 3) if whole > 0 else self._seen[0]
        self._looked_at, self._times = now, times
        used = max(0, self._total - available_memory(self._proc, self._cgroup_root))
        self._seen = (share, used, self._total)
        return self._seen


def _processor_times(proc: Path) -> tuple[int, int]:
    """Return (time that processors worked, time in all), in ticks since the start; zeros where that is not told."""
    line = (_text(proc / "stat") or "").partition("\n")[0].split()
    if len(line) < 6 or line[0] != "cpu":
        return 0, 0
    times = [int(each) for each in line[1:9]]  # those of guests are part of the first ones
    return sum(times) - times[3] - times[4], sum(times)


def visible_gpus(environment: Mapping[str, str] | None = None, dev: Path = _DEV) -> tuple[str, ...]:
    """Return the ids of the GPUs this process may use, as they are written in `CUDA_VISIBLE_DEVICES`.

    The variable decides if it is set; else the device files count, which needs no driver library.

    Args:
        environment: where the variable is looked up; None for the process's own environment.
        dev: where the device files are.
    """
    named = visible_gpus_variable(environment)
    if named is not None:
        return named
    try:
        names = os.listdir(dev)
    except OSError:
        return ()
    numbers = sorted(int(name[6:]) for name in names if name.startswith("nvidia") and name[6:].isdecimal())
    # CUDA numbers what is there from 0, whatever the minor numbers of the device files.
    return tuple(str(index) for index in range(len(numbers)))


def visible_gpus_variable(environment: Mapping[str, str] | None = None) -> tuple[str, ...] | None:
    """Return the ids in `CUDA_VISIBLE_DEVICES`; None if it is not set, empty if it hides all GPUs.

    Args:
        environment: where the variable is looked up; None for the process's own environment.
    """
    text = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    ids: list[str] = []
    for part in text.split(","):
        # As CUDA reads it: the first entry that names no device ends the list.
        if not part.strip() or part.strip() in ("-1", "NoDevFiles"):
            break
        ids.append(part.strip())
    return tuple(ids)


def accelerator_type(proc: Path = _PROC) -> str:
    """Return the kind of this machine's GPUs, as Ray names it (`A100`); "" if there are none or it is not known.

    NVIDIA's driver says what they are in the proc file system, which needs no library.

    Args:
        proc: where the proc file system is mounted.
    """
    for facts in sorted(proc.glob("driver/nvidia/gpus/*/information")):
        for line in (_text(facts) or "").splitlines():
            key, _, model = line.partition(":")
            if key.strip() == "Model" and model.strip():
                return accelerator_name(model.strip())
    return ""


def accelerator_name(model: str) -> str:
    """Return the short name of a GPU from what its maker calls it.

    >>> accelerator_name("NVIDIA A100-SXM4-40GB"), accelerator_name("NVIDIA GeForce RTX 4090")
    ('A100', 'GeForce-RTX-4090')
    """
    words = model.split()
    taken: list[str] = []
    for word in words[1:]:
        head = re.match("[A-Z0-9]*", word)
        assert head is not None  # it may be empty
        if any(each.isdigit() for each in head[0]):
            return "-".join([*taken, head[0]])
        if head[0] != word:
            break
        taken.append(word)
    return "-".join(words[1:] if words[0] == "NVIDIA" else words)


def _groups(controller: str, proc: Path, root: Path) -> Iterator[Path]:
    """Yield the directories of our control group for `controller` and of all groups above it."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names == "":
            mount = root
        elif controller in names.split(","):
            mount = root / names if (root / names).is_dir() else root / controller
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            # Inside a container the path may be the host's and not exist here; the mount itself is then our group.
            group = mount.joinpath(*parts[:depth])
            if group.is_dir():
                yield group


def _cpu_quota(group: Path) -> float:
    text = _text(group / "cpu.max")
    if text is not None:
        quota, _, period = text.partition(" ")
        return float("inf") if quota == "max" else int(quota) / int(period or 100_000)
    quota_v1, period_v1 = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    if quota_v1 is None or quota_v1 <= 0 or not period_v1:
        return float("inf")
    return quota_v1 / period_v1


def _system_available(proc: Path) -> int:
    for line in (_text(proc / "meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _statistic(path: Path, names: tuple[str, ...]) -> int:
    found = 0
    for line in (_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name in names:
            # Version 1 has both, its own and the one with its children; the latter includes the former.
            found = max(found, int(value))
    return found


def _number(path: Path) -> int | None:
    text = _text(path)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
