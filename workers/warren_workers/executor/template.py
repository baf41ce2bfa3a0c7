"""The template process: warm, without threads or connections, forks executors in milliseconds.

It speaks with the agent over one stream socket: the agent sends a fork request (one at a time), the template answers
with the child's pid and passes the child's descriptors along: channel, stdout, stderr, progress page. It also reports
exits. If the agent goes, the template goes, and its children with it (the kernel sends them SIGKILL, on Linux;
elsewhere their channel ends).
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from warren_broker.parent_death import die_with_parent
from warren_workers.channel import Splitter, pack_message
from warren_workers.executor import progress

FORKED = "forked"
EXITED = "exited"
FORK = "fork"

AGAIN_SECONDS = 0.5  # until the next try to fork


def serve(control: socket.socket) -> NoReturn:
    """Body of the template process; ends when the agent closes its end."""
    gc.collect()
    gc.freeze()  # what is shared with the children stays shared: the collector will not touch it
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    splitter = Splitter()
    requests: list[list[Any]] = []
    while True:
        readable, _, _ = select.select([control.fileno(), wake_read], [], [], AGAIN_SECONDS if requests else None)
        if wake_read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(control)
        if control.fileno() in readable:
            data = control.recv(65536)
            if not data:
                os._exit(0)
            requests += splitter.feed(data)
        while requests:
            try:
                _fork(control, requests[0], (wake_read, wake_write))
            except OSError as error:
                # Too many processes or open files: with this process all executors would end, whatever they run.
                print(f"warren: no executor can be started now: {error}", file=sys.stderr, flush=True)
                break
            del requests[0]


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        with contextlib.suppress(OSError):
            control.sendall(pack_message([EXITED, pid, status]))


def _fork(control: socket.socket, request: list[Any], close: tuple[int, ...]) -> None:
    with contextlib.ExitStack() as opened:

        def keep(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        ours, theirs = socket.socketpair()
        opened.enter_context(ours)
        opened.enter_context(theirs)
        out_read, out_write = map(keep, os.pipe())
        err_read, err_write = map(keep, os.pipe())
        page = keep(progress.create())
        pid = os.fork()
        if pid == 0:
            _child(control, request, close, ours, theirs, (out_read, out_write, err_read, err_write), page)
        fds = [ours.fileno(), out_read, err_read, page]
        with contextlib.suppress(OSError):
            socket.send_fds(control, [pack_message([FORKED, pid, request[1]])], fds)


def _child(
    control: socket.socket,
    request: list[Any],
    close: tuple[int, ...],
    ours: socket.socket,
    theirs: socket.socket,
    pipes: tuple[int, int, int, int],
    page: int,
) -> NoReturn:
    code = 1
    try:
        die_with_parent()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        control.close()
        ours.close()
        for fd in close:
            os.close(fd)
        os.dup2(pipes[1], 1)
        os.dup2(pipes[3], 2)
        for fd in pipes:
            os.close(fd)
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        from warren_workers.executor import run

        code = run.main(theirs, page, request[2])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> NoReturn:
    """Entry of a template that was started anew (the first one died): the control socket is descriptor 0."""
    control = socket.socket(fileno=os.dup(0))
    preload()
    serve(control)


def preload() -> None:
    """Import what executors need, before the first fork."""
    import warren
    import warren.generators  # noqa: F401
    import warren_broker.queues.embedded.publisher  # noqa: F401
    from warren_workers.actors import runners  # noqa: F401
    from warren_workers.executor import run  # noqa: F401


if __name__ == "__main__":
    main()
