"""The token of the HTTP service: made once, private, or from a variable."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from rabbitry import dashboard_token
from rabbitry.dashboard_token import TokenError


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("RABBITRY_DASHBOARD_TOKEN", raising=False)
    return tmp_path / "rabbitry" / "dashboard-token"


def test_it_is_made_once_and_for_the_user_alone(home: Path) -> None:
    assert dashboard_token.known_token() is None
    made = dashboard_token.token()
    assert len(made) >= 40
    assert dashboard_token.token() == dashboard_token.known_token() == made
    assert stat.S_IMODE(home.stat().st_mode) == 0o600
    assert os.listdir(home.parent) == [home.name]


def test_of_two_that_make_one_at_the_same_time_the_first_stands() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(dashboard_token.token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_one_that_others_can_read_is_refused(home: Path) -> None:
    dashboard_token.token()
    home.chmod(0o640)
    with pytest.raises(TokenError, match="chmod 600"):
        dashboard_token.token()


def test_the_variable_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITRY_DASHBOARD_TOKEN", "one-that-somebody-chose")
    assert dashboard_token.token() == "one-that-somebody-chose"


@pytest.mark.parametrize("text", ["short", "with a blank in the middle", "x" * 600, "ünïcode-and-long-enough"])
def test_a_weak_or_strange_one_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("RABBITRY_DASHBOARD_TOKEN", text)
    with pytest.raises(TokenError, match="RABBITRY_DASHBOARD_TOKEN"):
        dashboard_token.token()


def test_where_nothing_can_be_written_the_variable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(TokenError, match="set RABBITRY_DASHBOARD_TOKEN"):
        dashboard_token.token()
