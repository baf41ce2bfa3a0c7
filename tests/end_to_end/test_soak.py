"""A short soak; `make soak` runs a long one."""

from __future__ import annotations

import os

import pytest

from tests.end_to_end.soak import Soak
from tests.servers import RabbitMQServer


@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore:num_returns='dynamic':DeprecationWarning")
def test_nothing_is_left_but_what_live_refs_hold(session: str, request: pytest.FixtureRequest) -> None:
    soak = Soak(seed=1, detached=False)
    if session == "rabbitmq":
        server: RabbitMQServer = request.getfixturevalue("rabbitmq_server")
        vhost = os.environ["RABBITRY_BROKER_URL"].rpartition("/")[2]
        soak = Soak(seed=1, address="auto", queues=lambda: server.queues(vhost), detached=False)
    soak.run(1_200, kill_every=150, report_every=300)
