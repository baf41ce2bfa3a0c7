"""The logger `ray` under the alias: what Ray's libraries say by it is seen, as on Ray."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import node_environment

TIMEOUT = 60

PROGRAM = """
import contextlib, io, logging, time, ray

logging.getLogger("ray.library").info("before init")
ray.init(num_cpus=1{options})

@ray.remote
def say():
    logging.getLogger("ray.library").info("from a task")
    logging.getLogger("ray.library").debug("a detail")
    logging.getLogger("other").info("nobody set this up")

ray.get(say.remote())
logging.getLogger("ray.library").info("from the driver")
logging.getLogger("ray.rllib").info("too much")
with contextlib.redirect_stderr(io.StringIO()) as text:
    logging.getLogger("ray.library").warning("elsewhere")
print(text.getvalue())
ray.shutdown()
"""


@pytest.fixture
def errors(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """What such a program printed, and its stderr."""
    program = tmp_path / "prog.py"
    program.write_text(PROGRAM.format(options=request.param))
    command = [sys.executable, "-m", "rabbitry.as_ray", str(program)]
    done = subprocess.run(command, env=node_environment(), capture_output=True, text=True, timeout=TIMEOUT, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize("errors", [""], indirect=True)
def test_info_of_libraries_is_seen_in_the_driver_and_from_tasks(errors: tuple[str, str]) -> None:
    out, err = errors
    assert re.search(r"^[-\d]+ [:,\d]+\tINFO prog.py:4 -- before init$", err, re.MULTILINE)
    assert re.search(r"^[-\d]+ [:,\d]+\tINFO prog.py:14 -- from the driver$", err, re.MULTILINE)
    assert re.search(r"^\(say pid=\d+\) from a task$", err, re.MULTILINE)
    assert "WARNING prog.py:17 -- elsewhere" in out, "stderr is what it is at that moment"
    assert not re.search("a detail|nobody set this up|too much|elsewhere", err)


@pytest.mark.parametrize("errors", [", logging_level='warning', logging_format='%(name)s|%(message)s'"], indirect=True)
def test_init_says_how_the_driver_logs(errors: tuple[str, str]) -> None:
    out, err = errors
    assert "ray.library|elsewhere" in out
    assert "from a task" in err and "from the driver" not in err


@pytest.mark.parametrize("errors", [", configure_logging=False"], indirect=True)
def test_who_sets_up_logging_himself_gets_no_handler(errors: tuple[str, str]) -> None:
    _, err = errors
    assert "before init" in err and "from the driver" not in err


@pytest.mark.parametrize("errors", [", logging_config=ray.LoggingConfig(encoding='JSON')"], indirect=True)
def test_a_logging_config_counts_for_it_too(errors: tuple[str, str]) -> None:
    said = {}
    for line in errors[1].splitlines():
        if "{" in line:
            record = json.loads(line[line.index("{") :])
            said[record["message"]] = record
    assert {"from a task", "from the driver"} <= set(said)
    assert "task_id" in said["from a task"]
