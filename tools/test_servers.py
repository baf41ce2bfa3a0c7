"""Make sure that the tests find Redis and RabbitMQ, then run a command: `python tools/test_servers.py pytest ...`.

In this order: servers that `RABBITRY_TEST_REDIS_URL` and `RABBITRY_TEST_AMQP_URL` name; binaries on this machine, of
which the tests start their own servers; binaries that apt-get installs (as root on Debian or Ubuntu); containers, if a
Docker engine answers, which are removed when the command ends. If none is possible, say what to do.

`--check` in place of a command starts and installs nothing: it says at once if all of this is bound to fail. It needs
nothing but Python, so that `make test` can ask before it installs what takes minutes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.server_binaries import (  # noqa: E402
    AMQP_URL_VARIABLE,
    REDIS_URL_VARIABLE,
    find_rabbitmq_directory,
    find_redis_server,
)

COMPOSE_FILE = ROOT / "tools" / "test-servers.compose.yml"
APT_TIMEOUT = 600  # seconds for one apt-get command
ENGINE_TIMEOUT = 10  # seconds for a Docker engine to answer
CONTAINERS_TIMEOUT = 300  # seconds until containers are pulled and healthy

ADVICE = f"""\
The tests need real servers, and this machine lacks: {{missing}}.
Any one of these helps:
  Debian, Ubuntu   sudo apt-get install redis-server rabbitmq-server
  macOS            brew install redis rabbitmq
  containers       start a Docker engine that has 'docker compose'
  running servers  {REDIS_URL_VARIABLE}=redis://...  {AMQP_URL_VARIABLE}=amqp://user:password@host/vhost
"""


def main(command: Sequence[str]) -> int:
    """Run a command with servers at hand; return its exit code, or 1 if there are none."""
    if list(command) == ["--check"]:
        return check()
    missing = missing_packages()
    if missing or missing_tools():
        install_packages([*missing, *missing_tools()])
        missing = missing_packages()
    if not missing:
        os.execvp(
            command[0], command
        )  # it takes the place of this process, and so gets the signals that are meant for it
    if not docker_answers():
        print(ADVICE.format(missing=", ".join(missing)), file=sys.stderr)
        return 1
    return run_beside_containers(command)


def check() -> int:
    """Return 0 if there are servers or a way to them, else say what to do and return 1."""
    missing = missing_packages()
    if not missing or may_install() or docker_answers():
        return 0
    print(ADVICE.format(missing=", ".join(missing)), file=sys.stderr)
    return 1


def may_install() -> bool:
    """Return True for root on a machine with apt-get."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def missing_packages() -> list[str]:
    """Return the Debian names of the servers for which there is neither a binary nor an address."""
    available = {
        "redis-server": os.environ.get(REDIS_URL_VARIABLE) or find_redis_server(),
        "rabbitmq-server": os.environ.get(AMQP_URL_VARIABLE) or find_rabbitmq_directory(),
    }
    return [package for package, found in available.items() if not found]


def missing_tools() -> list[str]:
    """Return the Debian names of tools that some tests need and skip without: clocks that are wrong, certificates."""
    available = {
        "libfaketime": next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None),
        "openssl": shutil.which("openssl"),
    }
    return [package for package, found in available.items() if not found]


def install_packages(packages: Sequence[str]) -> None:
    """Install packages by apt-get if this is root on Debian or Ubuntu; try once more if it fails, then tell why."""
    if not may_install():
        return
    print(f"installing {' and '.join(packages)} by apt-get", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--quiet", "--quiet", "--yes", "--no-install-recommends", *packages]
    output = ""
    for _ in range(2):  # Mirrors fail now and then, and a package that is half installed is completed.
        for step in (["apt-get", "update", "--quiet", "--quiet"], install):
            try:
                done = subprocess.run(
                    step,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=APT_TIMEOUT,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                output = f"{' '.join(step)} did not end within {APT_TIMEOUT} s"
                break
            output = done.stdout
            # A package list that cannot be refreshed may still be good enough to install from.
        if not set(packages) & {*missing_packages(), *missing_tools()}:
            return
    print(output[-3000:], file=sys.stderr)


def docker_answers() -> bool:
    """Return True if there is a Docker engine, with Compose v2."""
    if not shutil.which("docker"):
        return False
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, timeout=ENGINE_TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            return False
        if done.returncode != 0:
            return False
    return True


def run_beside_containers(command: Sequence[str]) -> int:
    """Run a command while containers serve Redis and RabbitMQ; return its exit code."""
    password = secrets.token_hex(16)
    environment = {**os.environ, "RABBITRY_TEST_PASSWORD": password}
    compose = ["docker", "compose", "--project-name", f"rabbitry-test-{os.getpid()}", "--file", str(COMPOSE_FILE)]

    def address(service: str, port: int) -> str:
        shown = subprocess.run(
            [*compose, "port", service, str(port)], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return shown.stdout.strip()

    print("starting Redis and RabbitMQ in containers", flush=True)
    try:
        subprocess.run(
            [*compose, "up", "--detach", "--wait", "--quiet-pull"],
            env=environment,
            check=True,
            timeout=CONTAINERS_TIMEOUT,
        )
        servers = {
            REDIS_URL_VARIABLE: f"redis://:{password}@{address('redis', 6379)}/0",
            AMQP_URL_VARIABLE: f"amqp://tester:{password}@{address('rabbitmq', 5672)}/tests",
        }
        return subprocess.call(command, env={**os.environ, **servers})
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"containers for the tests did not start: {error}", file=sys.stderr)
        return 1
    finally:
        subprocess.run([*compose, "down", "--volumes"], env=environment, capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
