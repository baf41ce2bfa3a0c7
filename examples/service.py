"""A web service that submits work and streams its progress: `python examples/service.py [--address auto]`.

    curl -X POST localhost:8000/jobs?size=20     # {"job": "3f..."}
    curl -N localhost:8000/jobs/3f...            # a line for each part that is done, then the sum

Needs FastAPI and uvicorn: pip install 'rabbitry[examples]'. `--once` asks the service itself and prints what came.

With several workers (`uvicorn --workers`) give an address: else each worker starts a cluster of its own.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import rabbitry

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import StreamingResponse
except ImportError as error:
    print(f"this example needs {error.name}: pip install 'rabbitry[examples]'")
    sys.exit(0)


@rabbitry.remote
def primes_between(start: int, end: int) -> int:
    """Count primes: one part of a job."""
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(2, start), end))


def make_app(address: str | None) -> FastAPI:
    """Return the service. Its session lives as long as it does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with rabbitry.init(address):
            yield

    app = FastAPI(lifespan=lifespan)
    jobs: dict[str, list[Any]] = {}  # each goes when it was read

    @app.post("/jobs")
    def submit(size: int = 20) -> dict[str, str]:
        name = secrets.token_hex(8)
        jobs[name] = [primes_between.remote(1000 * part, 1000 * (part + 1)) for part in range(size)]
        return {"job": name}

    @app.get("/jobs/{name}")
    async def follow(name: str) -> StreamingResponse:
        if name not in jobs:
            raise HTTPException(404, "no such job")
        refs = jobs.pop(name)

        async def lines() -> AsyncIterator[str]:
            total = 0
            for done, ref in enumerate(refs, 1):
                total += await ref  # waits without blocking other requests
                yield json.dumps({"done": done, "of": len(refs)}) + "\n"
            yield json.dumps({"primes": total}) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    return app


def ask_once(app: FastAPI) -> None:
    """Serve on a free port, be a client, print what the service says, and end."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        base = f"http://127.0.0.1:{port}/jobs"
        with urllib.request.urlopen(urllib.request.Request(base + "?size=5", method="POST")) as response:
            name = json.load(response)["job"]
        with urllib.request.urlopen(f"{base}/{name}") as response:
            for line in response:
                print(line.decode(), end="")
        try:
            urllib.request.urlopen(f"{base}/{name}")
        except urllib.error.HTTPError as error:
            print("asked again:", error.code)
    finally:
        server.should_exit = True
        thread.join()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description="A web service in front of a cluster.")
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--once", action="store_true", help="ask the service itself, and end")
    options = parser.parse_args()
    app = make_app(options.address)
    if options.once:
        ask_once(app)
    else:
        uvicorn.run(app, port=options.port)


if __name__ == "__main__":
    main()
