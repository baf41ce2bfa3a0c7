"""Drivers that end abruptly leave nothing behind, and what may run once only has run once at most."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.driver_ends import AT_ONCE, _files, _processes, once, run_ends
from tests.fuzz.engines import ROOT, Embedded, RabbitMQ
from tests.fuzz.generate import generate


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, since there will be a socket in it."""
    with tempfile.TemporaryDirectory(prefix="fuzz-ends-") as path:
        yield Path(path)


@pytest.mark.timeout(200)
def test_a_killed_driver_leaves_nothing_of_its_session() -> None:
    with Embedded() as engine:
        wrong = run_ends(engine, range(6))
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(200)
def test_a_cluster_goes_on_without_its_drivers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = {
        "RABBITRY_BROKER_URL": request.getfixturevalue("rabbitmq_server").url,
        "RABBITRY_STORE_URL": request.getfixturevalue("redis_server").url,
    }
    monkeypatch.setenv("FUZZ_DRIVERS", str(AT_ONCE))
    with RabbitMQ(servers) as engine:
        wrong = run_ends(engine, range(100, 108))
    assert not wrong, "\n".join(wrong)


def test_what_a_session_has_is_found(directory: Path) -> None:
    script = "import rabbitry, sys; rabbitry.init(num_cpus=1); print('there', flush=True); sys.stdin.read()"
    with Embedded() as engine:
        environment = {**engine.environment(), "FUZZ_DIRECTORY": str(directory), "TMPDIR": str(directory)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as session:
        assert session.stdout is not None and session.stdin is not None
        assert session.stdout.readline() == b"there\n"
        assert len(_processes(f"FUZZ_DIRECTORY={directory}".encode())) >= 4  # driver, supervisor, Redis, agent
        assert _files(str(directory))
        session.stdin.close()
        session.wait(30)
    assert not _files(str(directory))
    assert not _processes(f"FUZZ_DIRECTORY={os.sep}nowhere".encode())


def test_some_tasks_may_run_once_only() -> None:
    assert any(once(generate(seed)) for seed in range(6))
