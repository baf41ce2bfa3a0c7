"""Passwords and secrets: not in logs, process lists, errors or reprs; files of this user alone; secrets change."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import rabbitry
from rabbitry.cluster_utils import Cluster
from rabbitry_broker.settings import Settings
from rabbitry_broker.signing import Signer
from tests.processes import MARKER_VARIABLE, find_processes
from tests.servers import RabbitMQServer, RedisServer, wait_until

REDIS_PASSWORD = "rosebud-9f31c7"


@rabbitry.remote
def large():
    return b"x" * 500_000


@rabbitry.remote
def large_size(value):
    return len(value)


@rabbitry.remote(num_cpus=0)
class Keeper:
    def keep(self, value):
        return value


def command_lines() -> str:
    """Return the command lines of all processes of this test session."""
    return "\n".join(find_processes(os.environ[MARKER_VARIABLE]).values())


def test_passwords_are_nowhere_to_be_read(
    start_redis: Callable[..., RedisServer], rabbitmq_server: RabbitMQServer, capfd: pytest.CaptureFixture[str]
):
    redis = start_redis(password=REDIS_PASSWORD)
    vhost = f"secret-{secrets.token_hex(4)}"
    broker_url = rabbitmq_server.add_vhost(vhost)
    try:
        with Cluster(engine="rabbitmq", broker_url=broker_url, store_url=redis.url) as cluster:
            node = cluster.add_node(num_cpus=1)
            context = cluster.connect(log_to_driver=False)
            assert len(rabbitry.get(large.remote(), timeout=30)) == 500_000
            shown = command_lines() + repr(cluster) + repr(context) + repr(node) + node.log.read_text()
            endpoint = cluster._endpoint
            shown += repr(endpoint) + str(endpoint) + repr(Signer(endpoint.secrets))
            status = subprocess.run(
                [sys.executable, "-m", "rabbitry_workers", "status", "--address", cluster.address],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            shown += status.stdout + status.stderr
            hidden = [REDIS_PASSWORD, rabbitmq_server.password, endpoint.secrets[0].hex()]
            with redis.client() as client:
                client.config_set("requirepass", "changed-meanwhile")
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                try:
                    time.sleep(1.5)  # the node tries to come back, and logs why it cannot
                finally:
                    client.config_set("requirepass", REDIS_PASSWORD)
            shown += node.log.read_text()
    finally:
        rabbitmq_server.delete_vhost(vhost)
    captured = capfd.readouterr()
    shown += captured.out + captured.err
    assert "rabbitry" in shown
    for each in hidden:
        assert each not in shown


def test_settings_show_neither_passwords_nor_secrets():
    settings = Settings(
        broker_url="amqp://ada:pass-one@mq/jobs", store_url="redis://:pass-two@cache", secrets=("0123456789abcdef",)
    )
    shown = repr(settings) + str(settings) + repr(settings.endpoint())
    for hidden in ("pass-one", "pass-two", "0123456789abcdef"):
        assert hidden not in shown


def test_the_embedded_engine_is_for_its_user_alone():
    rabbitry.init(num_cpus=1)
    try:
        assert len(rabbitry.get(large.remote(), timeout=30)) == 500_000
        directories = {Path(line) for line in _sockets_of_session()}
        assert directories, "no unix socket of the embedded engine found"
        for path in directories:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{path} is open to others"
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            for each in path.parent.iterdir():
                assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, f"{each} is open to others"
        for path in Path("/dev/shm").glob("rabbitry-*"):
            if path.stat().st_uid == os.getuid():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        rabbitry.shutdown()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, to become somebody else")
def test_another_user_reaches_nothing_of_the_embedded_engine():
    """Also where the directory for temporary files is everybody's, and the umask takes nothing away."""
    shared = Path(os.environ["TMPDIR"]) / "everybodys"
    shared.mkdir()
    shared.chmod(0o1777)
    parents = [each for each in shared.parents if each.stat().st_uid == 0 and not each.stat().st_mode & 0o001]
    with pytest.MonkeyPatch.context() as patch:
        for each in parents:  # so that only rabbitry's own directory keeps others out
            each.chmod(each.stat().st_mode | 0o001)
        patch.setenv("TMPDIR", str(shared))
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        patch.setattr("tempfile.tempdir", None)
        umask = os.umask(0)
        try:
            rabbitry.init(num_cpus=1)
            value = rabbitry.get(large.remote(), timeout=30)
            assert len(value) == 500_000
            sockets = [path for path in _sockets_of_session() if "everybodys" in path]
            assert sockets, "no unix socket of the embedded engine found"
            python = shutil.which("python3", path="/usr/bin") or sys.executable  # ours may lie in a home of its own
            for path in sockets:
                connect = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
                assert "PermissionError" in as_nobody(python, "-c", connect)
            files = [*Path("/dev/shm").glob("rabbitry-*"), *shared.glob("rabbitry-*/*")]
            assert len(files) > 2
            for file in files:
                complaint = as_nobody("head", "-c1", str(file))
                assert "Permission denied" in complaint or not file.exists(), f"{file} can be read"
        finally:
            os.umask(umask)
            rabbitry.shutdown()
            for each in parents:
                each.chmod(each.stat().st_mode & ~0o001)
            shutil.rmtree(shared)


def as_nobody(*command: str) -> str:
    """Run a command as another user; return what it complains of."""
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run([*become, *command], capture_output=True, text=True, cwd="/", timeout=20, check=False)
    return done.stderr


def _sockets_of_session() -> list[str]:
    """Return the unix sockets that rabbitry processes of this session listen on."""
    inherited = os.environ["TMPDIR"]
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    paths = {line.split()[-1] for line in lines if "/" in line.split()[-1]}
    return [path for path in paths if path.startswith(inherited) and Path(path).exists()]


@pytest.mark.long
@pytest.mark.timeout(120)
def test_the_secret_changes_while_work_goes_on(redis_server: RedisServer, rabbitmq_server: RabbitMQServer):
    """The three steps of docs/security.md, nodes and drivers one after the other: at no moment is anything refused."""
    vhost = f"rotate-{secrets.token_hex(4)}"
    old, new = secrets.token_hex(16), secrets.token_hex(16)
    variables = {
        "RABBITRY_BROKER_URL": rabbitmq_server.add_vhost(vhost),
        "RABBITRY_STORE_URL": redis_server.url,
        "RABBITRY_PREFIX": f"{vhost}:",
    }
    path = os.pathsep.join(path for path in sys.path if path)
    nodes: list[subprocess.Popen[bytes]] = []

    def start_node(secret: str) -> None:
        environment = {**os.environ, **variables, "RABBITRY_SECRET": secret, "PYTHONPATH": path}
        command = [sys.executable, "-m", "rabbitry_workers", "start", "--num-cpus=1"]
        nodes.append(subprocess.Popen(command, env=environment))

    def stop_oldest_node() -> None:
        node = nodes.pop(0)
        node.terminate()
        node.wait(20)

    def work() -> None:
        wait_until(lambda: rabbitry.cluster_resources().get("CPU") == len(nodes), "the nodes are there", timeout=30)
        assert rabbitry.get([large_size.remote(large.remote()) for _ in range(8)], timeout=30) == [500_000] * 8
        assert rabbitry.get(Keeper.remote().keep.remote("kept"), timeout=30) == "kept"

    def put_aside() -> object:
        with redis_server.client() as client:
            return client.get(f"{vhost}:put-aside:count")

    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            start_node(old)
            patch.setenv("RABBITRY_SECRET", old)
            rabbitry.init(address="auto", log_to_driver=False)
            work()
            for secret in (f"{old},{new}", f"{new},{old}", new):
                start_node(secret)
                work()  # the driver and one node are a step behind
                rabbitry.shutdown()
                patch.setenv("RABBITRY_SECRET", secret)
                rabbitry.init(address="auto", log_to_driver=False)
                work()  # one node is a step behind
                stop_oldest_node()
                work()
            assert put_aside() is None
        finally:
            rabbitry.shutdown()
            while nodes:
                stop_oldest_node()
            rabbitmq_server.delete_vhost(vhost)
            with redis_server.client() as client:
                for key in client.scan_iter(f"{vhost}:*"):
                    client.delete(key)


def test_a_password_on_the_command_line_is_warned_of_and_not_shown():
    shown = subprocess.run(
        [
            sys.executable,
            "-m",
            "rabbitry_workers",
            "start",
            "--address",
            f"amqp://ada:{REDIS_PASSWORD}@127.0.0.1:1/jobs",
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "RABBITRY_STORE_URL": f"redis://:{REDIS_PASSWORD}@127.0.0.1:1",
            "RABBITRY_SECRET": REDIS_PASSWORD * 2,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert shown.returncode == 1
    assert "nothing is listening there" in shown.stderr
    assert "RABBITRY_BROKER_URL" in shown.stderr, "a password on the command line is worth a warning"
    assert REDIS_PASSWORD not in shown.stdout + shown.stderr


def test_a_broken_setting_is_named_without_its_value():
    for broken in (
        {"broker_url": "amqp://ada:pass/one@mq:port/jobs"},
        {"store_url": "redis://:pass-one@cache:port"},
        {"secrets": ("pass-one",)},
        {"spill_url": 17},
    ):
        good = {"broker_url": "amqp://mq", "store_url": "redis://cache", "secrets": ("0123456789abcdef",)}
        with pytest.raises(ValueError) as caught:
            Settings(**{**good, **broken})  # type: ignore[arg-type]
        assert "pass-one" not in f"{caught.value} {caught.value!r}"
        assert "pass/one" not in f"{caught.value} {caught.value!r}"
