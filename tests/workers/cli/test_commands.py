"""Commands, without a cluster: what they are told, and what they refuse."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import pytest

from rabbitry_workers.cli import main, microbenchmark
from rabbitry_workers.cli.microbenchmark import rate
from rabbitry_workers.cli.seeing import filter_of


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("state=RUNNING", ("state", "=", "RUNNING")),
        ("name!=f", ("name", "!=", "f")),
        ("name=a=b", ("name", "=", "a=b")),
        (" name = x", ("name", "=", " x")),
    ],
)
def test_a_filter_is_a_column_and_a_value(text: str, meant: tuple[str, str, str]) -> None:
    assert filter_of(text) == meant


@pytest.mark.parametrize("text", ["state", "=RUNNING", "!=x", ""])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="key=value"):
        filter_of(text)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cancel", "beef", "--yes"], "no id of a task: it has 48 hexadecimal digits"),
        (["kill-actor"], "its id, or --name"),
        (["kill-actor", "aa", "--name", "b"], "its id, or --name"),
        (["microbenchmark", "--seconds", "0"], "more than 0"),
        (["memory", "-n", "-1"], "must be 0 or more"),
        (["logs", "task"], "Say --id ID"),
        (["logs", "worker"], "--id ID or --pid PID"),
        (["logs", "task", "abc"], "say `--id abc`"),
        (["stop"], "say which nodes to stop"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rabbitry: ")
    assert told in line


def test_a_rate_is_what_was_done_in_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(microbenchmark, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def operation() -> None:
        clock[0] += 0.25

    assert rate(operation, 10, 1.0) == 40.0


def test_an_embedded_session_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["microbenchmark", "--seconds", "0.05", "--filter", "get of"]) == 0
    assert "get of a small object" in capsys.readouterr().out
