"""Tasks that tell which node they ran on."""

from __future__ import annotations

import time
from pathlib import Path

import rabbitry
from tests.servers import wait_until


@rabbitry.remote
def where() -> str:
    """Return the node that runs this."""
    return str(rabbitry.get_runtime_context().get_node_id())


@rabbitry.remote
def nap(seconds: float) -> str:
    """Take so long, and return the node."""
    time.sleep(seconds)
    return str(rabbitry.get_runtime_context().get_node_id())


@rabbitry.remote
def hold(directory: str, name: str) -> str:
    """Touch `<name>-began`, run until there is a file `go` beside it, and return the node."""
    Path(directory, f"{name}-began").touch()
    wait_until(Path(directory, "go").exists, "the test lets go", 120.0)
    return str(rabbitry.get_runtime_context().get_node_id())
