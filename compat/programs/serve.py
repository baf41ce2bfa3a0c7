"""Two composed deployments over HTTP."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import Any

import ray
from ray import serve

from compat.session import start

ADDRESS = "http://127.0.0.1:8000/"


@serve.deployment(num_replicas=2)
class Upper:
    """Writes in capitals."""

    def up(self, text: str) -> str:
        """Return the text in capitals."""
        return text.upper()


@serve.deployment
class Greeter:
    """Greets by help of the other one."""

    def __init__(self, upper: Any) -> None:
        self.upper = upper

    async def __call__(self, request: Any) -> str:
        """Answer a request."""
        return "hello " + await self.upper.up.remote(request.query_params.get("n", ""))


def ask(name: str) -> str:
    """Return what the application answers."""
    with urllib.request.urlopen(f"{ADDRESS}?n={name}", timeout=30) as response:
        return str(response.read().decode())


if __name__ == "__main__":
    start(4)
    serve.run(Greeter.bind(Upper.bind()), route_prefix="/")
    deadline = time.monotonic() + 30
    while True:
        try:
            print("RESULT", ask("x"))
            break
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    begin = time.perf_counter()
    answers = {ask(str(number)) for number in range(100)}
    print("RESULT", len(answers), serve.status().applications["default"].status)
    print(f"TIMED {(time.perf_counter() - begin) * 10:.1f} ms a request")
    serve.shutdown()
    ray.shutdown()
