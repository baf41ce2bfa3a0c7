"""Progress bars over refs: what is yielded, and who sees a bar."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import rabbitry
from rabbitry.util import progress

ROOTS = [str(Path(__file__).parents[2] / root) for root in ("broker", "api", "workers")]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with rabbitry.init(num_cpus=2, log_to_driver=False):
        yield


@rabbitry.remote
def give(x: int) -> int:
    return x


@rabbitry.remote(num_cpus=0)
def after(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return path


@rabbitry.remote(max_retries=0)
def fail() -> None:
    raise ValueError("no")


@rabbitry.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@pytest.mark.parametrize("number", [0, 1, 50, 1200])
def test_every_ref_is_yielded_once(number: int) -> None:
    refs = [give.remote(i) for i in range(number)]
    done = list(progress(refs))
    assert sorted(rabbitry.get(done)) == list(range(number))


def test_refs_come_as_they_become_ready(tmp_path: Path) -> None:
    slow = after.remote(str(tmp_path / "go"))
    quick = give.remote(1)
    bar = progress([slow, quick])
    assert next(bar) == quick
    (tmp_path / "go").touch()
    assert list(bar) == [slow]


def test_above_few_refs_a_slow_one_does_not_hold_up_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[progress.__module__], "FEW", 3)
    slow = after.remote(str(tmp_path / "go"))
    others = [give.remote(i) for i in range(9)]
    bar = progress([slow, *others])
    assert {next(bar) for _ in others} == set(others)
    (tmp_path / "go").touch()
    assert list(bar) == [slow]


def test_a_failed_task_is_ready() -> None:
    (ref,) = progress([fail.remote()])
    with pytest.raises(ValueError, match="no"):
        rabbitry.get(ref)


def test_a_stream_is_followed() -> None:
    assert [rabbitry.get(ref) for ref in progress(count.remote(5))] == list(range(5))


def test_what_is_no_list_of_refs_is_refused() -> None:
    ref = give.remote(1)
    with pytest.raises(ValueError, match="unique"):
        list(progress([ref, ref]))
    with pytest.raises(TypeError):
        list(progress([1]))  # type: ignore[list-item]


def test_there_is_no_bar_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    list(progress([give.remote(1)]))
    assert rabbitry.get([give.remote(2)], progress=True) == [2]
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_the_bar() -> None:
    program = textwrap.dedent(
        """
        import rabbitry
        from rabbitry.util import progress

        @rabbitry.remote
        def give(x):
            return x

        with rabbitry.init(num_cpus=1):
            for ref in progress([give.remote(i) for i in range(3)], desc="giving", unit="gift"):
                rabbitry.get(ref)
            print(rabbitry.get([give.remote(4)], progress=True))
        """
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS), "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how Linux tells the end of a terminal
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, b"[4]\n")
    text = shown.decode()
    assert "giving: 100%" in text
    assert "3/3" in text
    assert "gift" in text
    assert "1/1" in text
