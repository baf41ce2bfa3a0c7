"""The pages of a fake cluster, served as the product serves them; a process for tests, and for looking at pages.

`python -m tests.workers.dashboard.serve PORT TASKS [TOKEN]` obeys lines on its standard input: `down`, `up`, `tick N`,
`log TEXT`, `calls`; each is answered by a line. It ends with its input.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import uvicorn

from rabbitry_workers.dashboard.mount import mount
from rabbitry_workers.http.app import make_app
from tests.workers.dashboard.fakes import FakeSource


def obey(source: FakeSource, server: uvicorn.Server) -> None:
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        answer: object = "ok"
        if word in ("down", "up"):
            source.down = word == "down"
        elif word == "tick":
            source.tick(int(rest))
        elif word == "log":
            source.log += rest + "\n"
        elif word == "calls":
            answer, source.calls = source.calls, []
        print(json.dumps(answer), flush=True)
    server.should_exit = True


def main() -> None:
    port, tasks, token = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
    source = FakeSource(tasks)
    cluster: Any = None  # no route of the pages asks for it
    service = make_app(cluster, [], token=token)
    mount(service, source, "fake cluster")
    server = uvicorn.Server(
        uvicorn.Config(
            service, host="127.0.0.1", port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=1
        )
    )
    threading.Thread(target=obey, args=(source, server), daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
