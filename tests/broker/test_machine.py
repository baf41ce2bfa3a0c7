"""Containers' limits are found in control groups of both versions, wherever in the tree they stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rabbitry_broker import machine

MIB = 1 << 20
GIB = 1 << 30


def _tree(root: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "cgroup").mkdir(exist_ok=True)
    (root / "proc").mkdir(exist_ok=True)
    return root / "proc", root / "cgroup"


MEMINFO = "MemTotal:  4194304 kB\nMemFree:  100 kB\nMemAvailable:  2097152 kB\n"


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({"proc/meminfo": MEMINFO}, 2 * GIB),
        ({"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", "cgroup/memory.max": "max\n"}, 2 * GIB),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/\n",
                "cgroup/memory.max": str(GIB),
                "cgroup/memory.current": str(512 * MIB),
                "cgroup/memory.stat": f"anon 1\ninactive_file {100 * MIB}\n",
            },
            612 * MIB,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/outer/inner\n",
                "cgroup/outer/inner/memory.max": "max",
                "cgroup/outer/memory.max": str(100 * MIB),
                "cgroup/outer/memory.current": str(200 * MIB),
            },
            0,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/docker/of-the-host\n",
                "cgroup/memory/memory.limit_in_bytes": str(GIB),
                "cgroup/memory/memory.usage_in_bytes": str(GIB // 2),
                "cgroup/memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {MIB}\n",
            },
            GIB // 2 + MIB,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "2:memory:/\n",
                "cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            2 * GIB,
        ),
    ],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], memory: int) -> None:
    assert machine.available_memory(*_tree(tmp_path, files)) == memory


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "10000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "cgroup/a/b/cpu.max": "400000 100000",
                "cgroup/a/cpu.max": "300000 100000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "500000",
                "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "cgroup/cpu/cpu.cfs_quota_us": "-1",
                "cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            64,
        ),
    ],
)
def test_usable_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert machine.usable_cpus(*_tree(tmp_path, files)) == cpus


@pytest.mark.parametrize(
    ("variable", "devices", "ids"),
    [
        (None, ["null"], ()),
        (None, ["nvidia0", "nvidia2", "nvidiactl", "nvidia-uvm"], ("0", "1")),
        ("", ["nvidia0"], ()),
        ("-1", ["nvidia0"], ()),
        ("3,1", ["nvidia0"], ("3", "1")),
        ("2, 0,-1,1", [], ("2", "0")),
        ("GPU-8932f937,MIG-7", [], ("GPU-8932f937", "MIG-7")),
    ],
)
def test_visible_gpus(tmp_path: Path, variable: str | None, devices: list[str], ids: tuple[str, ...]) -> None:
    for name in devices:
        (tmp_path / name).touch()
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert machine.visible_gpus(environment, tmp_path) == ids


def test_this_machine_has_something() -> None:
    assert machine.usable_cpus() >= 1
    assert machine.available_memory() > MIB


def test_the_load_is_what_happened_since_the_last_look(tmp_path: Path) -> None:
    now = 100.0
    (tmp_path / "stat").write_text("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n")
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")
    load = machine.Load(lambda: now, tmp_path, tmp_path)
    (tmp_path / "stat").write_text("cpu  160 0 120 900 20 0 0 0 0 0\ncpu0 1 2 3\n")
    now = 101.0
    assert load.look() == (0.4, 600 * 1024, 1000 * 1024)  # 80 of 200 ticks; waiting for a disk is no work
    (tmp_path / "stat").write_text("cpu  999 0 120 900 20 0 0 0 0 0\n")
    now = 101.5
    assert load.look()[0] == 0.4, "looked at more than once a second"
    now = 102.0
    assert load.look()[0] == 1.0


def test_the_load_of_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    load = machine.Load(lambda: 0.0, tmp_path, tmp_path)
    share, _, total = load.look()
    assert share == -1.0
    assert total > 0


def test_total_memory_is_that_of_the_lowest_limit(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/a\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "memory.max").write_text("1048576\n")
    assert machine.total_memory(tmp_path, tmp_path) == 1 << 20


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("NVIDIA GeForce RTX 5090", "GeForce-RTX-5090"),
        ("Quadro", "Quadro"),
    ],
)
def test_the_kind_of_the_gpus_is_what_the_driver_says(tmp_path: Path, model: str, kind: str) -> None:
    assert machine.accelerator_type(tmp_path) == ""
    facts = tmp_path / "driver/nvidia/gpus/0000:00:04.0/information"
    facts.parent.mkdir(parents=True)
    facts.write_text(f"Model: \t\t {model}\nIRQ:   \t\t 37\n")
    assert machine.accelerator_type(tmp_path) == kind
