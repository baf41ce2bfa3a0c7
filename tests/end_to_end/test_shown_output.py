"""How the driver shows what tasks print: once, in colour, as JSON, with bars."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import pytest

from tests.end_to_end.conftest import node_environment

SAME = """
import rabbitry as ray, time
ray.init(num_cpus=3)
@ray.remote
class Speaker:
    def speak(self):
        print("the same for all")
actors = [Speaker.remote() for _ in range(3)]
ray.get([each.speak.remote() for each in actors])
"""


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**node_environment(), "PYTHONPATH": ":".join(filter(None, sys.path)), **variables}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )


def on_a_terminal(program: str) -> str:
    """Run a program whose standard output and error are a terminal; return what it shows."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                shown.extend(os.read(master, 4096))
            except OSError:
                return

    reader = threading.Thread(target=read)
    environment = {**node_environment(), "PYTHONPATH": ":".join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=slave, stderr=slave)
    os.close(slave)
    reader.start()
    assert process.wait(60) == 0
    reader.join(10)
    os.close(master)
    return shown.decode()


def test_lines_of_several_processes_are_shown_once_and_counted():
    lines = run(SAME).stdout.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"\(Speaker pid=\d+\) the same for all", lines[0])
    assert re.match(r"\(Speaker pid=\d+\) the same for all \[repeated 2x across cluster\]", lines[1])


def test_all_are_shown_if_the_user_wants_that_in_colours_or_without_names():
    lines = run(SAME, RAY_DEDUP_LOGS="0", RAY_COLOR_PREFIX="1").stdout.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"\x1b\[\d+m\(Speaker pid=\d+\)\x1b\[0m the same for all", line) for line in lines)
    lines = run(SAME, RABBITRY_DEDUP_LOGS="0", RABBITRY_DISABLE_WORKER_LOG_PREFIX="1").stdout.splitlines()
    assert lines == ["the same for all"] * 3


def test_a_terminal_gets_colours_and_bars_and_no_raw_state():
    shown = on_a_terminal(
        """
import time
import rabbitry as ray
from rabbitry.experimental import tqdm_ray
ray.init(num_cpus=1)
@ray.remote
def work():
    print("working")
    for _ in tqdm_ray.tqdm(range(5), desc="the bar", flush_interval_s=0):
        time.sleep(0.1)
ray.get(work.remote())
"""
    )
    assert re.search(r"\x1b\[36m\(work pid=\d+\)\x1b\[0m working", shown)
    assert "the bar:  60%|" in shown
    assert "magic_token" not in shown


@pytest.mark.parametrize("encoding", ["JSON", "TEXT"])
def test_a_job_logs_as_its_configuration_says(encoding):
    result = run(
        f"""
import logging
import rabbitry as ray
ray.init(num_cpus=1, logging_config=ray.LoggingConfig(encoding={encoding!r}, log_level="INFO"))
@ray.remote
def work():
    logging.getLogger("mine").info("from a task")
    return ray.get_runtime_context().get_task_id()
@ray.remote
class A:
    async def work(self):
        logging.getLogger("mine").info("from an actor")
        return ray.get_runtime_context().get_actor_id()
logging.getLogger("mine").info("from the driver")
a = A.options(name="named").remote()
print(ray.get([work.remote(), a.work.remote()]))
"""
    )
    task_id, actor_id = re.findall(r"'([0-9a-f]+)'", result.stdout)
    lines = [line for line in result.stderr.splitlines() if "from a" in line or "from the driver" in line]
    assert len(lines) == 3
    if encoding == "TEXT":
        (of_task,) = [line for line in lines if "from a task" in line]
        assert f" task_id={task_id} task_name=work " in of_task
        return
    facts = {each["message"]: each for each in map(json.loads, lines)}
    assert facts["from a task"]["task_id"] == task_id
    assert facts["from an actor"]["actor_id"] == actor_id
    assert facts["from an actor"]["actor_name"] == "named"
    assert len({each["job_id"] for each in facts.values()}) == 1
    assert len({each["node_id"] for each in facts.values()}) == 1
    assert "task_id" not in facts["from the driver"]
