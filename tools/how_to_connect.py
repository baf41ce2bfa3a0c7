"""Says how to use the cluster that `make up` has started, from its `.env`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TEXT = """\

The cluster is up: RabbitMQ, Redis and {nodes}.

  drivers in this directory     ray.init(address="auto")       # reads .env
  drivers elsewhere             set RABBITRY_BROKER_URL, RABBITRY_STORE_URL and RABBITRY_SECRET as in .env
  a first program               .venv/bin/python -m rabbitry.demo --address auto
  what the cluster does         .venv/bin/rabbitry status
  the dashboard                 http://localhost:{dashboard_port}/  token: RABBITRY_DASHBOARD_TOKEN in .env
  RabbitMQ's pages              http://localhost:{management_port}/  user rabbitry, password: RABBITMQ_PASSWORD in .env
  more nodes, or fewer          make up WORKERS=8
  stop it; data stay            make down

.venv is made by `make demo` or `make test`. Drivers need Python {python}, as the nodes have.
"""


def how_to_connect(env: str, nodes: int) -> str:
    """Return what to do next.

    Args:
        env: text of the `.env` that Compose reads.
        nodes: how many were asked for.
    """
    values = dict(re.findall(r"^([A-Z_]+)=(.*)$", env, flags=re.MULTILINE))
    python = re.search(r"python:(3\.\d+)", values.get("PYTHON_IMAGE", ""))
    return TEXT.format(
        nodes="one node" if nodes == 1 else f"{nodes} nodes",
        management_port=values.get("RABBITMQ_MANAGEMENT_PORT") or 15672,
        dashboard_port=values.get("RABBITRY_DASHBOARD_PORT") or 8265,
        python=python[1] if python else "of the same minor version",
    )


if __name__ == "__main__":
    print(how_to_connect((ROOT / ".env").read_text(encoding="utf-8"), int(sys.argv[1])), end="")
