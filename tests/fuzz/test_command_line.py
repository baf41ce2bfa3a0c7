"""Odd arguments of the command line: a line that says what is wrong and an exit code, soon; never a traceback.

The servers that are named are not there, so that nothing starts: whatever is wrong with an argument is said before.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Iterator

import pytest

from rabbitry_workers.cli import main

ODD = (
    "", " ", "-1", "0", "1e400", "nan", "inf", "-inf", "1" * 5000, "x" * 100_000, "\ud800", "a\0b", "\r\n", "{}%s%d",
    "[]", "{", '{"": -1}', '{"CPU": 1}', '{"x": NaN}', '{"x": 1e999}', '{"\\ud800": 1}', "[" * 10_000, "=", "a=b=c",
    "--", "-", "../../etc/passwd", "amqp://", "amqp://[", "redis://:x@", "unix://", "http://127.0.0.1:1", "ä", "💥",
)  # fmt: skip

NOWHERE = ("--address", "amqp://127.0.0.1:1", "--store", "redis://127.0.0.1:1")
OPTIONS = {
    "start": ("--num-cpus", "--num-gpus", "--memory", "--resources", "--labels", "--name", "--node-ip-address"),
    "status": ("--format", "--prefix"),
    "stop": ("--prefix",),
    "health": ("--name",),
}
SERVERS = ("--address", "--store")
SECONDS = 10.0
"""For one of them: two are meant, on a machine that has nothing else to do."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory) -> None:
    """A secret, and nothing else that names a cluster."""
    for name in ("RABBITRY_BROKER_URL", "RABBITRY_STORE_URL", "RABBITRY_ADDRESS", "RABBITRY_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RABBITRY_SECRET", "0123456789abcdef0123")
    monkeypatch.chdir(str(tmp_path))


def cases() -> Iterator[list[str]]:
    """Yield command lines."""
    for command, options in OPTIONS.items():
        for at_value, value in enumerate(ODD):
            for at_option, option in enumerate(options):
                if command == "start" and (at_value + at_option) % 2:
                    continue  # for the sake of time: what is allowed begins to start a node
                yield [command, *NOWHERE, f"{option}={value}"]
            for option in SERVERS:
                at = NOWHERE.index(option) + 1
                yield [command, *NOWHERE[:at], value, *NOWHERE[at + 1 :]]
            yield [command, *NOWHERE, value]
    for value in ODD:
        yield [value]


def run(arguments: list[str]) -> tuple[object, str]:
    """Return the exit code, and what was written."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        try:
            code: object = main(arguments)
        except SystemExit as end:
            code = end.code
    return code, written.getvalue()


def complaint(arguments: list[str]) -> str:
    """Return what is wrong with how a command line ended; "" if nothing."""
    began = time.monotonic()
    try:
        code, written = run(arguments)
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if time.monotonic() - began > SECONDS:
        return f"it took {time.monotonic() - began:.1f} s"
    if not isinstance(code, int) or not code:
        return f"it ended with {code!r}: {written[:200]!r}"
    if "Traceback" in written or not written.strip():
        return f"it wrote {written[:300]!r}"
    if len(written) > 5000:
        return f"it wrote {len(written)} characters"
    if re.search("codec can't|recursion depth|object has no|embedded null|not supported between", written):
        return f"it tells of our code: {written[-300:]!r}"
    return ""


@pytest.mark.timeout(240)
def test_odd_arguments_are_answered_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # nobody waits for servers that are not there
    wrong = []
    for arguments in cases():
        why = complaint(arguments)
        if why:
            wrong.append(f"{[each[:60] for each in arguments]}: {why}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:40])
