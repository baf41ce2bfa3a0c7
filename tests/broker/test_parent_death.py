"""A process that must not outlive its parent does not, even if that has ended before it begins."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from rabbitry_broker.parent_death import die_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")


@pytest.mark.parametrize("gone", [True, False])
def test_one_whose_parent_ended_before_it_began_ends(gone: bool):
    parent = 2**30 if gone else os.getpid()  # no process has such a number
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(parent=parent)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if gone else 0)
