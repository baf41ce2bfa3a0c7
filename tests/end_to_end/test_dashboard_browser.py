"""The pages of a cluster at work in a real browser, on both engines; `make dashboard-test` runs these."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import ActorDiedError, TaskCancelledError
from rabbitry.util.placement_group import placement_group, remove_placement_group
from tests.browser import WIDTHS, Reader, open_chromium
from tests.end_to_end.conftest import node_environment
from tests.servers import free_port, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PAGES = ("jobs", "tasks", "actors", "nodes", "groups", "objects", "queues", "put-aside", "logs", "timeline")
TIMEOUT = 60


@rabbitry.remote(num_cpus=0.1)
def double(number: int) -> int:
    return 2 * number


@rabbitry.remote(num_cpus=0.1, max_retries=0)
def breaks() -> None:
    raise ValueError("no <b>such</b> thing")


@rabbitry.remote(num_cpus=0.1)
def speaks(path: Path) -> None:
    print("first words")
    (path / "begun").touch()
    while not (path / "go").exists():
        time.sleep(0.02)
    print("last words")
    time.sleep(3600)


@rabbitry.remote(num_cpus=0.1)
class Teller:
    def ready(self) -> bool:
        return True


class Dashboard:
    """`rabbitry dashboard` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        port = free_port()
        self.url, self.token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rabbitry_workers", "dashboard", "--port", str(port), *arguments],
            env={**node_environment(), "RABBITRY_DASHBOARD_TOKEN": self.token},
            stdout=subprocess.DEVNULL,
        )

    def answers(self) -> bool:
        assert self.process.poll() is None, "the dashboard has ended"
        try:
            return bool(urllib.request.urlopen(f"{self.url}/api/healthz", timeout=10).status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(session: str) -> Iterator[Dashboard]:
    context = rabbitry.get_runtime_context()
    made = Dashboard(*(["--address", context.gcs_address] if session == "embedded" else []))
    try:
        wait_until(made.answers, "the dashboard answers", timeout=TIMEOUT)
        yield made
    finally:
        made.process.terminate()
        made.process.wait(20)


@pytest.fixture(scope="module")
def work(session: str) -> Iterator[None]:
    """Something of each kind."""
    actor = Teller.options(name="teller").remote()
    large = rabbitry.put(bytes(300_000))
    group = placement_group([{"CPU": 0.1}], name="a group")
    rabbitry.get([group.ready(), actor.ready.remote(), *(double.remote(each) for each in range(20))], timeout=TIMEOUT)
    with pytest.raises(ValueError, match="such"):
        rabbitry.get(breaks.remote(), timeout=TIMEOUT)
    yield
    remove_placement_group(group)
    del actor, large


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_of_a_cluster_at_work(
    chromium: Any, served: Dashboard, session: str, work: None, width: str
) -> None:
    shown = {
        "tasks": "double",
        "actors": "teller",
        "nodes": "alive",
        "groups": "a group",
        "objects": "293.0 KiB",
        "queues": "CPU=0.1",
        "put-aside": "Nothing",
    }
    with Reader(chromium, served, width=WIDTHS[width]) as reader:
        reader.page.set_default_timeout(TIMEOUT * 1000)
        reader.page.locator(".plot svg").wait_for()
        reader.sees("nodes alive")
        reader.picture(f"{session}-overview-{width}")
        for page in PAGES:
            if page == "timeline":  # what ran long ago is not in it
                rabbitry.get(double.remote(1), timeout=TIMEOUT)
            reader.go(f"/{page}")
            reader.page.locator("h1").first.wait_for()
            if page == "timeline":
                reader.page.locator("svg.spans").wait_for()
            if page in shown:
                reader.sees(shown[page])
            reader.needs_no_scrolling_sideways()
            inside = "[...document.querySelectorAll('.rows')].every(each => each.scrollWidth <= each.clientWidth + 1)"
            assert reader.page.evaluate(inside), f"the table of {page} is wider than its place"
            reader.picture(f"{session}-{page}-{width}")


def test_what_failed_is_shown_as_text(chromium: Any, served: Dashboard, work: None) -> None:
    with Reader(chromium, served) as reader:
        reader.page.set_default_timeout(TIMEOUT * 1000)
        reader.go("/tasks?state=failed")
        reader.page.locator("tbody a", has_text="breaks").first.click()
        reader.sees("no <b>such</b> thing")
        reader.sees("TASK_EXECUTION_EXCEPTION")


def test_a_task_is_followed_and_cancelled_and_an_actor_killed(
    chromium: Any, served: Dashboard, work: None, tmp_path: Path
) -> None:
    actor = Teller.remote()
    rabbitry.get(actor.ready.remote(), timeout=TIMEOUT)
    ref = speaks.remote(tmp_path)
    wait_until((tmp_path / "begun").exists, "it runs", timeout=TIMEOUT)
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(TIMEOUT * 1000)
        reader.go(f"/tasks/{ref.task_id().hex()}")
        page.get_by_role("link", name="what it printed").click()
        reader.sees("first words")
        (tmp_path / "go").touch()
        reader.sees("last words")
        reader.go(f"/tasks/{ref.task_id().hex()}")
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_label("End its process if it runs (force)").check()
        page.get_by_role("button", name="Cancel the task").click()
        with pytest.raises((TaskCancelledError, rabbitry.exceptions.WorkerCrashedError)):
            rabbitry.get(ref, timeout=TIMEOUT)
        page.locator(".badge.failed").first.wait_for()
        reader.go(f"/actors/{actor._actor_id.hex()}")
        page.get_by_role("button", name="Kill…").click()
        page.get_by_role("button", name="Kill the actor").click()
        reader.sees("DEAD")
        with pytest.raises(ActorDiedError):
            rabbitry.get(actor.ready.remote(), timeout=TIMEOUT)


def test_a_node_shows_its_processes(chromium: Any, served: Dashboard, work: None) -> None:
    with Reader(chromium, served) as reader:
        reader.page.set_default_timeout(TIMEOUT * 1000)
        reader.go(f"/nodes/{current.client().node_records()[0]['id'].hex()}")
        reader.sees("CPU (lent)")
        reader.sees("Teller")
