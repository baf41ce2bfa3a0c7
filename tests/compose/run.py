"""Bring the cluster of docker-compose.yml up, work on it from this host, scale it and restart its servers meanwhile.

    python -m tests.compose.run [--compose "docker compose"] [--keep]

It uses a project name, a `.env` and ports of its own, so a cluster that runs already is left alone. Environment
variables with names from `.env.example` (such as WARREN_BUILD_NETWORK=host) change the cluster it makes.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import warren
from tools.make_env import EXAMPLE, ROOT, write_env

PROJECT = "warren-compose-test"
UP_SECONDS = 240.0
STEP_SECONDS = 120.0
INCREMENTS = 3_000
CALLERS = 4


class Compose:
    """One Compose project."""

    def __init__(self, command: str, env_file: Path) -> None:
        self._command = [*shlex.split(command), "--project-name", PROJECT, "--env-file", str(env_file)]
        # What the caller exported for drivers must not win over this project's file.
        self._environment = {
            name: value for name, value in os.environ.items() if not re.search(rf"^{name}=", EXAMPLE.read_text(), re.M)
        }

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run a command; return what it printed."""
        done = subprocess.run(
            [*self._command, *arguments], cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise SystemExit(f"compose {' '.join(arguments)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def scale(self, workers: int) -> None:
        """Have that many nodes; servers and other nodes are left alone."""
        self("up", "--detach", "--no-recreate", "--scale", f"worker={workers}")

    def container(self, service: str) -> str:
        """Return the id of a service's first container."""
        return self("ps", "--quiet", service).split()[0]


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on."""
    import socket

    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def settle(condition: Callable[[], object], what: str, seconds: float = STEP_SECONDS) -> float:
    """Wait until a condition holds; return how long it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise SystemExit(f"FAILED: not within {seconds:g} s: {what}")
        time.sleep(0.25)
    return time.monotonic() - started


def say(text: str) -> None:
    """Print a finding with the time since the start."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


STARTED = time.monotonic()


@warren.remote
def work(number: int, seconds: float) -> int:
    """A task of some length."""
    time.sleep(seconds)
    return number


@warren.remote
def link(value: int) -> int:
    """One link of a chain."""
    time.sleep(0.02)
    return value + 1


@warren.remote(durable=True, max_restarts=-1, max_task_retries=-1, num_cpus=0)
class Counter:
    """Counts, through anything."""

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> int:
        """Count one more; return how many there are."""
        self.value += 1
        return self.value


def nodes() -> int:
    """Return how many nodes are alive."""
    return sum(bool(node["Alive"]) for node in warren.nodes())


def demo(environment: dict[str, str]) -> None:
    """Run the demo against the cluster."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "examples/stdlib_census.py", "auto"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"FAILED: the demo:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    say(f"the demo ran on the cluster in {time.monotonic() - started:.1f} s; it ends with:")
    print("    " + "\n    ".join(done.stdout.strip().splitlines()[-3:]))


def count_up(counter: object, seen: list[list[int]], caller: int) -> None:
    """One caller's increments, each after the answer to the one before."""
    for _ in range(INCREMENTS // CALLERS):
        seen[caller].append(warren.get(counter.add.remote(), timeout=STEP_SECONDS))  # type: ignore[attr-defined]


def disturb(compose: Compose) -> None:
    """Scale and restart while work runs."""
    for count in (5, 1):
        compose.scale(count)
        took = settle(lambda count=count: nodes() == count, f"{count} nodes")  # type: ignore[misc]
        say(f"scaled to {count} nodes in {took:.1f} s")
    compose.scale(3)
    settle(lambda: nodes() == 3, "3 nodes again")
    for service in ("rabbitmq", "redis"):
        compose("restart", service)
        started = time.monotonic()
        # Ahead of what waits: this is to show how long the cluster needs, not how much there is to do.
        if warren.get(work.options(priority=9).remote(1, 0.0), timeout=STEP_SECONDS) != 1:
            raise SystemExit("FAILED: a wrong result")
        say(f"restarted {service}; a task's result came {time.monotonic() - started:.1f} s after it was back")


def run(compose: Compose, environment: dict[str, str]) -> None:
    """The whole test, on a cluster that is up."""
    os.environ.update(environment)
    settle_ready(environment)
    took = settle(lambda: nodes() == 3, "3 nodes have joined", UP_SECONDS)
    say(f"3 nodes have joined ({took:.1f} s after the driver)")
    demo(environment)

    counter = Counter.options(name="counter").remote()
    seen: list[list[int]] = [[] for _ in range(CALLERS)]
    callers = [threading.Thread(target=count_up, args=(counter, seen, at)) for at in range(CALLERS)]
    tasks = [work.remote(number, 0.05) for number in range(4_000)]
    long = [work.remote(number, 20.0) for number in range(3)]
    chain = link.remote(0)
    for _ in range(499):
        chain = link.remote(chain)
    for caller in callers:
        caller.start()
    disturb(compose)
    for caller in callers:
        caller.join()
    numbers = sorted(number for each in seen for number in each)
    if numbers != list(range(1, INCREMENTS + 1)):
        raise SystemExit(f"FAILED: the durable actor counted {len(numbers)} times up to {max(numbers, default=0)}")
    say(f"the durable actor counted to {INCREMENTS}; its {CALLERS} callers saw each number once")
    if warren.get(tasks, timeout=300) != list(range(4_000)) or warren.get(long, timeout=120) != [0, 1, 2]:
        raise SystemExit("FAILED: wrong results")
    if warren.get(chain, timeout=120) != 500:
        raise SystemExit("FAILED: the chain has a wrong end")
    say("4,000 short tasks, 3 long ones and a chain of 500: every result is right")
    warren.kill(counter)
    del tasks, long, chain, counter
    warren.shutdown()
    left_over(environment)


def settle_ready(environment: dict[str, str]) -> None:
    """Connect, once the cluster answers."""

    def connected() -> bool:
        try:
            warren.init(address="auto", log_to_driver=False)
        except ConnectionError:
            return False
        return True

    settle(connected, "the cluster answers", UP_SECONDS)


def left_over(environment: dict[str, str]) -> None:
    """Nothing of the driver is left in either server."""
    import redis

    store = redis.Redis.from_url(environment["WARREN_STORE_URL"])

    def objects() -> list[bytes]:
        return [key for key in store.scan_iter(count=1000) if re.match(rb"warren:[oxdwgihb]:\{", key)]

    settle(lambda: not objects(), "no object is left in Redis", 60.0)
    done = subprocess.run(
        [sys.executable, "-m", "warren_workers", "status"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    if "put aside: 0" not in done.stdout or ", 0 with messages" not in done.stdout:
        raise SystemExit(f"FAILED: something is left:\n{done.stdout}")
    say("no object, spec or message is left over, nothing was put aside")


def main() -> int:
    """Run the test; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--compose", default="docker compose")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up in the end")
    options = parser.parse_args()
    rabbitmq, management, redis_port = free_ports(3)
    known = re.findall(r"^([A-Z_]+)=", EXAMPLE.read_text(), re.M)
    given = {name: os.environ[name] for name in known if name in os.environ and not name.endswith("_URL")}
    ports = {
        "RABBITMQ_PORT": str(rabbitmq),
        "RABBITMQ_MANAGEMENT_PORT": str(management),
        "REDIS_PORT": str(redis_port),
    }
    with tempfile.TemporaryDirectory(prefix="warren-compose-") as directory:
        env_file = Path(directory, ".env")
        write_env(env_file, {**given, **ports})
        environment = dict(re.findall(r"^(WARREN_(?:BROKER_URL|STORE_URL|SECRET))=(.*)$", env_file.read_text(), re.M))
        compose = Compose(options.compose, env_file)
        try:
            compose("up", "--build", "--detach", "--scale", "worker=3")
            say("compose up: built and started")
            run(compose, environment)
            say("PASSED")
        except BaseException:
            print(compose("ps", check=False), compose("logs", "--tail", "40", check=False), sep="\n")
            raise
        finally:
            if not options.keep:
                compose("down", "--volumes", "--remove-orphans", "--timeout", "20", check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
