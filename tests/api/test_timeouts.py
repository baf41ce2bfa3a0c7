"""GetTimeoutError says what the objects wait for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import GetTimeoutError


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with rabbitry.init(num_cpus=1, log_to_driver=False):
        yield


@rabbitry.remote(num_cpus=0)
def after(path: str, *_: Any) -> str:
    while not Path(path).exists():
        time.sleep(0.01)
    return path


@rabbitry.remote(num_cpus=0)
class Slow:
    def after(self, path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.01)


def said(refs: Any) -> str:
    with pytest.raises(GetTimeoutError) as caught:
        rabbitry.get(refs, timeout=0.3)
    return str(caught.value)


def test_what_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "go")
    running = after.remote(path)
    parked = after.remote(path, running)
    assert said(running).endswith("1 of 1 are missing. 1 queued or running.")
    text = said([running, parked])
    assert "2 of 2 are missing" in text
    assert "1 waiting for arguments that are not there yet" in text
    actor: Any = Slow.remote()  # type: ignore[attr-defined]
    call = actor.after.remote(path)
    deadline = time.monotonic() + 20
    while "a call of an actor that is alive" not in said(call):
        assert time.monotonic() < deadline
    Path(path).touch()
    assert rabbitry.get([running, parked, call], timeout=20) == [path, path, None]


def test_what_no_node_can_run() -> None:
    ref = after.options(resources={"licence": 3}).remote("nowhere")
    text = said(ref)
    assert "needs licence=3 waits for a node that can run it: licence: 3 needed, no node has any" in text
    rabbitry.cancel(ref)


def test_a_task_s_own_timeout_is_left_alone(tmp_path: Path) -> None:
    @rabbitry.remote(max_retries=0, num_cpus=0)
    def fail() -> None:
        raise GetTimeoutError("of its own")

    waits = after.remote(str(tmp_path / "go"))
    with pytest.raises(GetTimeoutError, match="of its own") as caught:
        rabbitry.get([fail.remote(), waits], timeout=20)
    assert "queued or running" not in str(caught.value)
    (tmp_path / "go").touch()
    rabbitry.get(waits, timeout=20)
