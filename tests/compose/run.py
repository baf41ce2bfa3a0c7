"""Bring the cluster of docker-compose.yml up, work on it from this host, scale it and restart its servers meanwhile.

    python -m tests.compose.run [--compose "docker compose"] [--keep]

It uses a project name, a `.env`, an image and ports of its own, so a cluster that runs already is left alone.
Environment variables with names from `.env.example` (such as RABBITRY_BUILD_NETWORK=host) change the cluster it makes.
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
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rabbitry
from tests.servers import free_port
from tools.make_env import EXAMPLE, ROOT, write_env

PROJECT = "rabbitry-compose-test"
UP_SECONDS = 240.0
STEP_SECONDS = 120.0
CALLERS = 4
SHORT_TASKS = 4_000
LONG_TASKS = 4
LONG_SECONDS = 20.0
DRAIN_SECONDS = 5  # shorter than the long tasks: a node that leaves has to hand them back
CHAIN = 500
STOP_SECONDS = 10  # for a server to stop by itself, then it is killed: nothing may be lost then, either
# What a cluster has once, however much it has done; entries of it end by themselves (`rabbitry_broker.store.keys`).
STANDING = frozenset(
    f"rabbitry:{each}".encode()
    for each in (
        "cluster",
        "head",
        "jobs:ended",
        "jobs:ended:at",
        "nodes",
        "nodes:died",
        "nodes:leases",
        "nodes:left",
        "nodes:slots",
        "planner:fence",
        "queues",
        "queues:prioritized",
        "queues:used",
    )
)
CONTAINERS = 6  # both servers, three nodes, the dashboard
IMAGE_LIMIT = 175 << 20  # bytes over its base: NiceGUI, with what it needs, and uv are half of them


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

    def containers(self, *services: str) -> list[str]:
        """Return the ids of the containers of some services, or of all."""
        return self("ps", "--quiet", *services).split()

    def refusal(self) -> str:
        """Return what is said where there is no `.env`; "" if nothing is wrong with that."""
        with tempfile.NamedTemporaryFile() as empty:  # a project's own .env is not read then
            done = subprocess.run(
                [*self._command[:-1], empty.name, "config"],
                cwd=ROOT,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        return done.stderr if done.returncode else ""


def docker(*arguments: str, text: str = "") -> str:
    """Run a command of the engine, with a text for it to read; return what it printed."""
    command = ["docker", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"FAILED: docker {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout.strip()


def inspect(container: str, template: str) -> str:
    """Return a fact about a container."""
    return docker("inspect", "--format", template, container)


def check(condition: object, what: str) -> None:
    """End the test unless a condition holds."""
    if not condition:
        raise SystemExit(f"FAILED: {what}")


def settle(
    condition: Callable[[], object],
    what: str,
    seconds: float = STEP_SECONDS,
    shown: Callable[[], object] = lambda: "",
) -> float:
    """Wait until a condition holds; return how long it took. What is `shown` tells why it does not."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise SystemExit(f"FAILED: not within {seconds:g} s: {what} {shown()}".rstrip())
        time.sleep(0.25)
    return time.monotonic() - started


def say(text: str) -> None:
    """Print a finding with the time since the start."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


STARTED = time.monotonic()


@rabbitry.remote
def work(number: int, seconds: float) -> int:
    """A task of some length."""
    time.sleep(seconds)
    return number


@rabbitry.remote(priority=5)
def long_work(number: int, begun: Any) -> int:
    """A task that outlasts the draining of its node, and counts how often it was begun."""
    rabbitry.get(begun.add.remote())
    time.sleep(LONG_SECONDS)
    return number


@rabbitry.remote
def yaml_version() -> str:
    """Uses what RABBITRY_EXTRA_REQUIREMENTS names."""
    import yaml

    return str(yaml.__version__)


@rabbitry.remote
def link(value: int) -> int:
    """One link of a chain."""
    time.sleep(0.02)
    return value + 1


@rabbitry.remote(durable=True, max_restarts=-1, max_task_retries=-1, num_cpus=0)
class Counter:
    """Counts, through anything."""

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> int:
        """Count one more; return how many there are."""
        self.value += 1
        return self.value

    def count(self) -> int:
        """Return how many there are."""
        return self.value


def nodes() -> int:
    """Return how many nodes are alive."""
    return sum(bool(node["Alive"]) for node in rabbitry.nodes())


def demo(environment: dict[str, str]) -> None:
    """Run the demo against the cluster."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "examples/stdlib_census.py", "--address", "auto"],
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


def check_image(settings: dict[str, str]) -> None:
    """The image of nodes: small, without a compiler, not for root."""
    image = settings["WORKER_IMAGE"]
    sizes = [
        int(docker("image", "inspect", "--format", "{{.Size}}", each)) for each in (image, settings["PYTHON_IMAGE"])
    ]
    over = sizes[0] - sizes[1]
    check(over < IMAGE_LIMIT, f"the image is {over >> 20} MiB over its base")
    script = "id -u; for name in cc gcc g++ clang make; do command -v $name; done; true"
    user, *tools = docker("run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script).split()
    check(user != "0", "nodes run as root")
    check(not tools, f"the image has {tools}")
    # As docs/deployment.md has it.
    derived = f"{image}-derived"
    lines = f"FROM {image}\nRUN pip install --no-cache-dir tabulate\n"
    docker("build", "--quiet", "--network", settings["RABBITRY_BUILD_NETWORK"], "--tag", derived, "-", text=lines)
    docker("run", "--rm", "--network", "none", "--entrypoint", "python", derived, "-c", "import tabulate, rabbitry")
    docker("image", "rm", derived)
    say(f"the image: {over / (1 << 20):.0f} MiB over its base, user {user}, no compiler; two lines extend it")


def check_containers(compose: Compose) -> None:
    """All are healthy; nodes have the limits that they were given, and know them."""
    ids = compose.containers()
    check(len(ids) == CONTAINERS, f"{CONTAINERS} containers, not {len(ids)}")
    settle(lambda: all(inspect(each, "{{.State.Health.Status}}") == "healthy" for each in ids), "all are healthy")
    for node in compose.containers("worker"):
        check(docker("exec", node, "cat", "/proc/1/comm") == "tini", "process 1 of a node is tini")
        shared = int(docker("exec", node, "df", "--output=size", "--block-size=1M", "/dev/shm").split()[-1])
        check(shared == 256, f"/dev/shm of a node is {shared} MiB")
        check(inspect(node, "{{.HostConfig.PortBindings}}") == "map[]", "a node publishes no port")
    totals = rabbitry.cluster_resources()
    check(totals["CPU"] == 3, f"3 nodes of one CPU each offer {totals['CPU']}")
    check(0 < totals["memory"] < 3 << 30, f"3 nodes of 1 GiB each offer {totals['memory']} bytes")
    offer = f"{totals['CPU']:g} CPUs, {totals['memory'] / (1 << 30):.1f} GiB"
    say(f"all {CONTAINERS} containers are healthy; 3 nodes offer {offer}")


def check_servers(compose: Compose, environment: dict[str, str]) -> None:
    """The settings that matter are in force."""
    import redis

    (broker,) = compose.containers("rabbitmq")
    status = docker("exec", broker, "rabbitmq-diagnostics", "--quiet", "status")
    watermark = re.search(r"watermark setting: .* computed to: ([0-9.]+) gb", status)
    check(
        watermark and 0.5 < float(watermark[1]) < 0.7, f"RabbitMQ's watermark is {watermark}, its container has 1 GiB"
    )
    settings = docker("exec", broker, "rabbitmqctl", "--quiet", "environment")
    check("{consumer_timeout,1800000}" in settings, "RabbitMQ has not read broker/rabbitmq.conf")
    store = redis.Redis.from_url(environment["RABBITRY_STORE_URL"], decode_responses=True)
    found = {name: store.config_get(name)[name] for name in ("appendonly", "maxmemory", "maxmemory-policy")}
    wanted = {"appendonly": "yes", "maxmemory": str(1 << 30), "maxmemory-policy": "noeviction"}
    check(found == wanted, f"Redis has {found}")
    say("RabbitMQ and Redis have their settings; RabbitMQ's watermark follows its container's limit")


def check_dashboard(settings: dict[str, str]) -> None:
    """Its service tells of the cluster, of its queues too, to whoever has the token."""
    url = f"http://127.0.0.1:{settings['RABBITRY_DASHBOARD_PORT']}/metrics"
    try:
        urllib.request.urlopen(url, timeout=STEP_SECONDS)
    except urllib.error.HTTPError as error:
        check(error.code in (401, 403), f"without the token the dashboard answers {error.code}")
    else:
        check(False, "the dashboard tells everybody")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {settings['RABBITRY_DASHBOARD_TOKEN']}"})

    def figures() -> str:
        with urllib.request.urlopen(request, timeout=STEP_SECONDS) as answer:
            return str(answer.read().decode())

    check('rabbitry_nodes{state="alive"} 3.0' in figures(), "the dashboard knows of other nodes")
    rabbitry.get(work.remote(0, 0.0), timeout=STEP_SECONDS)  # a queue
    settle(lambda: 'rabbitry_queue_consumers{queue="task.CPU=1"} 3.0' in figures(), "RabbitMQ tells of its queues")
    say("the dashboard wants a token, knows the nodes, and has figures of RabbitMQ's management plugin")


def check_modules() -> None:
    """What the image was told to install is there; what it lacks is named, with what to do."""
    version = rabbitry.get(yaml_version.remote(), timeout=STEP_SECONDS)
    try:
        rabbitry.get(rabbitry.remote(free_port).remote(), timeout=STEP_SECONDS)
    except ModuleNotFoundError as error:
        check("'tests'" in str(error) and "RABBITRY_EXTRA_REQUIREMENTS" in str(error), f"an unclear error: {error}")
    else:
        check(False, "nodes have the modules of the tests")
    say(f"nodes have PyYAML {version} by RABBITRY_EXTRA_REQUIREMENTS; a module that they lack is named with what to do")


def count_up(counter: Any, seen: list[int], enough: threading.Event) -> None:
    """One caller's increments, each after the answer to the one before."""
    while not enough.wait(0.01):
        seen.append(rabbitry.get(counter.add.remote(), timeout=STEP_SECONDS))


def scale(compose: Compose, count: int) -> None:
    """Have that many nodes, and wait until the cluster sees them."""
    started = time.monotonic()
    compose.scale(count)
    settle(lambda: nodes() == count, f"{count} nodes")
    say(f"scaled to {count} nodes in {time.monotonic() - started:.1f} s")


def check_back(service: str, how: str) -> None:
    """The cluster goes on after a server was away."""
    started = time.monotonic()
    # Ahead of what waits: this is to show how long the cluster needs, not how much there is to do.
    check(rabbitry.get(work.options(priority=9).remote(1, 0.0), timeout=STEP_SECONDS) == 1, "a wrong result")
    say(f"{how} {service}; a task's result came {time.monotonic() - started:.1f} s after it was back")


def move(compose: Compose, service: str) -> None:
    """Replace a server's container by another one, at another address, with the same volume."""
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    (old,) = compose.containers(service)
    image, before = inspect(old, "{{.Config.Image}}"), inspect(old, address)
    compose("stop", "--timeout", str(STOP_SECONDS), service)
    compose("rm", "--force", service)
    network = docker("network", "ls", "--quiet", "--filter", f"name=^{PROJECT}_default$")
    # Somebody else has its address by the time it comes back.
    squatter = docker("run", "--detach", "--network", network, "--entrypoint", "sleep", image, str(int(STEP_SECONDS)))
    try:
        compose.scale(3)
        (new,) = compose.containers(service)
        after = inspect(new, address)
        check(new != old, "the container was not replaced")
        check_back(service, f"replaced ({before}, now {after})")
    finally:
        docker("rm", "--force", "--volumes", squatter)


def disturb(compose: Compose, begun: Any) -> None:
    """Scale and restart while work runs."""
    scale(compose, 5)
    settle(lambda: rabbitry.get(begun.count.remote()) >= LONG_TASKS, "the long tasks run")
    scale(compose, 1)
    scale(compose, 3)
    for service in ("rabbitmq", "redis"):
        compose("restart", "--timeout", str(STOP_SECONDS), service)
        check_back(service, "restarted")
    for service in ("rabbitmq", "redis"):
        move(compose, service)


def run(compose: Compose, settings: dict[str, str]) -> None:
    """The whole test, on a cluster that is up."""
    environment = {name: settings[name] for name in ("RABBITRY_BROKER_URL", "RABBITRY_STORE_URL", "RABBITRY_SECRET")}
    os.environ.update(environment)
    check_image(settings)
    settle_ready()
    settle(lambda: nodes() == 3, "3 nodes have joined", UP_SECONDS)
    say("3 nodes have joined")
    check_containers(compose)
    check_servers(compose, environment)
    check_dashboard(settings)
    check_modules()
    demo(environment)

    counter, begun = (Counter.options(name=name).remote() for name in ("counter", "begun"))
    seen: list[list[int]] = [[] for _ in range(CALLERS)]
    enough = threading.Event()
    callers = [threading.Thread(target=count_up, args=(counter, each, enough), daemon=True) for each in seen]
    tasks = [work.remote(number, 0.05) for number in range(SHORT_TASKS)]
    long = [long_work.remote(number, begun) for number in range(LONG_TASKS)]
    chain = link.remote(0)
    for _ in range(CHAIN - 1):
        chain = link.remote(chain)
    for caller in callers:
        caller.start()
    disturb(compose, begun)
    _, open_tasks = rabbitry.wait(tasks, num_returns=len(tasks), timeout=0)
    check(open_tasks, "the work was done before the disturbances were")
    say(f"that was during work: {len(open_tasks)} of {SHORT_TASKS} short tasks are still to be done")
    enough.set()
    for caller in callers:
        caller.join(STEP_SECONDS)
    numbers = sorted(number for each in seen for number in each)
    counted = f"the durable actor counted {len(numbers)} times up to {max(numbers, default=0)}"
    check(numbers == list(range(1, len(numbers) + 1)), counted)
    say(f"the durable actor counted to {len(numbers)}; its {CALLERS} callers saw each number once")
    check(rabbitry.get(tasks, timeout=300) == list(range(SHORT_TASKS)), "a short task's result is wrong")
    check(rabbitry.get(long, timeout=120) == list(range(LONG_TASKS)), "a long task's result is wrong")
    check(rabbitry.get(chain, timeout=120) == CHAIN, "the chain has a wrong end")
    say(f"{SHORT_TASKS} short tasks, {LONG_TASKS} long ones and a chain of {CHAIN}: every result is right")
    again = rabbitry.get(begun.count.remote()) - LONG_TASKS
    check(again > 0, "no long task was handed back by the nodes that left")
    say(f"long tasks were handed back by nodes that left, and begun again elsewhere: {again}")
    for actor in (counter, begun):
        rabbitry.kill(actor)
    del tasks, long, chain, counter, begun, actor
    rabbitry.shutdown()
    left_over(environment)
    check_leaving(compose)


def check_leaving(compose: Compose) -> None:
    """Nodes without work go at once, by themselves."""
    ids = compose.containers("worker")
    started = time.monotonic()
    compose("stop", "worker")
    codes = {inspect(each, "{{.State.ExitCode}}") for each in ids}
    check(codes == {"0"}, f"nodes ended with {codes}")
    say(f"SIGTERM: 3 idle nodes have left in {time.monotonic() - started:.1f} s, all with exit code 0")


def settle_ready() -> None:
    """Connect, once the cluster answers."""

    def connected() -> bool:
        try:
            rabbitry.init(address="auto", log_to_driver=False)
        except ConnectionError:
            return False
        return True

    settle(connected, "the cluster answers", UP_SECONDS)


def left_over(environment: dict[str, str]) -> None:
    """Nothing of the driver is left in either server."""
    import redis

    store = redis.Redis.from_url(environment["RABBITRY_STORE_URL"])

    def lasting() -> list[bytes]:
        names = [key for key in store.scan_iter(match="rabbitry:*", count=1000) if key not in STANDING]
        with store.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.pttl(name)
            return [name for name, end in zip(names, pipeline.execute(), strict=True) if end == -1]

    # A dead actor's queue is kept for a minute.
    settle(lambda: not lasting(), "nothing is left in Redis but what ends by itself", 120.0, lasting)
    done = subprocess.run(
        [sys.executable, "-m", "rabbitry_workers", "status"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    check("put aside: 0" in done.stdout and ", 0 with messages" in done.stdout, f"something is left:\n{done.stdout}")
    say("no key but the cluster's own and no message is left over, nothing was put aside")


def main() -> int:
    """Run the test; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--compose", default="docker compose")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up in the end")
    options = parser.parse_args()
    example = EXAMPLE.read_text()
    known = re.findall(r"^([A-Z_]+)=", example, re.M)
    wanted = {
        "WORKER_IMAGE": f"{PROJECT}-worker",
        "RABBITRY_EXTRA_REQUIREMENTS": "pyyaml",
        "RABBITRY_DRAIN_SECONDS": str(DRAIN_SECONDS),
        **{name: os.environ[name] for name in known if name in os.environ and not name.endswith("_URL")},
        **{name: str(free_port()) for name in known if name.endswith("_PORT")},
    }
    with tempfile.TemporaryDirectory(prefix="rabbitry-compose-") as directory:
        env_file = Path(directory, ".env")
        write_env(env_file, wanted)
        settings = dict(re.findall(r"^([A-Z_]+)=(.*)$", env_file.read_text(), re.M))
        compose = Compose(options.compose, env_file)
        refusal = compose.refusal()
        check("make up" in refusal, f"without a .env compose says {refusal!r}")
        say("without a .env compose refuses to start, and names make up")
        try:
            compose("up", "--build", "--detach", "--scale", "worker=3")
            say("compose up: built and started")
            run(compose, settings)
            say("PASSED")
        except BaseException:
            print(compose("ps", check=False), compose("logs", "--tail", "40", check=False), sep="\n")
            raise
        finally:
            if not options.keep:
                compose("down", "--volumes", "--remove-orphans", "--timeout", str(STOP_SECONDS), check=False)
                subprocess.run(["docker", "image", "rm", settings["WORKER_IMAGE"]], capture_output=True, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
