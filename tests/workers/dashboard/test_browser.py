"""The pages in a real browser, as people see and use them; `make dashboard-test` runs these.

With RABBITRY_SCREENSHOTS naming a directory, pictures of all pages in both widths and themes are left there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import WIDTHS, Reader, open_chromium
from tests.workers.dashboard.conftest import TOKEN, Served
from tests.workers.dashboard.fakes import NODES, identity
from tests.workers.dashboard.test_pages import PAGES

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

FIRST_PAGE_SECONDS = 1.0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with open_chromium() as browser:
        yield browser


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_each_page_in_each_width_and_theme(chromium: Any, served: Served, width: str, theme: str):
    with Reader(chromium, served, width=WIDTHS[width], theme=theme) as reader:
        page = reader.page
        for path in PAGES:
            reader.go(path)
            page.locator("h1").first.wait_for()
            page.wait_for_timeout(300)
            assert not page.evaluate("window.evil"), f"markup of a user was run on {path}"
            reader.needs_no_scrolling_sideways()
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            dark = sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) < 200
            assert dark == (theme == "dark"), f"{path} is {ground} in the {theme} theme"
            reader.picture(f"{path.strip('/').partition('?')[0].replace('/', '-')[:20] or 'overview'}-{width}-{theme}")


def test_the_first_page_comes_at_once(chromium: Any, served: Served):
    took = []
    for _ in range(3):
        with Reader(chromium, served) as reader:
            begin = time.perf_counter()
            reader.go("/")
            reader.page.locator(".plot svg").wait_for()
            took.append(time.perf_counter() - begin)
    assert min(took) < FIRST_PAGE_SECONDS, took


def test_without_a_token_there_is_a_page_to_log_in(chromium: Any, served: Served):
    with Reader(chromium, served, login=False) as reader:
        page = reader.page
        reader.go("/tasks")
        assert page.url.endswith("/login")
        page.get_by_label("Token").fill("a wrong one")
        page.get_by_role("button", name="Log in").click()
        reader.sees("not the token")
        reader.wrong.clear()  # the browser says on its console that it was refused
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="fake cluster").wait_for()
        cookies = reader.context.cookies()
        assert all(cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in cookies)
        assert TOKEN not in str(cookies)
        assert page.evaluate("document.cookie") == ""


def test_numbers_change_while_one_looks(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        number = reader.page.locator(".tile").first.locator(".number")
        before = reader.page.locator(".plot svg").inner_html()
        served.tell("tick 500")
        reader.page.wait_for_function("before => document.querySelector('.plot svg').innerHTML != before", arg=before)
        reader.page.wait_for_function("document.querySelector('.tile .number').textContent != '0'")
        assert number.inner_text() != "0"


def test_a_paused_page_stays_as_it_is(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        reader.go("/tasks")
        total = reader.page.locator(".pager span")
        reader.page.get_by_role("button", name="Pause").click()
        reader.page.get_by_role("button", name="Go on").wait_for()
        before = total.inner_text()
        served.tell("tick 10")
        reader.page.wait_for_timeout(2500)
        assert total.inner_text() == before
        reader.page.get_by_role("button", name="Go on").click()
        reader.page.wait_for_function(
            "before => document.querySelector('.pager span').textContent != before", arg=before
        )


def test_the_theme_is_remembered(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        reader.page.get_by_role("button", name="Theme: auto").click()
        reader.page.get_by_role("button", name="Theme: dark").wait_for()
        reader.page.wait_for_function("document.cookie.includes('rabbitry-theme=dark')")
        reader.go("/nodes")
        reader.page.get_by_role("button", name="Theme: dark").wait_for()
        reader.page.wait_for_function("document.body.classList.contains('body--dark')")


def test_a_task_is_cancelled_after_a_question(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        page = reader.page
        reader.go("/tasks?state=running")
        page.locator("tbody a").first.click()
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_role("button", name="Keep it").click()
        page.get_by_role("alertdialog").wait_for(state="hidden")
        assert not [call for call in served.tell("calls") if call.startswith("cancel")]
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_label("End its process if it runs (force)").check()
        page.get_by_role("button", name="Cancel the task").click()
        reader.sees("Cancelled function_")
        page.locator(".badge.failed").first.wait_for()
        calls = [call for call in served.tell("calls") if call.startswith("cancel")]
        assert len(calls) == 1
        assert calls[0].endswith("True")
        page.get_by_role("button", name="Cancel…").wait_for(state="hidden")


def test_an_actor_is_killed_and_a_refusal_is_told(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        page = reader.page
        reader.go(f"/actors/{'d4' * 16}")
        page.get_by_role("button", name="Kill…").click()
        page.get_by_role("button", name="Kill the actor").click()
        reader.sees("Killed.")
        assert f"kill {'d4' * 16} False" in served.tell("calls")
        reader.go(f"/nodes/{NODES[0]}")
        page.get_by_role("button", name="Drain…").click()
        page.get_by_role("button", name="Drain the node").click()
        reader.sees("The node is gone <img")
        assert not page.evaluate("window.evil")


def test_the_stack_of_a_worker_at_a_click(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        reader.go(f"/nodes/{NODES[0]}")
        reader.page.get_by_role("button", name="Stack").first.click()
        reader.sees("function_3 (x.py:12)")
        reader.page.get_by_role("button", name="Look again").click()
        reader.page.get_by_role("button", name="Close").click()
        reader.page.get_by_role("button", name="Look again").wait_for(state="hidden")
        calls = [call for call in served.tell("calls") if call.startswith("stack")]
        assert len(calls) == 2
        assert not reader.page.evaluate("window.evil")


def test_all_of_it_by_keyboard(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        page = reader.page
        reader.go("/tasks")
        page.locator("tbody a").first.wait_for()
        page.keyboard.press("/")
        page.keyboard.type("function_7")
        reader.sees("function_7")
        page.wait_for_function(
            "[...document.querySelectorAll('tbody tr a')].every(a => !/function_[^7]$/.test(a.text))"
        )
        page.get_by_role("button", name="Name").focus()
        page.keyboard.press("Enter")
        page.locator("th[aria-sort=ascending]").wait_for()
        page.keyboard.press("Enter")
        page.locator("th[aria-sort=descending]").wait_for()
        page.locator("tbody a").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/tasks/7a*")
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", "one sees where one is"


def test_a_filter_is_kept_in_the_address(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        page = reader.page
        reader.go("/tasks")
        page.get_by_label("State").select_option("failed")
        page.wait_for_url("**/tasks?state=failed")
        page.wait_for_function("document.querySelectorAll('tbody .badge.failed').length >= 5")
        page.reload()
        page.wait_for_function("document.querySelectorAll('tbody .badge').length >= 5")
        assert not page.locator("tbody .badge:not(.failed)").count()
        assert page.get_by_label("State").input_value() == "failed"


def test_a_dead_redis_shows_a_banner_and_recovers(chromium: Any, served: Served):
    with Reader(chromium, served) as reader:
        page = reader.page
        reader.go("/queues")
        reader.sees("cpu=1,gpu=1")
        served.tell("down")
        try:
            page.get_by_role("alert").wait_for()
            reader.sees("cpu=1,gpu=1")  # what was known stays
            assert "does not answer" in page.get_by_role("alert").inner_text()
            assert not page.evaluate("window.evil")
        finally:
            served.tell("up")
        page.get_by_role("alert").wait_for(state="hidden")


def test_a_dashboard_that_ends_is_told_of(chromium: Any):
    other = Served(10)
    try:
        reader = Reader(chromium, other)
        other.close()
        reader.sees("Connection lost")
        reader.context.close()
    finally:
        if other.process.poll() is None:
            other.close()


def test_a_hundred_thousand_tasks(chromium: Any):
    other = Served(100_000)
    try:
        with Reader(chromium, other) as reader:
            page = reader.page
            reader.go("/tasks")
            reader.sees("1 to 50 of 100,000")
            page.get_by_role("button", name="Next").click()
            reader.sees("51 to 100 of 100,000")
            page.get_by_label("name or id").fill("function_2")
            reader.sees("of 17,389")  # with function_20, _21 and _22
            page.get_by_label("name or id").fill(identity(0x1234)[:40])
            page.wait_for_function("document.querySelectorAll('tbody tr').length > 0")
            assert page.evaluate("document.querySelectorAll('*').length") < 3000, "the browser has one page of them"
            before = other.processor_seconds()
            begin = time.perf_counter()
            while time.perf_counter() - begin < 8:
                other.tell("tick 200")
                page.wait_for_timeout(200)
            share = (other.processor_seconds() - before) / (time.perf_counter() - begin)
            print(f"\n100,000 tasks, 1,000 more each second: {share:.1%} of a core")
    finally:
        other.close()
