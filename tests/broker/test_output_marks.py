"""Marks of who printed what."""

from __future__ import annotations

import pytest

from rabbitry_broker.output_marks import begins_mark, escape, for_file, for_pipe, read_file_mark, split, unescape

TASK = b"\x07" * 24


@pytest.mark.parametrize("name", ["f", "module.<locals>.größer", "a\nb", "x" * 1000, ""])
def test_a_mark_is_found_where_it_stands(name: str) -> None:
    found = split(b"before" + for_pipe(TASK, name).encode() + b"after")
    assert found is not None
    before, task_id, shown, after = found
    assert (before, task_id, after) == (b"before", TASK, b"after")
    assert shown == name.encode()[:200].decode(errors="ignore").replace("\n", " ")
    assert split(b"no mark \0 here\n") is None


def test_every_beginning_of_a_mark_is_one() -> None:
    mark = for_pipe(TASK, "f").encode()
    for end in range(1, len(mark)):
        assert begins_mark(b"text" + mark[:end])
    assert not begins_mark(b"text")
    assert not begins_mark(b"\0text")


def test_marks_of_files_come_back_and_lines_of_users_are_none() -> None:
    line = for_file(TASK, b"\1\2", 'na"me', 1.0)
    assert read_file_mark(line.rstrip(b"\n")) == (TASK.hex(), "0102", 'na"me')
    assert line.startswith(b":rabbitry: 1970-01-01T00:00:01.000+00:00 ")
    forged = line.rstrip(b"\n")
    assert read_file_mark(escape(forged)) is None
    assert unescape(escape(forged)) == forged
    assert unescape(escape(b"text")) == b"text"
    assert read_file_mark(b":rabbitry: x task=0 actor= name=nonsense") is None
