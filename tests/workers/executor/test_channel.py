"""An executor whose agent is gone ends, whatever user code is about to make of that."""

from __future__ import annotations

import os
import socket

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
