"""What the template does once so that no executor has to: code that has run is quicker, and shares its memory.

Python rewrites functions as they run (it specialises their instructions, fills caches in types and modules). In a
forked child each first time costs a copy of a page; what has happened in the template is there for all children.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from rabbitry.client import Client
from rabbitry.core.ports import Executing
from rabbitry.runtime_context import current_group
from rabbitry_broker import parent_death
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import CLIENT_BYTES, JOB_BYTES
from rabbitry_broker.store import scripts
from rabbitry_workers.executor.interrupts import Interrupts
from rabbitry_workers.executor.publisher import AgentPublisher

TIMES: Final = 10
"""Python (3.11) rewrites a function at its eighth call."""


class _NoChannel:
    """The channel of a client that never sends anything."""

    def send(self, message: Any) -> NoReturn:
        raise AssertionError(f"nothing is sent while the template gets warm: {message!r}")


def warm() -> None:
    """Make and drop clients as executors do. They connect to nothing, start no thread and leave nothing open."""
    for _ in range(TIMES):
        _client().close()
    parent_death.prctl()
    scripts.read_all()


def _client() -> Client:
    endpoint = Endpoint(store_url="redis://nowhere", broker_url="amqp://nowhere", secrets=(bytes(32),), prefix="none:")
    return Client(
        endpoint,
        AgentPublisher(_NoChannel()),  # type: ignore[arg-type]
        client_id=bytes(CLIENT_BYTES),
        job=bytes(JOB_BYTES),
        detached_id=bytes(CLIENT_BYTES),
        namespace="",
        driver=True,
        executing=Executing(lambda: None, lambda _: None, lambda: None, Interrupts(), current_group),
    )
