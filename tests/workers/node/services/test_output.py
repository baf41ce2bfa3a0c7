"""Lines out of what executors print."""

from __future__ import annotations

import pytest

from rabbitry_broker.output_marks import for_pipe
from rabbitry_workers.node.services import output
from rabbitry_workers.node.services.output import LINE_BYTES_MAX, _Pipe


class Reader:
    """Takes the place of an `OutputReader`: keeps what is published, looks when it is told to."""

    def __init__(self):
        self.lines = []
        self.marked = []
        self.looks = []

    def publish(self, executor, is_error, lines, mark):
        self.lines += lines
        self.marked += [(mark and mark[1], line) for line in lines]

    def later(self, seconds, pipe):
        self.looks.append(pipe.look)

    def pass_time(self):
        looks, self.looks = self.looks, []
        for look in looks:
            look()


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def pipe(reader):
    return _Pipe(reader, None, 7, False)


def test_lines_are_published_at_once_and_what_has_no_newline_after_a_while(reader, pipe):
    pipe.take(b"one\ntwo\n\nthr")
    assert reader.lines == [b"one", b"two", b""]
    pipe.take(b"ee")
    reader.pass_time()
    assert reader.lines[3:] == []  # it has grown
    reader.pass_time()
    assert reader.lines[3:] == [b"three"]
    assert reader.looks == []
    pipe.take(b"four")
    pipe.publish_rest()
    pipe.publish_rest()
    assert reader.lines[4:] == [b"four"]


def test_what_grows_for_ever_is_published_in_between(reader, pipe, monkeypatch):
    monkeypatch.setattr(output, "PARTIAL_SECONDS_MAX", 0.0)
    for _ in range(3):
        pipe.take(b".")
        reader.pass_time()
    assert reader.lines == [b"."] * 3


def test_carriage_returns_overwrite(reader, pipe):
    pipe.take(b"windows\r\n\r10%\r20%")
    reader.pass_time()
    reader.pass_time()
    pipe.take(b"\r\r")
    reader.pass_time()
    reader.pass_time()
    assert reader.lines == [b"windows", b"20%"]


def test_a_huge_line_comes_in_pieces_of_whole_characters(reader, pipe):
    text = "ü" * LINE_BYTES_MAX
    pipe.take(b"x" + text.encode())
    pipe.take(b"\n")
    assert len(reader.lines) == 3
    assert "".join(line.decode() for line in reader.lines) == "x" + text
    assert max(map(len, reader.lines)) <= LINE_BYTES_MAX


def test_a_character_that_has_come_in_part_waits_for_the_rest(reader, pipe):
    pipe.take("aü".encode()[:-1])
    reader.pass_time()
    reader.pass_time()
    pipe.take("aü".encode()[-1:] + b"\n")
    assert reader.lines == [b"a", "ü".encode()]


def test_lines_belong_to_the_task_of_the_last_mark(reader, pipe):
    one, two = for_pipe(b"\1" * 24, "one").encode(), for_pipe(b"\2" * 24, "two").encode()
    nobody = for_pipe(None, "").encode()
    pipe.take(b"before\n" + one + b"a\nb" + two + b"c\n" + nobody + b"d\n")
    # A line without an end is ended by the mark: what follows is another task's.
    assert reader.marked == [(None, b"before"), ("one", b"a"), ("one", b"b"), ("two", b"c"), (None, b"d")]


@pytest.mark.parametrize("cut", range(1, 66))
def test_a_mark_may_come_in_two_parts(reader, pipe, cut):
    data = b"x" + for_pipe(b"\1" * 24, "one").encode() + b"y\n"
    pipe.take(data[:cut])
    if cut > 1:
        reader.pass_time()
        reader.pass_time()
    pipe.take(data[cut:])
    assert reader.marked == [(None, b"x"), ("one", b"y")]


def test_what_only_looks_like_a_mark_is_text(reader, pipe):
    for text in (b"\0\x1drabbitry but no mark\n", b"\0binary\n", b"\0\x1drabbitry " + b"0" * 40 + b"\n"):
        pipe.take(text)
    assert len(reader.lines) == 3
    pipe.take(b"\0\x1drabb")
    pipe.publish_rest()
    assert reader.lines[3] == b"\0\x1drabb"
