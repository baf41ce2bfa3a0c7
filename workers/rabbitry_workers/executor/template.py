"""The template process: warm, without threads or connections, forks executors in milliseconds.

It speaks with the agent over one stream socket: the agent sends a fork request (one at a time), the template answers
with the child's pid and passes the child's descriptors along: channel, stdout, stderr, progress page. It also reports
exits. If the agent goes, the template ends the executors and what they have started, and goes, too. If the template
is killed, its children go with it (the kernel sends them SIGKILL, on Linux; elsewhere their channel ends).
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from rabbitry_broker.parent_death import die_with_parent
from rabbitry_workers.channel import Splitter, pack_message
from rabbitry_workers.executor import children, process, progress, seeds, streams
from rabbitry_workers.executor.ahead import ahead

FORKED = "forked"
EXITED = "exited"
FORK = "fork"
SET_UP = "set-up"
READY = "ready"
USELESS = "useless"

AGAIN_SECONDS = 0.5  # until the next try to fork

Begin = Callable[[socket.socket, int, dict[str, Any]], int]
"""What an executor does: with its channel, the page that it shares with its agent, and what it is told."""


def serve(control: socket.socket) -> NoReturn:
    """Body of the template process; ends when the agent closes its end."""
    from rabbitry_workers.executor.run import main as begin

    _prepare_for_children()
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
    executors: set[int] = set()
    while True:
        readable, _, _ = select.select([control.fileno(), wake_read], [], [], AGAIN_SECONDS if requests else None)
        if wake_read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(control, executors)
        if control.fileno() in readable:
            try:
                data = control.recv(65536)
            except ConnectionError:
                data = b""  # it went with something of ours unread
            if not data:
                for pid in executors:
                    left = children.descendants(pid)
                    children.end_group(pid)
                    children.end(left)
                os._exit(0)
            requests += splitter.feed(data)
        while requests:
            try:
                executors.add(_fork(control, begin, requests[0], (wake_read, wake_write)))
            except OSError as error:
                # Too many processes or open files: with this process all executors would end, whatever they run.
                print(f"rabbitry: no executor can be started now: {error}", file=sys.stderr, flush=True)
                break
            del requests[0]


def _prepare_for_children() -> None:
    """Do here what all children would do: what they do not touch is memory that they share."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # a node may have been started on a terminal, which is not ours to read
    os.close(nothing)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    streams.install()
    faulthandler.enable(2)
    streams.reset_logging()


def _reap(control: socket.socket, executors: set[int]) -> None:
    while True:
        try:
            pid, status = _collect()
        except ChildProcessError:
            return
        if pid == 0:
            return
        executors.discard(pid)
        with contextlib.suppress(OSError):
            control.sendall(pack_message([EXITED, pid, status]))


def _collect() -> tuple[int, int]:
    """Collect a child that has ended, and end what it left behind; return (pid, status), or (0, 0) for none."""
    if not hasattr(os, "waitid"):  # macOS
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            children.end_group(pid)
        return pid, status
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return 0, 0
    children.end_group(ended.si_pid)  # before its id is free for others
    return os.waitpid(ended.si_pid, 0)


def _fork(control: socket.socket, begin: Begin, request: list[Any], close: tuple[int, ...]) -> int:
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
        ahead.prepare(request[2])
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            pipes = (out_read, out_write, err_read, err_write)
            _child(parent, control, begin, request, close, ours, theirs, pipes, page)
        _lead_group(pid)  # also here: what comes next may need it before the child has come so far
        fds = [ours.fileno(), out_read, err_read, page]
        with contextlib.suppress(OSError):
            socket.send_fds(control, [pack_message([FORKED, pid, request[1]])], fds)
        return pid


def _lead_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)


def _child(
    parent: int,
    control: socket.socket,
    begin: Begin,
    request: list[Any],
    close: tuple[int, ...],
    ours: socket.socket,
    theirs: socket.socket,
    pipes: tuple[int, int, int, int],
    page: int,
) -> NoReturn:
    code = 1
    try:
        die_with_parent(parent=parent)
        _lead_group(0)
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
        streams.begin()
        seeds.anew()
        code = begin(theirs, page, request[2])
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


def main_of_environment() -> NoReturn:
    """Entry of the template of an environment: the same, but it is told first what that is."""
    control = socket.socket(fileno=os.dup(0))
    preload()
    try:
        _, config = _first_message(control)
        process.enter(config, first=True)
        control.sendall(pack_message([READY]))
    except BaseException as error:
        import traceback

        text = f"{process.as_text(error)}\n{traceback.format_exc()}"
        with contextlib.suppress(OSError):
            control.sendall(pack_message([USELESS, text.encode("utf-8", "backslashreplace").decode()]))
        os._exit(1)
    serve(control)


def _first_message(control: socket.socket) -> list[Any]:
    splitter = Splitter()
    while True:
        data = control.recv(1)  # what comes behind it is for `serve`
        if not data:
            os._exit(0)
        for message in splitter.feed(data):
            return message


def preload() -> None:
    """Import what executors need, before the first fork."""
    import rabbitry
    import rabbitry.generators  # noqa: F401
    import rabbitry_broker.queues.embedded.publisher  # noqa: F401
    from rabbitry_workers.actors import runners  # noqa: F401
    from rabbitry_workers.executor import run, titles, warming  # noqa: F401

    titles.preload()
    with contextlib.suppress(Exception):  # what is wrong is told where it is needed
        warming.warm()


if __name__ == "__main__":
    main()
