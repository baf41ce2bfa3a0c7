"""Lines out of what executors print."""

from __future__ import annotations

import os

import pytest

from rabbitry_broker.output_marks import for_pipe
from rabbitry_workers.node.services import output
from rabbitry_workers.node.services.output import GATHER_SECONDS, LINE_BYTES_MAX, LITTLE_BYTES, OutputReader, _Pipe
from tests.workers.node.fakes import FakeExecutor, World


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


class Watched:
    """An executor whose pipes a node reads, and what was published of it: lists of lines."""

    def __init__(self):
        self.loop = (world := World()).loop
        self.reader = OutputReader(world.node, lambda name: None)
        self.published = []
        self.reader.send = lambda job, message: self.published.append(message[5])
        self.executor = FakeExecutor()
        (self.fd, self.writes), (errors, self.error_writes) = os.pipe(), os.pipe()
        self.executor.outputs = (self.fd, errors)
        self.reader.watch(self.executor)

    def write(self, data):
        """Print; return whether the node was woken for that."""
        os.write(self.writes, data)
        return self.loop.ready(self.fd)

    def end(self):
        for fd in (self.writes, self.error_writes):
            os.close(fd)
        for fd in self.executor.outputs:
            self.loop.ready(fd)
        assert not self.loop.handlers, "its pipes have ended"


@pytest.fixture
def watched():
    made = Watched()
    yield made
    made.loop.run(GATHER_SECONDS)
    made.end()


def test_lines_that_come_one_by_one_are_published_together(watched):
    assert watched.write(b"first\n")
    assert watched.published == [[b"first"]], "a lone line at once"
    assert not watched.write(b"second\n")
    assert not watched.write(b"third\n")
    watched.loop.run(GATHER_SECONDS)
    assert watched.loop.ready(watched.fd)
    assert watched.published[1:] == [[b"second", b"third"]]


def test_who_prints_much_is_read_without_pause(watched):
    many = b"x" * LITTLE_BYTES + b"\n"
    assert watched.write(many)
    assert watched.write(many)
    assert len(watched.published) == 2


def test_what_gathers_when_a_process_ends_is_published(watched):
    watched.write(b"first\n")
    watched.write(b"second\n")
    watched.reader.ended(watched.executor)
    assert watched.published == [[b"first"], [b"second"]]


def test_the_end_of_a_pipe_and_a_new_one_of_its_number_are_no_matter(watched):
    watched.write(b"first\n")
    pipe = watched.reader._pipes.pop(watched.fd)
    watched.loop.update_handler(watched.fd, 0)
    watched.loop.run(GATHER_SECONDS)
    assert watched.loop.wanted[watched.fd] == 0, "that of a pipe which has ended since is left alone"
    watched.reader._pipes[watched.fd] = pipe
    watched.loop.update_handler(watched.fd, watched.loop.READ)
