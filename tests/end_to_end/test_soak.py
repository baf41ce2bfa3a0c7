"""A short soak; `make soak` runs a long one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.end_to_end import memory
from tests.end_to_end.soak import Length, Soak
from tests.servers import RabbitMQServer


@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore:num_returns='dynamic':DeprecationWarning")
def test_nothing_is_left_but_what_live_refs_hold(session: str, request: pytest.FixtureRequest) -> None:
    soak = Soak(seed=1, detached=False)
    if session == "rabbitmq":
        server: RabbitMQServer = request.getfixturevalue("rabbitmq_server")
        vhost = os.environ["RABBITRY_BROKER_URL"].rpartition("/")[2]
        soak = Soak(seed=1, address="auto", queues=lambda: server.queues(vhost), detached=False)
    soak.run(Length(1_200), kill_every=150, report_every=300)


GROWING = """
import sys
kept = []
for line in sys.stdin:
    kept.append(bytearray(int(line)))
    print(flush=True)
"""


def test_memory_that_grows_is_told_of_and_what_stays_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LEAST_SECONDS", 0.0)
    looked = memory.Memory()
    with ended(GROWING) as growing, ended(GROWING) as flat:
        for size in (0, 0, 0, 0, 2 * memory.MAY_GROW_BY, 0):
            ask(growing, size)
            ask(flat, memory.MAY_GROW_BY // 16)
            looked.look()
        assert [name.endswith(f"({growing.pid})") for name in looked.grown()] == [True]
        assert any(name.endswith(f"({flat.pid})") for name, _, _ in looked.lasting())


@contextlib.contextmanager
def ended(program: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def ask(process: subprocess.Popen[str], size: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{size}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "\n"
