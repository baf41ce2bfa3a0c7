"""What tasks and actors print, as the driver shows it, on both engines."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time

import pytest

import rabbitry
from rabbitry.exceptions import WorkerCrashedError
from tests.end_to_end.conftest import node_environment
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


class Shown:
    """What was printed here; every line with its process id left out."""

    def __init__(self, capsys):
        self._capsys = capsys
        self.out: list[str] = []
        self.err: list[str] = []

    def look(self):
        captured = self._capsys.readouterr()
        for lines, text in ((self.out, captured.out), (self.err, captured.err)):
            lines += re.sub(r"^(\(.*)pid=\d+\) ", r"\1pid) ", text, flags=re.MULTILINE).splitlines()

    def wait_for(self, line):
        def came():
            self.look()
            return line in self.out + self.err

        wait_until(came)


@pytest.fixture
def shown(capsys):
    return Shown(capsys)


def test_lines_and_what_has_no_newline(shown, tmp_path):
    @rabbitry.remote
    def speak():
        print("a line", end="\n\n")
        print("to stderr", file=sys.stderr)
        print("carriage\rreturn\r")
        subprocess.run("echo from a child; echo its stderr >&2", shell=True, check=True)
        os.write(1, b"from C\n")
        print("no newline", end="")

    rabbitry.get(speak.remote(), timeout=TIMEOUT)
    shown.wait_for("(speak pid) no newline")
    shown.wait_for("(speak pid) its stderr")  # by another pipe
    assert shown.out == [
        f"(speak pid) {text}" for text in ("a line", "", "return", "from a child", "from C", "no newline")
    ]
    assert shown.err == [f"(speak pid) {text}" for text in ("to stderr", "its stderr")]


def test_what_has_no_newline_is_shown_while_the_task_runs(shown, tmp_path):
    go = tmp_path / "go"

    @rabbitry.remote
    def wait():
        print("waiting", end="")
        while not go.exists():
            time.sleep(0.02)

    ref = wait.remote()
    shown.wait_for("(wait pid) waiting")
    go.touch()
    rabbitry.get(ref, timeout=TIMEOUT)


def test_what_has_no_newline_is_shown_when_the_process_exits_at_once(shown):
    @rabbitry.remote(max_retries=0)
    def leave():
        print("last words", end="")
        os._exit(3)

    with pytest.raises(WorkerCrashedError):
        rabbitry.get(leave.remote(), timeout=TIMEOUT)
    shown.wait_for("(leave pid) last words")


def test_actors_are_shown_by_class_or_as_they_say(shown):
    @rabbitry.remote(num_cpus=0)
    class Plain:
        def speak(self):
            print("plain")
            thread = threading.Thread(target=lambda: print("a thread"))
            thread.start()
            thread.join()

    @rabbitry.remote(num_cpus=0)
    class Named:
        def __init__(self):
            print("begins")

        def __repr__(self):
            return "Named(1)"

        async def speak(self):
            print("named")

    actors = [Plain.remote(), Named.remote()]
    rabbitry.get([actor.speak.remote() for actor in actors], timeout=TIMEOUT)
    for line in ("(Plain pid) plain", "(Plain pid) a thread", "(Named pid) begins", "(Named(1) pid) named"):
        shown.wait_for(line)


def test_the_root_logger_is_the_users(shown):
    @rabbitry.remote(max_calls=1)
    def log():
        before = logging.getLogger().level, len(logging.getLogger().handlers)
        logging.basicConfig(level=logging.DEBUG, format="MINE %(message)s")
        logging.getLogger("library").debug("heard")
        logging.getLogger("rabbitry.queues").debug("noise")
        return before

    assert rabbitry.get(log.remote(), timeout=TIMEOUT) == (logging.WARNING, 0)
    shown.wait_for("(log pid) MINE heard")
    assert shown.err == ["(log pid) MINE heard"]


def test_the_last_words_are_shown_before_shutdown_returns(session, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import rabbitry, sys\n"
        "@rabbitry.remote\n"
        "def speak():\n"
        "    print('last words')\n"
        "    print('and', end='')\n"
        f"rabbitry.init(address={'auto' if session == 'rabbitmq' else 'local'!r}, logging_level=40)\n"
        "rabbitry.get(speak.remote())\n"
        "rabbitry.shutdown()\n"
        "print('driver')\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=TIMEOUT, env=node_environment()
    )
    lines = re.sub(r"pid=\d+", "pid", done.stdout).splitlines()
    assert lines == ["(speak pid) last words", "(speak pid) and", "driver"], done.stderr
