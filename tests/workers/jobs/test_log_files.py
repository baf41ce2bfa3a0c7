"""Logs of jobs: bounded, read by position, and honest about what is gone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rabbitry_workers.jobs.log_files import (
    SHORTEST_SEGMENT,
    LogWriter,
    log_directory,
    logs_kept,
    make_log_directory,
    read_log,
    read_tail,
)


def all_of(directory: Path, position: int = 0, limit: int = 1000) -> bytes:
    found = b""
    while True:
        part = read_log(directory, position, limit)
        if not part.data:
            return found
        found, position = found + part.data, part.end


def test_what_was_written_is_read_from_any_position(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, 64 * SHORTEST_SEGMENT)
    text = b"".join(b"line %d\n" % number for number in range(3000))
    for at in range(0, len(text), 700):
        writer.write(text[at : at + 700])
    assert writer.end == len(text)
    assert all_of(tmp_path) == text
    assert all_of(tmp_path, 12345) == text[12345:]
    assert read_log(tmp_path, len(text)) == (b"", len(text), len(text))
    assert read_log(tmp_path, -10).data == text[-10:]


def test_a_log_holds_no_more_than_its_limit_and_says_what_is_gone(tmp_path: Path) -> None:
    limit = 8 * SHORTEST_SEGMENT
    writer = LogWriter(tmp_path, limit)
    for number in range(100):
        writer.write(b"%06d\n" % number * 1000)
    held = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert limit - SHORTEST_SEGMENT <= held <= limit
    part = read_log(tmp_path, 0)
    assert part.start == writer.end - held
    assert all_of(tmp_path)[-7:] == b"000099\n"


def test_a_later_writer_goes_on_where_the_log_ends(tmp_path: Path) -> None:
    first = LogWriter(tmp_path)
    first.write(b"one ")
    first.close()
    second = LogWriter(tmp_path)
    second.write(b"two")
    assert (all_of(tmp_path), second.end) == (b"one two", 7)


def test_what_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert read_log(tmp_path / "no", 7) == (b"", 7, 7)
    assert read_tail(tmp_path / "no", 10, 100) == ""


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, 8 * SHORTEST_SEGMENT)
    writer.write(b"".join(b"%d\n" % number for number in range(5000)))
    assert read_tail(tmp_path, 3, 1000) == "4997\n4998\n4999\n"
    assert read_tail(tmp_path, 100, 7) == "8\n4999\n"
    writer.write(b"no end")
    assert read_tail(tmp_path, 1, 1000) == "no end"


def test_only_its_user_reads_it(tmp_path: Path) -> None:
    LogWriter(tmp_path).write(b"secret")
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["raysubmit_1", "../../etc", "ü" * 300, "."])
def test_any_name_has_a_directory_of_its_own_below_the_nodes(tmp_path: Path, name: str) -> None:
    directory = log_directory(tmp_path, name, 1.5)
    assert directory.parent == tmp_path / "jobs"
    make_log_directory(directory, name)
    make_log_directory(log_directory(tmp_path, "other", 1.5), "other")
    assert logs_kept(tmp_path) == {directory: name, log_directory(tmp_path, "other", 1.5): "other"}
