"""Whatever the protocol of the queues promises, the contract asks of every engine."""

from __future__ import annotations

import re
from pathlib import Path

from rabbitry_broker.queues.protocol import Consumer, Publisher


def test_each_method_of_the_protocol_is_called_by_the_contract() -> None:
    contract = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*queues.py"))
    promised = {name for part in (Publisher, Consumer) for name in vars(part) if callable(vars(part)[name])}
    untested = {name for name in promised if name[0] != "_" and not re.search(rf"\.{name}\(", contract)}
    assert not untested
