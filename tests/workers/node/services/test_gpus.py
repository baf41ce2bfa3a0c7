"""How busy GPUs are, with a stand-in for `nvidia-smi`: a program that prints what the real one would."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rabbitry_broker.loop import Loop
from rabbitry_workers.node.services.gpus import AGAIN_SECONDS, LOOK_SECONDS, MIB, GpuWatch
from tests.workers.node.fakes import World

A, B = "GPU-aaaa-1", "GPU-bbbb-2"
TWO = f"0, {A}, NVIDIA A100-SXM4-40GB, 37, 1024, 40960\n1, {B}, NVIDIA A100-SXM4-40GB, [N/A], [N/A], [N/A]\n"


@pytest.fixture
def world() -> World:
    world = World()
    world.node.config.totals["GPU"] = 2.0
    return world


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Any]:
    """Make a program that prints a text, notes how it was called, and then waits for its end."""

    def make(text: str, then: str = "time.sleep(600)") -> Any:
        path = tmp_path / "nvidia-smi"
        path.write_text(
            f"#!{sys.executable}\nimport sys, time\n"
            f"open({str(tmp_path / 'called')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            f"sys.stdout.write({text!r})\nsys.stdout.flush()\n{then}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return lambda name: str(path)

    return make


@pytest.fixture
def watches() -> Iterator[list[GpuWatch]]:
    made: list[GpuWatch] = []
    yield made
    for watch in made:
        child = watch._child
        watch.close()
        if child is not None:
            child.wait(20)


def read(world: World, watch: GpuWatch, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        for fd, handler in list(world.loop.handlers.items()):
            handler(fd, Loop.READ)
        time.sleep(0.01)


def test_each_gpu_says_how_busy_it_is(world: World, program: Any, watches: list[GpuWatch], tmp_path: Path) -> None:
    watch = GpuWatch(world.node, which=program(TWO))
    watches.append(watch)
    watch.start()
    read(world, watch, lambda: len(watch.read()) == 2)
    assert watch.read() == [
        ("GPU 0 (NVIDIA A100-SXM4-40GB)", 0.37, 1024 * MIB, 40960 * MIB),
        ("GPU 1 (NVIDIA A100-SXM4-40GB)", None, None, None),
    ]
    assert f"--loop={LOOK_SECONDS}" in (tmp_path / "called").read_text()


def test_only_gpus_of_the_node_count(
    world: World, program: Any, watches: list[GpuWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    for visible in ("0", "GPU-aaaa"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        watch = GpuWatch(world.node, which=program(TWO))
        watches.append(watch)
        watch.start()
        read(world, watch, lambda watch=watch: bool(watch.read()))  # type: ignore[misc]
        assert [name for name, *_ in watch.read()] == ["GPU 0 (NVIDIA A100-SXM4-40GB)"]


def test_a_program_that_ends_is_started_again_and_what_it_said_counts_no_more(
    world: World, program: Any, watches: list[GpuWatch], tmp_path: Path
) -> None:
    watch = GpuWatch(world.node, which=program("NVIDIA-SMI has failed\n" + TWO, then=""))
    watches.append(watch)
    watch.start()
    first: Any = watch._child
    read(world, watch, lambda: watch._fd < 0)
    assert watch.read() == [] and not world.loop.handlers
    first.wait(20)
    world.loop.run(AGAIN_SECONDS + 1)
    read(world, watch, lambda: (tmp_path / "called").read_text().count("\n") == 2)
    assert watch._child is not first


def test_a_node_leaves_no_child_behind(world: World, program: Any) -> None:
    watch = GpuWatch(world.node, which=program(TWO))
    watch.start()
    child: Any = watch._child
    watch.close()
    assert child.wait(20) != 0 and not world.loop.handlers


def test_nothing_is_started_without_gpus_or_without_the_program(program: Any, world: World) -> None:
    def start(command: Any) -> subprocess.Popen[bytes]:
        raise AssertionError(command)

    plain = World()
    GpuWatch(plain.node, which=program(TWO), start=start).start()
    assert not plain.loop.pending
    watch = GpuWatch(world.node, which=lambda name: None, start=start)
    watch.start()
    world.loop.run(AGAIN_SECONDS + 1)
    assert watch.read() == []


def test_a_program_that_cannot_be_started_is_told_and_stops_nothing(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = GpuWatch(world.node, which=lambda name: os.fspath(tmp_path / "none"))
    watch.start()
    assert watch.read() == [] and "GPUs" in caplog.text
    watch.close()
