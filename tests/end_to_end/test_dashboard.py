"""The HTTP service as users start it: with a session, and by the command line."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import dashboard, dashboard_token
from tests.end_to_end.conftest import node_environment
from tests.servers import free_port, wait_until

TOKEN = "a-token-of-these-tests"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RABBITRY_DASHBOARD_TOKEN", TOKEN)
    return TOKEN


def ask(url: str, path: str = "/api/version", token: str = TOKEN) -> Any:
    request = urllib.request.Request(f"http://{url}{path}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.loads(response.read())


def answers(url: str) -> bool:
    try:
        ask(url)
    except OSError:
        return False
    return True


@pytest.fixture
def serve() -> Iterator[Any]:
    """Return a function that runs `rabbitry dashboard` with arguments; it returns process and address."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **variables: str) -> tuple[subprocess.Popen[str], str]:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "rabbitry_workers", "dashboard", "--port", str(port), *arguments],
            env={**node_environment(), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process, f"127.0.0.1:{port}"

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_session_has_a_dashboard_that_ends_with_it():
    with rabbitry.init(num_cpus=1, include_dashboard=True) as context:
        url = context.dashboard_url
        assert context.address_info["webui_url"] == url
        told = ask(url)
        assert told["ray_version"] == context.ray_version
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(url, token="another-token-than-it")
        assert caught.value.code == 403
    assert not answers(url)


@pytest.mark.long
def test_the_next_free_port_is_taken_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(dashboard, "DEFAULT_PORT", free_port())
    with socket.create_server(("127.0.0.1", dashboard.DEFAULT_PORT)):
        with pytest.raises(OSError, match=f"{dashboard.DEFAULT_PORT}: "):
            rabbitry.init(num_cpus=1, include_dashboard=True, dashboard_port=dashboard.DEFAULT_PORT)
        assert not rabbitry.is_initialized()
        with rabbitry.init(num_cpus=1, include_dashboard=True) as context:
            assert context.dashboard_url != f"127.0.0.1:{dashboard.DEFAULT_PORT}"
            assert ask(context.dashboard_url)


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "fastapi" else find(name, *rest)
    )
    with pytest.raises(ImportError, match=r"rabbitry\[dashboard\]"):
        rabbitry.init(num_cpus=1, include_dashboard=True)
    assert not rabbitry.is_initialized()


@pytest.mark.long
def test_it_ends_with_a_driver_that_is_killed():
    program = (
        "import rabbitry, sys\n"
        "print(rabbitry.init(num_cpus=1, include_dashboard=True).dashboard_url, flush=True)\n"
        "sys.stdin.read()"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", program],
        env=node_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    url = driver.stdout.readline().strip()
    assert ask(url)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not answers(url), "the dashboard is gone")


def test_the_command_line_serves_a_cluster(start_cluster, serve):
    cluster = start_cluster({"num_cpus": 1})
    process, url = serve("--address", cluster.address)
    wait_until(lambda: answers(url), "it answers", 40)
    request = urllib.request.Request(f"http://{url}/nodes", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as response:
        page = response.read().decode()
    assert "Shared memory" in page
    assert "/nodes/" + rabbitry.nodes()[0]["NodeID"] in page
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    assert f"http://{url}" in output
    assert TOKEN not in output


@pytest.mark.long
def test_no_token_is_for_this_host_alone(start_cluster, serve):
    cluster = start_cluster({"num_cpus": 1})
    _, url = serve("--address", cluster.address, "--no-token")
    wait_until(lambda: answers(url), "it answers", 40)
    with urllib.request.urlopen(f"http://{url}/api/version", timeout=20) as response:
        assert response.status == 200
    refused, _ = serve("--address", cluster.address, "--no-token", "--host", "0.0.0.0")
    output, _ = refused.communicate(timeout=40)
    assert refused.returncode == 1
    assert "can be reached from others" in output


def test_what_cannot_be_is_said_in_one_line(serve, monkeypatch, tmp_path: Path):
    nowhere, _ = serve("--address", f"unix://{tmp_path}")
    output, _ = nowhere.communicate(timeout=40)
    assert nowhere.returncode == 1
    assert output.startswith("rabbitry: cannot connect to")
    assert output.count("\n") == 1


@pytest.mark.long
def test_the_token_is_made_where_none_is_known(monkeypatch, tmp_path: Path):
    monkeypatch.delenv("RABBITRY_DASHBOARD_TOKEN")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with rabbitry.init(num_cpus=1, include_dashboard=True) as context:
        made = dashboard_token.known_token()
        assert made is not None
        assert ask(context.dashboard_url, token=made)


@pytest.mark.parametrize("module", ["nicegui", "fastapi", "uvicorn"])
def test_what_is_not_installed_is_said_in_one_line(module: str):
    program = f"import sys; sys.modules[{module!r}] = None; "
    program += "from rabbitry_workers.cli import main; sys.exit(main(['dashboard']))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=node_environment(), capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip().splitlines()[-1].endswith(f"{module} is not installed: pip install 'rabbitry[dashboard]'")
    )
