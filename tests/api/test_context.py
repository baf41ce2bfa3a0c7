"""What `init` returns is a session, and for older programs a mapping."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.context import RabbitryContext


@pytest.fixture
def context() -> RabbitryContext:
    client: Any = SimpleNamespace(
        endpoint=SimpleNamespace(store_url="redis://:secret@host:6379/0", broker_url="amqp://me:secret@host/v"),
        home_node=lambda: b"n" * 28,
    )
    return RabbitryContext(client, None)


def test_it_is_a_mapping_of_its_addresses(context: RabbitryContext) -> None:
    with pytest.warns(DeprecationWarning, match="address_info"):
        assert context["address"] == context.address_info["address"]
    with pytest.warns(DeprecationWarning, match="address_info"):
        assert dict(context) == context.address_info
    assert "secret" not in str(context.address_info)
    assert "secret" not in repr(context)
    assert ("address" in context.address_info, "bogus" in context.address_info) == (True, False)
    assert (len(context), sorted(context)) == (11, sorted(context.address_info))
    assert context.get("bogus", 5) == 5
    with pytest.raises(KeyError):
        context["bogus"]


def test_it_is_itself_alone(context: RabbitryContext) -> None:
    assert context == context
    assert context != context.address_info
    assert context in {context}
    assert (context.dashboard_url, context.python_version[0]) == ("", "3")
