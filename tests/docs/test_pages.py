"""Every Python block of the manual runs, each page as one program, and prints what the page says."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of, wants_cluster
from tests.end_to_end.conftest import node_environment, start_node, stop_node
from tests.servers import RabbitMQServer, RedisServer

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]
TIMEOUT = 55  # seconds for one page


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer, rabbitmq_server: RabbitMQServer) -> Iterator[dict[str, str]]:
    """A node on RabbitMQ and Redis; the variables that name the cluster."""
    vhost = f"docs-{secrets.token_hex(4)}"
    variables = {
        "RABBITRY_BROKER_URL": rabbitmq_server.add_vhost(vhost),
        "RABBITRY_STORE_URL": redis_server.url,
        "RABBITRY_SECRET": secrets.token_hex(16),
        "RABBITRY_PREFIX": f"docs-{secrets.token_hex(4)}:",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        node = start_node("--num-cpus", "2")
    try:
        yield variables
    finally:
        stop_node(node)
        redis_server.delete(variables["RABBITRY_PREFIX"])
        rabbitmq_server.delete_vhost(vhost)


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(TOP)))
def test_the_blocks_of_a_page_run(page: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    variables = request.getfixturevalue("cluster") if wants_cluster(page) else {}
    blocks = blocks_of(page)
    done = subprocess.run(
        [sys.executable, str(TOP / "tests/docs/run_page.py"), str(page.relative_to(TOP))],
        input=json.dumps([asdict(block) for block in blocks]),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=tmp_path,
        env={**node_environment(), **variables, "PYTHONDONTWRITEBYTECODE": "1", "XDG_CONFIG_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_no_page_hides_python_from_the_tests() -> None:
    """A block of Python is fenced as `python`, so that it is found."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"^ *```(?:py|pycon|python3|Python|\{code-block\} python)\s*$", text, re.MULTILINE), page


def test_fences_are_understood(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "text\n```python\na = 1\nprint(a)\n```\n\n```output\n1\n```\n\n<!-- not run: GPU -->\n```python\nno\n```\n"
        "- a list\n\n  ```python\n  if a:\n      pass\n  ```\n```console\n$ ls\n```\n"
    )
    assert [asdict(each) for each in blocks_of(page)] == [
        {"line": 3, "source": "a = 1\nprint(a)\n", "output": "1\n"},
        {"line": 18, "source": "if a:\n    pass\n", "output": None},
    ]
