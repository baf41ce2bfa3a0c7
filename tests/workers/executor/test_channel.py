"""An executor whose agent is gone ends, whatever user code is about to make of that."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from rabbitry_workers.channel import BLOCKED, BlockingChannel
from rabbitry_workers.executor import run


def test_user_code_does_not_see_that_the_agent_is_gone():
    ours, theirs = socket.socketpair()
    ours.close()
    pid = os.fork()
    if pid == 0:
        code = 7
        try:
            BlockingChannel(theirs, run._agent_is_gone).send([BLOCKED, 0, False])
        except OSError:
            code = 8  # what a task, in whose `get` this happens, would fail with
        finally:
            os._exit(code)
    theirs.close()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_it_waits_on_a_socket_that_an_event_loop_watches() -> None:
    """Such a loop (that of uvloop) makes a socket non-blocking, for all who use it."""
    ours, theirs = socket.socketpair()
    channel, other = BlockingChannel(ours), BlockingChannel(theirs)
    os.set_blocking(ours.fileno(), False)
    large = b"x" * (8 << 20)
    answers: list[Any] = []

    def answer() -> None:
        answers.append(other.receive())
        time.sleep(0.01)
        other.send(["answer"])

    thread = threading.Thread(target=answer)
    thread.start()
    channel.send(["word", large])
    assert channel.receive() == ["answer"]
    thread.join()
    assert answers == [["word", large]]
    ours.close()
    theirs.close()
