"""Reading the files of a node: whole, by task or actor, from the end, and while they are rotated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rabbitry_broker.output_marks import escape, for_file
from rabbitry_workers.node.services.log_reading import LogReader

ONE, TWO, ACTOR = b"\1" * 24, b"\2" * 24, b"\3" * 16
FILE = "worker-aa11-bb22-7.out"


def written(path: Path, *parts: tuple[bytes, bytes, bytes]) -> None:
    with open(path, "ab") as file:
        for task, actor, text in parts:
            file.write(for_file(task, actor, "f", 0.0) + text)


def all_of(reader: LogReader, **asked: Any) -> bytes:
    data, place, ended = b"", None, False
    while not ended:
        piece, place, ended = reader.read(place=place, **asked)
        data += piece
    return data


@pytest.fixture
def reader(tmp_path: Path) -> LogReader:
    written(
        tmp_path / FILE, (ONE, b"", b"a\nb\n"), (TWO, b"", b"c\n"), (ONE, b"", escape(b":rabbitry: no mark") + b"\n")
    )
    written(tmp_path / "worker-cc33-bb22-8.out", (TWO, ACTOR, b"x\n"))
    written(tmp_path / "worker-cc33-bb22-8.err", (TWO, ACTOR, b"y\n"))
    (tmp_path / "lock").touch()
    return LogReader(tmp_path)


def test_a_file_is_read_without_its_marks(reader: LogReader) -> None:
    assert all_of(reader, file=FILE) == b"a\nb\nc\n:rabbitry: no mark\n"
    assert all_of(reader, file=FILE, task=ONE.hex()) == b"a\nb\n:rabbitry: no mark\n"
    assert all_of(reader, file=FILE, task=TWO.hex()) == b"c\n"


@pytest.mark.parametrize("limit", [1, 4100, 5000])
def test_it_is_read_in_pieces_wherever_they_end(reader: LogReader, tmp_path: Path, limit: int) -> None:
    of_one = [b"%d of one\n" % at for at in range(300)]
    for line in of_one:
        written(tmp_path / FILE, (ONE, b"", line), (TWO, b"", b"of two\n"))
    assert all_of(reader, file=FILE, limit=limit, task=ONE.hex()).endswith(b"".join(of_one))
    long = b"x" * 20000 + b"\n"
    written(tmp_path / FILE, (ONE, b"", long))
    assert all_of(reader, file=FILE, limit=limit, task=ONE.hex()).endswith(of_one[-1] + long)


def test_the_last_lines_of_a_part(reader: LogReader) -> None:
    assert reader.read(file=FILE, tail=2)[0] == b"c\n:rabbitry: no mark\n"
    assert reader.read(file=FILE, tail=2, task=ONE.hex())[0] == b"b\n:rabbitry: no mark\n"
    assert reader.read(file=FILE, tail=0)[0] == b""
    _, place, ended = reader.read(file=FILE, tail=1)
    assert ended
    assert reader.read(file=FILE, place=place)[0] == b""


def test_files_are_found_by_what_stands_in_them(reader: LogReader) -> None:
    assert reader.find(task=ONE.hex()) == [FILE]
    assert reader.find(task=TWO.hex(), suffix="out") == [FILE, "worker-cc33-bb22-8.out"]
    assert reader.find(actor=ACTOR.hex()) == ["worker-cc33-bb22-8.err", "worker-cc33-bb22-8.out"]
    assert reader.find(pid=7) == [FILE]
    assert reader.find(job="bb22", suffix="err") == ["worker-cc33-bb22-8.err"]
    assert reader.find(worker="aa") == [FILE]
    assert reader.find(worker="aa11" + "0" * 32) == [FILE]  # as Ray writes ids, with zeros behind
    assert reader.find(task="ff" * 24) == []
    assert reader.names("*.err") == {"worker_err": ["worker-cc33-bb22-8.err"]}


def test_what_comes_is_read_on_through_a_rotation(reader: LogReader, tmp_path: Path) -> None:
    data, place, _ = reader.read(file=FILE, task=ONE.hex())
    assert data.endswith(b"no mark\n")
    with open(tmp_path / FILE, "ab") as file:
        file.write(b"more\nhalf")
    os.replace(tmp_path / FILE, tmp_path / f"{FILE}.1")
    written(tmp_path / FILE, (TWO, b"", b"other\n"), (ONE, b"", b"new\n"))
    seen = b""
    for _ in range(5):
        data, place, ended = reader.read(file=FILE, place=place, task=ONE.hex())
        seen += data
    assert ended
    assert seen == b"more\nhalfnew\n"
    assert all_of(reader, file=FILE, task=ONE.hex()) == b"a\nb\n:rabbitry: no mark\nmore\nhalfnew\n"
    # Rotated twice while nobody looked: what is there is shown.
    os.unlink(tmp_path / f"{FILE}.1")
    place[0] = 1
    assert reader.read(file=FILE, place=place)[0] == b"other\nnew\n"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", ".", "..", "lock"])
def test_only_files_of_the_directory_are_read(reader: LogReader, tmp_path: Path, name: str) -> None:
    (tmp_path.parent / "secret").write_text("secret")
    with pytest.raises(ValueError, match="no name of a log file"):
        reader.read(file=name)


def test_what_is_not_there_is_told(reader: LogReader) -> None:
    with pytest.raises(FileNotFoundError, match="no log file 'nix'"):
        reader.read(file="nix")
    assert LogReader(Path("/nowhere")).names() == {}
    assert LogReader(Path("/nowhere")).find(pid=1) == []
