"""The frame of the command line: its table of commands, its errors, completion, and what it prints."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence

import pytest
import yaml

from rabbitry_workers.cli import _parser, main
from rabbitry_workers.cli.commands import COMMANDS
from rabbitry_workers.cli.output import confirm, printable, show


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_every_command_of_the_table_has_a_module() -> None:
    assert set(COMMANDS) >= {"start", "status", "stop", "health", "completion"}
    for command in COMMANDS.values():
        module = command.load()
        assert callable(module.run)
        assert command.help.rstrip(".") == command.help
    _parser()


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["staus"], "status"),
        (["status", "--adress", "x"], "--address"),
        (["status", "--format", "yml"], "yaml"),
        (["status", "--adress=x"], "--address"),
    ],
)
def test_what_may_have_been_meant_is_asked(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], meant: str
) -> None:
    assert f"Did you mean '{meant}'?" in error_of(capsys, *arguments)


def test_what_is_like_nothing_is_an_error_without_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    told = error_of(capsys, "xyzzy")
    assert "invalid choice: 'xyzzy'" in told
    assert "Did you mean" not in told


def test_python_m_rabbitry_is_the_command_line() -> None:
    import rabbitry

    shown = run("-m", "rabbitry", "--version")
    assert shown.stdout.startswith(f"rabbitry {rabbitry.__version__}, Python {sys.version_info.major}.")
    assert "usage: rabbitry" in run("-m", "rabbitry", "--help").stdout


def test_a_command_loads_no_other_and_nothing_that_is_slow() -> None:
    program = (
        "import sys; from rabbitry_workers.cli import _parser; _parser('health');"
        "print([n for n in sys.modules if n.startswith('rabbitry_workers.cli.')"
        " or n.split('.')[0] in ('rich', 'yaml', 'pika', 'redis', 'pydantic', 'argcomplete')])"
    )
    loaded = run("-c", program).stdout
    for name in ("commands", "parsing", "health"):
        assert f"rabbitry_workers.cli.{name}" in loaded
    for name in ("rich", "yaml", "pika", "redis", "pydantic", "argcomplete", "cli.start", "cli.status"):
        assert name not in loaded


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert "rabbitry" in capsys.readouterr().out


def test_commands_and_their_arguments_are_completed(tmp_path: os.PathLike[str]) -> None:
    def completed(line: str) -> set[str]:
        found = os.path.join(tmp_path, "found")
        subprocess.run(
            [sys.executable, "-m", "rabbitry_workers"],
            env={
                **os.environ,
                "_ARGCOMPLETE": "3",  # words to leave out: `python -m rabbitry_workers`
                "_ARGCOMPLETE_IFS": "\n",
                "_ARGCOMPLETE_STDOUT_FILENAME": found,
                "COMP_LINE": f"python -m rabbitry_workers {line}",
                "COMP_POINT": str(len(f"python -m rabbitry_workers {line}")),
            },
            check=True,
            timeout=30,
        )
        with open(found, encoding="utf-8") as file:
            return {each.strip() for each in file.read().split("\n")}

    assert {"status", "start", "stop"} <= completed("st")
    assert completed("status --form") == {"--format"}
    assert {"json", "yaml"} <= completed("status --format ")


ROWS = [{"id": "a\x1b[31m", "state": "RUNNING", "size": 1.5, "more": {"x": 1}}, {"id": "b", "state": None}]


def test_a_table_is_plain_columns_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, {"id": "ID", "state": "STATE", "size": "SIZE"}, "table")
    assert capsys.readouterr().out.splitlines() == [
        "ID         STATE    SIZE",
        "a\\x1b[31m  RUNNING  1.5",
        "b",
    ]


def test_json_and_yaml_hold_the_rows_whole(capsys: pytest.CaptureFixture[str]) -> None:
    for format in ("json", "yaml"):
        show(ROWS, ["id"], format)
        out = capsys.readouterr().out
        assert yaml.safe_load(out) == ROWS
        assert "\x1b" not in out


def test_on_a_terminal_rich_draws_it_and_escapes_are_shown_as_text() -> None:
    program = (
        "from rabbitry_workers.cli.output import show\n"
        "show([{'id': 'a\\x1b[5mb', 'name': '[bold]x[/bold]'}], ['id', 'name'], 'table')"
    )
    master, slave = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", program], stdout=slave, check=True, timeout=30)
        shown = os.read(master, 1 << 16).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert "a\\x1b[5mb" in shown
    assert "[bold]x[/bold]" in shown
    assert "\x1b[5m" not in shown


def test_nobody_to_ask_is_an_error_and_yes_is_yes() -> None:
    assert confirm("all of it?", yes=True)
    result = run("-c", "from rabbitry_workers.cli.output import confirm; confirm('all?', yes=False)")
    assert "--yes" in result.stderr


def test_printable_leaves_text_as_it_is() -> None:
    assert printable("größer 東京") == "größer 東京"
    assert printable("\u202eabc") == "\\u202eabc"  # text that runs the other way


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        shown = subprocess.run(
            [sys.executable, "-m", "rabbitry", "completion", "bash"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writer)
    assert (shown.returncode, shown.stderr) == (141, "")
