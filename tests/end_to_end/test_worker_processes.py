"""What user code finds in the process that runs it, and how that process ends, on both engines."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import rabbitry
from rabbitry.exceptions import TaskCancelledError, WorkerCrashedError
from tests.end_to_end.waiting import wait_for_file, wait_until

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


def local_functions():
    """Return functions that workers get by value: importing this module there takes its time."""

    def mark(path):
        with path.open("a") as file:
            file.write("x")

    def in_a_thread(function):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()

    @rabbitry.remote
    def one():
        return 1

    @rabbitry.remote
    class Registered:
        """Leaves traces in a directory when its process ends in an orderly way."""

        def register(self, directory, mark):
            atexit.register(mark, directory / "atexit")
            self.traces = directory, mark
            return os.getpid()

        def __ray_shutdown__(self):
            directory, mark = self.traces
            mark(directory / "shutdown")

        def start_children(self):
            child = subprocess.Popen(["sleep", "100"])
            session = subprocess.Popen(["sleep", "100"], start_new_session=True)
            shell = subprocess.run("sleep 100 >/dev/null 2>&1 & echo $!", shell=True, capture_output=True, text=True)
            process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,))
            process.start()
            return {"child": child.pid, "session": session.pid, "orphan": int(shell.stdout), "fork": process.pid}

        def leave(self):
            rabbitry.exit_actor()

    return mark, in_a_thread, one, Registered


mark, in_a_thread, one, Registered = local_functions()


# -- sessions --------------------------------------------------------------------------------------------------------


def test_init_in_a_task_is_refused_and_changes_nothing():
    @rabbitry.remote(max_retries=0)
    def task(arguments):
        nodes = [node["NodeID"] for node in rabbitry.nodes()]
        try:
            rabbitry.init(**arguments)
            refused = ""
        except RuntimeError as error:
            refused = str(error)
        with rabbitry.init(**arguments, ignore_reinit_error=True):
            assert rabbitry.is_initialized()
        rabbitry.shutdown()
        assert [node["NodeID"] for node in rabbitry.nodes()] == nodes
        return refused, rabbitry.get(one.remote()), rabbitry.get_runtime_context().get_job_id()

    for arguments in ({}, {"num_cpus": 1}, {"address": "auto"}):
        refused, value, job = rabbitry.get(task.remote(arguments), timeout=TIMEOUT)
        assert "ignore_reinit_error" in refused
        assert (value, job) == (1, rabbitry.get_runtime_context().get_job_id())


# -- exits -----------------------------------------------------------------------------------------------------------


def test_a_task_that_exits_is_retried_like_one_that_crashes(tmp_path):
    exits = {
        "sys.exit()": sys.exit,
        "sys.exit(0)": lambda: sys.exit(0),
        "sys.exit('why')": lambda: sys.exit("why"),
        "quit": lambda: quit(),
        "os._exit(0)": lambda: os._exit(0),
        "os._exit in a thread": lambda: in_a_thread(lambda: os._exit(1)),
        "SIGTERM": lambda: os.kill(os.getpid(), 15),
    }

    @rabbitry.remote(max_retries=1)
    def task(leave, path, times):
        mark(path)
        if len(path.read_text()) <= times:
            leave()
            threading.Event().wait(TIMEOUT)
        return "done"

    once = [task.remote(leave, tmp_path / f"{how} once", 1) for how, leave in exits.items()]
    twice = [task.remote(leave, tmp_path / f"{how} twice", 2) for how, leave in exits.items()]
    assert rabbitry.get(once, timeout=TIMEOUT) == ["done"] * len(exits)
    for how, ref in zip(exits, twice, strict=True):
        with pytest.raises(WorkerCrashedError):
            rabbitry.get(ref, timeout=TIMEOUT)
        assert (tmp_path / f"{how} twice").read_text() == "xx", how


def test_an_exit_while_an_argument_is_read_or_items_are_made_is_retried(tmp_path):
    def leave(path):
        mark(path)
        sys.exit(1)

    class ExitsWhenRead:
        def __reduce__(self):
            return leave, (tmp_path / "read",)

    @rabbitry.remote(max_retries=1)
    def takes(_):
        return 1

    with pytest.raises(WorkerCrashedError):
        rabbitry.get(takes.remote(ExitsWhenRead()), timeout=TIMEOUT)
    assert (tmp_path / "read").read_text() == "xx"

    @rabbitry.remote(max_retries=1)
    def items():
        yield 1
        leave(tmp_path / "items")

    generator = items.remote()
    assert rabbitry.get(next(generator)) == 1
    with pytest.raises(WorkerCrashedError):
        rabbitry.get(list(generator), timeout=TIMEOUT)
    assert (tmp_path / "items").read_text() == "xx"


def test_what_ended_before_an_exit_stands(tmp_path):
    @rabbitry.remote(max_retries=1)
    def task(number):
        mark(tmp_path / str(number))
        if number == 150 and len((tmp_path / "150").read_text()) == 1:
            sys.exit()
        return number

    assert rabbitry.get([task.remote(each) for each in range(200)], timeout=TIMEOUT) == list(range(200))
    assert [path.name for path in tmp_path.iterdir() if path.read_text() != "x"] == ["150"]


# -- what runs at the end --------------------------------------------------------------------------------------------


ENDS = {
    "exit_actor": (lambda actor, pid: actor.leave.remote(), True),
    "terminate": (lambda actor, pid: actor.__ray_terminate__.remote(), True),
    "SIGTERM": (lambda actor, pid: os.kill(pid, signal.SIGTERM), True),
    "release": (lambda actor, pid: None, True),
    "kill": (lambda actor, pid: rabbitry.kill(actor), False),
    "SIGKILL": (lambda actor, pid: os.kill(pid, signal.SIGKILL), False),
}


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_actors_end_runs_handlers_and_ends_child_processes(tmp_path):
    ended = {}
    for how, (end, _) in ENDS.items():
        directory = tmp_path / how
        directory.mkdir()
        actor = Registered.options(num_cpus=0).remote()
        pid = rabbitry.get(actor.register.remote(directory, mark), timeout=TIMEOUT)
        ended[how] = {"actor": pid, **rabbitry.get(actor.start_children.remote(), timeout=TIMEOUT)}
        end(actor, pid)
        del actor
    for how, (_, orderly) in ENDS.items():
        pids = ended[how]
        daemon = pids.pop("session") if how == "SIGKILL" else None  # nobody knows any more whose it was
        wait_until(lambda: not any(map(lives, pids.values())))  # noqa: B023
        assert sorted(path.name for path in (tmp_path / how).iterdir()) == ["atexit", "shutdown"] * orderly, how
        if daemon is not None:
            os.kill(daemon, signal.SIGKILL)


def test_a_tasks_end_runs_handlers_and_ends_child_processes(tmp_path):
    @rabbitry.remote(max_retries=0)
    def task(how):
        atexit.register(mark, tmp_path / f"{how} atexit")
        child = subprocess.Popen(["sleep", "100"])
        (tmp_path / f"{how} pids.part").write_text(f"{os.getpid()} {child.pid}")
        os.rename(tmp_path / f"{how} pids.part", tmp_path / f"{how} pids")
        {"exit": sys.exit, "crash": lambda: os._exit(1), "cancel": threading.Event().wait}[how]()

    for how in ("exit", "crash", "cancel"):
        ref = task.remote(how)
        wait_for_file(tmp_path / f"{how} pids")
        if how == "cancel":
            rabbitry.cancel(ref, force=True)
        with pytest.raises((WorkerCrashedError, TaskCancelledError)):
            rabbitry.get(ref, timeout=TIMEOUT)
        pids = (tmp_path / f"{how} pids").read_text().split()
        wait_until(lambda: not any(map(lives, pids)))  # noqa: B023
        assert (tmp_path / f"{how} atexit").exists() == (how == "exit"), how


def test_what_a_task_forks_is_an_ordinary_process():
    @rabbitry.remote
    def task():
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,))
        process.start()
        process.terminate()  # at once: also a signal that comes just after the fork must end it
        process.join()
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
        return process.exitcode, sys.stdin.read()

    assert rabbitry.get(task.remote(), timeout=TIMEOUT) == (-signal.SIGTERM, "")


# -- max_calls -------------------------------------------------------------------------------------------------------


def test_a_process_stays_until_nobody_needs_it_and_holds_no_resources_meanwhile(tmp_path):
    go = tmp_path / "go"

    @rabbitry.remote(num_cpus=0)
    class Actor:
        def ping(self):
            return 1

    @rabbitry.remote(num_cpus=0)
    def wait():
        while not go.exists():
            time.sleep(0.02)
        return 1

    @rabbitry.remote(num_cpus=2, max_calls=1)
    def task(how):
        return os.getpid(), {"put": rabbitry.put, "child": lambda _: wait.remote(), "actor": lambda _: Actor.remote()}[
            how
        ](1)

    made = [rabbitry.get(task.remote(how), timeout=TIMEOUT) for how in ("put", "child", "actor")]
    (putter, put), (parent, child), (creator, actor) = made
    assert len({putter, parent, creator}) == 3
    wait_until(lambda: not lives(putter))
    assert rabbitry.get(put) == 1
    assert rabbitry.get(actor.ping.remote(), timeout=TIMEOUT) == 1
    assert lives(parent)
    assert lives(creator)
    go.touch()
    assert rabbitry.get(child, timeout=TIMEOUT) == 1
    wait_until(lambda: not lives(parent))
    del actor, made
    wait_until(lambda: not lives(creator))


# -- environment -----------------------------------------------------------------------------------------------------


def test_variables_are_inherited_one_by_one_and_may_name_others():
    @rabbitry.remote(num_cpus=0)
    def read(names):
        return [os.environ.get(name) for name in names]

    @rabbitry.remote(num_cpus=0)
    class Actor:
        def read(self, names):
            return [os.environ.get(name) for name in names], rabbitry.get(read.remote(names))

    names = ("FIRST", "SECOND", "PATH")

    @rabbitry.remote(num_cpus=0, runtime_env={"env_vars": {"FIRST": "1", "SECOND": "2", "PATH": "/mine:${PATH}"}})
    def parent():
        child = read.options(runtime_env={"env_vars": {"SECOND": "${FIRST}-${NONE}"}})
        return rabbitry.get([read.remote(names), child.remote(names), Actor.remote().read.remote(names)])

    (before,) = rabbitry.get(read.remote(("PATH",)), timeout=TIMEOUT)
    path = f"/mine:{before}"
    of_parent = ["1", "2", path]
    assert rabbitry.get(parent.remote(), timeout=TIMEOUT) == [of_parent, ["1", "1-", path], (of_parent, of_parent)]
    assert rabbitry.get(read.remote(names), timeout=TIMEOUT) == [None, None, before]


def test_threads_of_numeric_libraries_follow_the_cpus():
    def threads():
        return os.environ["OMP_NUM_THREADS"]

    class Actor:
        def threads(self):
            return os.environ["OMP_NUM_THREADS"]

    task, actor = rabbitry.remote(threads), rabbitry.remote(Actor)
    for cpus, wanted in ((0, "1"), (0.5, "1"), (1, "1"), (1.5, "1"), (2, "2")):
        assert rabbitry.get(task.options(num_cpus=cpus).remote(), timeout=TIMEOUT) == wanted
        assert rabbitry.get(actor.options(num_cpus=cpus).remote().threads.remote(), timeout=TIMEOUT) == wanted
    assert rabbitry.get(actor.remote().threads.remote(), timeout=TIMEOUT) == "1"
    users = {"env_vars": {"OMP_NUM_THREADS": "7"}}
    assert rabbitry.get(task.options(runtime_env=users, num_cpus=2).remote(), timeout=TIMEOUT) == "7"


def test_threads_of_user_code_ask_for_their_task_without_warnings():
    @rabbitry.remote(num_cpus=0)
    class Actor:
        def start(self):
            self.asked, self.warnings, self.ended = [], [], threading.Event()
            handler = logging.Handler()
            handler.emit = lambda record: self.warnings.append(record.getMessage())
            logging.getLogger("rabbitry").addHandler(handler)
            self.thread = threading.Thread(target=self.ask)
            self.thread.start()

        def ask(self):
            self.ended.wait()
            context = rabbitry.get_runtime_context()
            self.asked.append([context.get_task_id(), context.get_task_name(), context.get_actor_id()])

        async def answers(self):
            # The thread is in no call: it does not have this one's context.
            self.ended.set()
            self.thread.join()
            return self.asked[0][2], self.warnings

    actor = Actor.remote()
    rabbitry.get(actor.start.remote(), timeout=TIMEOUT)
    actor_id, warnings = rabbitry.get(actor.answers.remote(), timeout=TIMEOUT)
    assert actor_id
    assert warnings == []


def test_an_actor_finds_nothing_that_tasks_have_left():
    @rabbitry.remote
    def leave():
        os.environ["LEFT_BY_A_TASK"] = "1"
        logging.basicConfig(level=logging.ERROR)
        return os.getpid()

    @rabbitry.remote
    class Actor:
        def look(self):
            return os.getpid(), os.environ.get("LEFT_BY_A_TASK"), len(logging.getLogger().handlers)

    tasks = set(rabbitry.get([leave.remote() for _ in range(20)], timeout=TIMEOUT))
    for _ in range(3):
        pid, left, handlers = rabbitry.get(Actor.remote().look.remote(), timeout=TIMEOUT)
        assert pid not in tasks
        assert (left, handlers) == (None, 0)
