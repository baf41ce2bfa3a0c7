"""What all tests of fuzzing share."""

from __future__ import annotations

import pytest

from tests.fuzz.engines import Embedded, Engine, RabbitMQ


@pytest.fixture(params=["embedded", "rabbitmq"])
def fuzz_engine(request: pytest.FixtureRequest) -> Engine:
    """Both engines."""
    if request.param == "embedded":
        return Embedded()
    servers = {
        "RABBITRY_BROKER_URL": request.getfixturevalue("rabbitmq_server").url,
        "RABBITRY_STORE_URL": request.getfixturevalue("redis_server").url,
    }
    return RabbitMQ(servers)
