"""What `make up` says at its end."""

from __future__ import annotations

from pathlib import Path

from tools.how_to_connect import how_to_connect
from tools.make_env import env_text

EXAMPLE = (Path(__file__).resolve().parent.parent.parent / ".env.example").read_text()


def test_it_names_the_ports_of_the_env_and_shows_no_secret() -> None:
    env = env_text(EXAMPLE, {"RABBITMQ_MANAGEMENT_PORT": "15999", "PYTHON_IMAGE": "python:3.12.3-slim"})
    shown = how_to_connect(env, 4)
    assert "http://localhost:15999/" in shown
    assert "4 nodes" in shown
    assert "Python 3.12" in shown
    passwords = [
        line.partition("=")[2]
        for line in env.splitlines()
        if line.startswith(("RABBITMQ_PASSWORD=", "RABBITRY_SECRET=", "RABBITRY_DASHBOARD_TOKEN="))
    ]
    assert len(passwords) == 3
    assert not any(password in shown for password in passwords)


def test_one_node_is_one() -> None:
    assert "and one node." in how_to_connect(EXAMPLE, 1)
