"""Genuine messages that somebody recorded and sends again, as SECURITY.md says who can write to the servers may."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry_broker.errors import ReplyTimeout
from rabbitry_broker.messages import Completion, encode_completion
from rabbitry_broker.queues import open_publisher
from tests.chaos.stage import Stage
from tests.chaos.workload import Counter, Echo, plain
from tests.servers import wait_until


class Recorder:
    """Stands in for a publisher, and keeps what it sends."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self.sent: list[tuple[str, bytes]] = []

    def publish(self, queue: str, body: bytes, **options: Any) -> None:
        """Send a message."""
        self.sent.append((queue, body))
        self._publisher.publish(queue, body, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)


@rabbitry.remote
def slow() -> None:
    """Be there to be cancelled."""
    time.sleep(60)


@pytest.mark.in_every_run
def test_what_is_sent_again_changes_no_result_and_nothing_that_counts_once(stage: Stage, tmp_path: Path):
    client = current.client()
    store, keys = client.store, client.keys
    path = str(tmp_path / "effects")
    outbox: Any = client.outbox
    publisher = outbox._publisher
    recorder = outbox._publisher = Recorder(publisher)
    completions: list[Completion] = []
    accept = client.inbox.accept

    def accepted(completion: Completion) -> None:
        completions.append(completion)
        accept(completion)

    client.inbox.accept = accepted  # type: ignore[method-assign]
    control = store.open_connection("recorder")
    control.call(b"SUBSCRIBE", keys.control_channel)
    echo, counter, victim = Echo.remote(path), Counter.remote(), Echo.remote(path)
    refs = [
        plain.remote(path, "plain", 1),
        plain.options(max_retries=0).remote(path, "once", 2),
        echo.say.remote("said", 3),
        *[counter.increment.remote() for _ in range(3)],
    ]
    results = rabbitry.get(refs, timeout=20)
    assert rabbitry.get(victim.say.remote("victim", 0), timeout=20) == 0
    outbox._publisher = publisher  # what sleeps would only keep CPUs, sent again
    sleeper = slow.remote()
    rabbitry.wait([sleeper], timeout=0.5)
    rabbitry.cancel(sleeper, force=True)
    rabbitry.kill(victim)
    with pytest.raises((rabbitry.exceptions.TaskCancelledError, rabbitry.exceptions.WorkerCrashedError)):
        rabbitry.get(sleeper, timeout=20)
    messages = []
    try:
        while True:
            message = control.read(0.5)
            if message[0] == b"message":
                messages.append(message[2])
    except ReplyTimeout:
        control.close()
    client.inbox.accept = accept  # type: ignore[method-assign]
    assert recorder.sent, "nothing was recorded"
    assert completions, "no completion was recorded"
    assert len(messages) >= 2, "cancel and kill were not heard"
    before = store.call(b"GET", keys.put_aside + b":count")

    stranger = open_publisher(client.endpoint, name="stranger")
    for _ in range(2):
        for queue, body in recorder.sent:
            stranger.publish(queue, body)
        for completion in list(completions):
            store.call(b"RPUSH", keys.inbox(client.id), encode_completion(client.signer, client.id, completion))
        for data in messages:
            store.call(b"PUBLISH", keys.control_channel, data)
    assert stranger.flush(10)
    stranger.close()

    assert rabbitry.get(counter.increment.remote(), timeout=20) == 4
    assert rabbitry.get(echo.say.remote("later", 5), timeout=20) == 5
    assert rabbitry.get(plain.remote(path, "probe", 1), timeout=20) == 4
    wait_until(lambda: not store.call(b"LRANGE", keys.inbox(client.id), 0, 0) or client.inbox.drain(), "all is read")
    assert rabbitry.get(refs, timeout=5) == results
    notes = Path(path).read_text().split()
    assert notes.count("once") == notes.count("said") == 1
    assert store.call(b"GET", keys.put_aside + b":count") == before, "genuine messages were put aside"
    assert "Traceback" not in stage.logs()
    store.call(b"UNLINK", keys.cancelled)  # it is kept for an hour
