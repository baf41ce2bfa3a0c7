"""Serve: composed, autoscaled, streamed, multiplexed, FastAPI, gRPC, `serve run`; replica and controller killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from compat.session import start

ADDRESS = "http://127.0.0.1:8000"
PATIENCE = 120.0
CLIENTS = 4


def ask(path: str, **headers: str) -> str:
    """Return what the applications answer."""
    request = urllib.request.Request(ADDRESS + path, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return str(response.read().decode())


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it did not within PATIENCE seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it never happened")
        time.sleep(0.1)


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1}, health_check_period_s=1, max_ongoing_requests=20)
class Worker:
    """Does a piece of work."""

    async def __call__(self, number: int) -> tuple[int, int]:
        """Return the double of a number, and who made it."""
        await asyncio.sleep(0.02)
        return 2 * number, os.getpid()


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=50)
class Front:
    """Adds what two calls give."""

    def __init__(self, worker: DeploymentHandle) -> None:
        self.worker = worker

    async def __call__(self, request: Any) -> dict[str, Any]:
        """Answer a request."""
        number = int(request.query_params["n"])
        (one, pid), (two, _) = await asyncio.gather(self.worker.remote(number), self.worker.remote(number + 1))
        return {"sum": one + two, "pid": pid}


@serve.deployment(
    ray_actor_options={"num_cpus": 0.1},
    max_ongoing_requests=4,
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 3,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 2,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 1,
    },
)
class Slow:
    """Takes its time."""

    async def __call__(self, request: Any) -> str:
        """Answer late."""
        await asyncio.sleep(1)
        return str(os.getpid())


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Streaming:
    """Answers bit by bit."""

    def __call__(self, request: Any) -> Any:
        """Return a response in parts."""
        from starlette.responses import StreamingResponse

        return StreamingResponse(self.parts(), media_type="text/plain")

    async def parts(self) -> AsyncIterator[str]:
        """Make the parts."""
        for number in range(5):
            yield f"{number},"
            await asyncio.sleep(0.01)


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
class Models:
    """Holds two models a replica."""

    @serve.multiplexed(max_num_models_per_replica=2)
    async def model(self, name: str) -> str:
        """Load a model."""
        return name.upper()

    async def __call__(self, request: Any) -> str:
        """Answer by the model that the request names."""
        return await self.model(serve.get_multiplexed_model_id())


web = FastAPI()


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
@serve.ingress(web)
class Web:
    """An application of FastAPI."""

    @web.get("/add/{one}/{two}")
    def add(self, one: int, two: int) -> dict[str, int]:
        """Add."""
        return {"sum": one + two}


composed = Front.bind(Worker.bind())


def load(seconds_of: Callable[[], None]) -> tuple[int, list[str]]:
    """Ask without pause from some threads while something happens; return how many were answered, and what failed."""
    over, failed, answered = threading.Event(), [], []

    def client(first: int) -> None:
        number = first
        while not over.is_set():
            try:
                answer = json.loads(ask(f"/composed?n={number}"))["sum"]
                (answered if answer == 4 * number + 2 else failed).append(str(answer))
            except (OSError, ValueError) as error:
                failed.append(repr(error))
            number += 1

    threads = [threading.Thread(target=client, args=(100 * number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    until(lambda: len(answered) > 20)
    seconds_of()
    before = len(answered)
    until(lambda: len(answered) > before + 50)
    over.set()
    for thread in threads:
        thread.join()
    return len(answered), failed


def kill_a_replica() -> None:
    """Kill the process of one of the workers, and wait until there are two again."""
    pid = json.loads(ask("/composed?n=1"))["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in replicas())


def replicas() -> set[int]:
    """Return the processes that answer now, by asking often."""
    return {json.loads(ask("/composed?n=1"))["pid"] for _ in range(12)}


def kill_the_controller() -> None:
    """Kill the controller's actor; it comes back by itself."""
    ray.kill(_get_global_client()._controller, no_restart=False)
    until(lambda: serve.status().applications["composed"].status == "RUNNING")


def grpc() -> None:
    """Ask the proxy by gRPC for the applications' names."""
    import grpc as library
    from ray.serve.generated import serve_pb2, serve_pb2_grpc

    with library.insecure_channel("127.0.0.1:9000") as channel:
        stub = serve_pb2_grpc.RayServeAPIServiceStub(channel)
        health = stub.Healthz(serve_pb2.HealthzRequest(), timeout=30).message
        names = stub.ListApplications(serve_pb2.ListApplicationsRequest(), timeout=30).application_names
    print("RESULT grpc", health, sorted(names))


def by_command_line() -> None:
    """Deploy by `serve run` what this file binds, and end it."""
    alias = ["-m", "rabbitry.as_ray"] if "rabbitry" in sys.modules else []
    command = [sys.executable, *alias, "-m", "ray.serve.scripts"]
    address = [] if os.environ.get("RABBITRY_ADDRESS") else ["--address", "local"]
    command += ["run", *address, "--blocking", "compat.programs.serve_cluster:composed"]
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores it, and so would the child
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    answers: list[int] = []
    try:
        until(lambda: child.poll() is not None or answers.extend(summed()) or answers)
        print("RESULT serve run", answers)
        child.send_signal(signal.SIGINT)
        print("RESULT serve run ended", child.wait(PATIENCE) is not None)
    finally:
        child.kill()
        child.wait()


def summed() -> list[int]:
    """Return the answer of the application that the command deploys, nothing if there is none.

    Nodes of one machine share its port. A proxy that was being drained when the controller died goes on there and knows
    no application: the new controller looks for proxies only on nodes that have replicas.
    """
    try:
        return [json.loads(ask("/?n=5"))["sum"]]
    except OSError:
        return []


if __name__ == "__main__":
    start(4)
    serve.start(
        http_options={"port": 8000},
        grpc_options={
            "port": 9000,
            "grpc_servicer_functions": ["ray.serve.generated.serve_pb2_grpc.add_UserDefinedServiceServicer_to_server"],
        },
    )
    serve.run(composed, name="composed", route_prefix="/composed")
    serve.run(Slow.bind(), name="slow", route_prefix="/slow")
    serve.run(Streaming.bind(), name="streaming", route_prefix="/streaming")
    serve.run(Models.bind(), name="models", route_prefix="/models")
    serve.run(Web.bind(), name="web", route_prefix="/web")
    print("RESULT composed", json.loads(ask("/composed?n=5"))["sum"])
    print("RESULT streaming", ask("/streaming"))
    print("RESULT models", [ask("/models", serve_multiplexed_model_id=f"m{number % 3}") for number in range(6)])
    print("RESULT web", ask("/web/add/2/3"))
    grpc()
    pids: set[str] = set()
    asking = threading.Event()
    threads = [
        threading.Thread(target=lambda: [pids.add(ask("/slow")) for _ in iter(asking.is_set, True)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(pids) == 3)
    asking.set()
    for thread in threads:
        thread.join()
    until(lambda: len(serve.status().applications["slow"].deployments["Slow"].replica_states) == 1)
    print("RESULT autoscaled", len(pids))
    # What a replica was at when it died is answered with an error, by Ray too: of each of the clients one at most.
    for name, event, most in (("replica", kill_a_replica, CLIENTS), ("controller", kill_the_controller, 0)):
        begin = time.perf_counter()
        answered, failed = load(event)
        print("RESULT", name, answered > 50, len(failed) <= most)
        if failed:
            print(name, failed[:5])
        print(f"TIMED {name} {answered / (time.perf_counter() - begin):.0f} a second,")
    serve.delete("web")
    print("RESULT", sorted(serve.status().applications))
    serve.shutdown()
    ray.shutdown()
    by_command_line()
