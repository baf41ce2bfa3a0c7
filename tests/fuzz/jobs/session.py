"""A process that runs programs in one session with a dashboard: `python -m tests.fuzz.jobs.session ENGINE FILE`.

FILE holds a JSON list of programs. For each, one line of JSON goes to standard output: what it was answered, step by
step (`seen`), how its jobs ended, and, for all of them, what is left. It imports nothing of this checkout at its head,
so that it runs where only Ray is installed: `python session.py ray FILE`.

ENGINE is "embedded", "ray", or the address of a cluster.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PATIENCE = float(os.environ.get("FUZZ_PATIENCE", "60"))
"""Seconds that a job may take until it has begun, or ended."""

LIMIT = 10 * PATIENCE
"""Seconds until a program that does not end is given up, with its process."""

GONE_SECONDS = 60.0
"""Until nothing may be left: drivers that were killed are found silent, condemned, and cleared away."""

FAULTS = os.environ.get("FUZZ_FAULTS", "")
"""Seed of faults; "" for none."""

LATEST_FAULT = 20.0
"""Seconds after the begin of programs until the last one."""

POLL_SECONDS = 0.1
RACERS = 3
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")
NAMESPACE = "fuzz-jobs"
ENTRYPOINT = Path(__file__).with_name("entrypoint.py")

SUBMITTER = """
import json, os, sys
engine, address, fields = sys.argv[1:]
if engine == "ray":
    from ray.job_submission import JobSubmissionClient
else:
    from rabbitry.job_submission import JobSubmissionClient
try:
    print("id", JobSubmissionClient(address).submit_job(**json.loads(fields)), flush=True)
except RuntimeError as error:
    print("refused", str(error).replace("\\n", " "), flush=True)
os._exit(0)
"""
"""Who submits a job, and is gone then."""


class Programs:
    """Runs programs against a session.

    Args:
        ray: rabbitry or Ray.
        engine: of the command line.
        client: for the jobs.
        directory: for notes and working directories.
    """

    def __init__(self, ray: Any, engine: str, client: Any, directory: Path) -> None:
        self.ray = ray
        self.engine = engine
        self.client = client
        self.directory = directory
        self.mark = secrets.token_hex(3)

    def run(self, program: dict[str, Any]) -> dict[str, Any]:
        """Run one; return its report."""
        one = _Run(self, program)
        try:
            for step in program["steps"]:
                one.step(step)
            one.end()
        except Exception as error:
            one.report["broken"] = f"{type(error).__name__}: {error}"
        return one.report


class _Run:
    """One program."""

    def __init__(self, programs: Programs, program: dict[str, Any]) -> None:
        self._all = programs
        self._client = programs.client
        self._jobs = program["jobs"]
        self._name = program["name"]
        self._count = 0
        self._notes: dict[str, Path] = {}  # of the submission of each job that was accepted last
        self.report: dict[str, Any] = {"name": program["name"], "seen": [], "actors": [], "notes": []}

    def id_of(self, name: str) -> str:
        """Return the submission id of a job."""
        return f"fuzz-{self._all.mark}-{self._name}-{name}"

    def step(self, step: dict[str, Any]) -> None:
        """Do one step."""
        operation = step["op"]
        if operation == "sleep":
            time.sleep(step["seconds"])
        elif operation == "look":
            self._look()
        elif operation in ("submit", "again"):
            self._tell(operation, step["job"], self._submit(step["job"]))
        elif operation == "race":
            with ThreadPoolExecutor(RACERS) as threads:
                answers = list(threads.map(lambda _: self._submit(step["job"]), range(RACERS)))
            self._tell("race", step["job"], {"answers": answers})
        elif operation == "await":
            self._await(step["job"], step["for"])
        else:
            ask = self._client.stop_job if operation == "stop" else self._client.delete_job
            self._tell(operation, step["job"], _answer(lambda: ask(self.id_of(step["job"]))))

    def _tell(self, operation: str, job: str, answer: dict[str, Any]) -> None:
        self.report["seen"].append({"op": operation, "job": job, **answer})

    # -- submitting --------------------------------------------------------------------------------------------------

    def _submit(self, name: str) -> dict[str, Any]:
        job = self._jobs[name]
        self._count += 1  # of several threads, two may use the same: they are told apart below
        mark = f"{self._name}-{name}-{self._count}-{secrets.token_hex(2)}"
        notes = self._all.directory / f"notes-{mark}"
        notes.touch()
        variables = {
            "FUZZ_JOB_NOTES": str(notes),
            "FUZZ_JOB_ENGINE": self._all.engine,
            "FUZZ_JOB_ACTOR": f"fuzz-{self._all.mark}-{mark}",
            "FUZZ_JOB_NAMESPACE": NAMESPACE,
        }
        environment: dict[str, Any] = {"env_vars": variables}
        if job["dir"]:
            directory = self._all.directory / f"dir-{mark}"
            directory.mkdir()
            (directory / "beside.py").write_text("VALUE = 42\n")
            environment["working_dir"] = str(directory)
            environment["env_vars"] = {**variables, "PYTHONPATH": _with_here()}
        fields = {
            "entrypoint": self._command(job, notes),
            "submission_id": self.id_of(name),
            "runtime_env": environment,
            "metadata": job["metadata"],
        }
        if job["by"] == "process":
            answer = _answer(lambda: self._by_process(fields))
        else:
            answer = _answer(lambda: self._client.submit_job(**fields))
        if "result" in answer:
            self._notes[name] = notes
            self.report["notes"].append(str(notes))
            if "detached" in job["work"]:
                self.report["actors"].append(variables["FUZZ_JOB_ACTOR"])
        return answer

    @staticmethod
    def _command(job: dict[str, Any], notes: Path) -> str:
        if job["end"] == "missing":
            return "no-such-command-anywhere"
        if job["end"] == "shell":
            path = shlex.quote(str(notes))
            return f"echo driver $$ >> {path}; echo 'fuzz: begun'; echo begun $$ >> {path}; exit {job['code']}"
        python, script = shlex.quote(sys.executable), shlex.quote(str(ENTRYPOINT))
        return f"{python} {script} {shlex.quote(json.dumps(job))}"

    def _by_process(self, fields: dict[str, Any]) -> str:
        command = [sys.executable, "-c", SUBMITTER, self._all.engine, self._client.get_address(), json.dumps(fields)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        lines = [each for each in done.stdout.splitlines() if each.startswith(("id ", "refused "))]
        if done.returncode or not lines:
            raise OSError(f"who submits ended with {done.returncode}: {done.stderr[-1000:]}")
        word, _, rest = lines[-1].partition(" ")
        if word == "refused":
            raise RuntimeError(rest)
        return rest

    # -- looking -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        listed = _answer(lambda: [each.submission_id for each in self._client.list_jobs() if each.submission_id])
        if "result" in listed:
            ours = {self.id_of(name): name for name in self._jobs}
            listed["result"] = sorted(ours[each] for each in listed["result"] if each in ours)
        self._tell("list", "", listed)
        for name in self._jobs:
            self._info(name)
            self._tell("logs", name, _answer(lambda name=name: _said(self._client.get_job_logs(self.id_of(name)))))  # type: ignore[misc]

    def _info(self, name: str) -> dict[str, Any]:
        answer = _answer(lambda: self._client.get_job_info(self.id_of(name)))
        if "result" in answer:
            info = answer["result"]
            answer["result"] = {
                "status": str(getattr(info.status, "value", info.status)),
                "code": info.driver_exit_code,
                "error": info.error_type,
                "message": (info.message or "")[:2000],
                "metadata": info.metadata or {},
                "id": info.submission_id == self.id_of(name),
            }
        self._tell("info", name, answer)
        return answer

    def _await(self, name: str, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._info(name)
            seen = self.report["seen"]
            if len(seen) > 1 and seen[-1] == seen[-2]:
                seen.pop()  # the same as before
            if "error" in answer and "404" in answer["error"]:
                return
            if answer.get("result", {}).get("status") in FINAL:
                return
            if what == "begun" and name in self._notes and b"begun" in self._notes[name].read_bytes():
                return
            if time.monotonic() > deadline:
                self._tell("hangs", name, {"result": what})
                return
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        """Wait for all jobs to end, and look at them once more."""
        for name in self._jobs:
            self._await(name, "ended")
        self._look()
        self.report["runs"] = {Path(path).name: Path(path).read_text().splitlines() for path in self.report["notes"]}


def _answer(ask: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"result": ask()}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:2000]}


def _said(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("fuzz: ")]


def _with_here() -> str:
    return os.pathsep.join(filter(None, [".", os.environ.get("PYTHONPATH", "")]))


# -- what is left ------------------------------------------------------------------------------------------------------


def lives(pid: int) -> bool:
    """True if there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes(reports: list[dict[str, Any]], kinds: Callable[[str], bool]) -> list[str]:
    """Return what runs still of what jobs have begun, by its kind."""
    return [
        f"{each[0]} {each[1]} of {name}"
        for report in reports
        for name, lines in report.get("runs", {}).items()
        for each in (line.split() for line in lines)
        if kinds(each[0]) and lives(int(each[1]))
    ]


class Afterwards:
    """Looks at what programs have left, when all their jobs have ended.

    Args:
        programs: what ran them.
        reports: of them.
        look: at the session: a function of this module's, or a `leftovers.Look`.
    """

    def __init__(self, programs: Programs, reports: list[dict[str, Any]], look: Callable[..., dict[str, Any]]) -> None:
        self._programs = programs
        self._reports = reports
        self._look = look
        self._directories: list[str] = []

    def __call__(self) -> tuple[dict[str, bool], dict[str, Any]]:
        """Return which detached actors worked, and what is left."""
        ray = self._programs.ray
        worked: dict[str, bool] = {}
        for name in [name for report in self._reports for name in report["actors"]]:
            with contextlib.suppress(ValueError):
                actor = ray.get_actor(name, namespace=NAMESPACE)
                answer = _answer(lambda actor=actor: ray.get(actor.add.remote(), timeout=PATIENCE))  # type: ignore[misc]
                worked[name] = answer.get("result") == 2
                ray.kill(actor)
                del actor
        self._delete_all()
        deadline = time.monotonic() + GONE_SECONDS
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if "keys" in left:
            left["what they hold"] = self._what_is_in(left["keys"])
        return worked, left

    @staticmethod
    def _what_is_in(names: list[str]) -> list[str]:
        """Return what tells whose keys of the store are: all keys of the same client, with what they begin with."""
        from rabbitry import current
        from rabbitry_broker.errors import StoreError

        client = current.client()
        found = []
        for tag in {name[name.index("{") : name.index("}") + 1].encode("latin1") for name in names}:
            cursor = b"0"
            while True:
                cursor, keys = client.store.call(b"SCAN", cursor, b"COUNT", 5000)
                for key in [key for key in keys if tag in key]:
                    try:
                        held = client.store.call(b"GET", key)
                    except StoreError:
                        held = client.store.call(b"TYPE", key)
                    found.append(f"{key!r}: {held[:200]!r}, TTL {client.store.call(b'TTL', key)}")
                if cursor == b"0":
                    break
        return found[:40]

    def _delete_all(self) -> None:
        ours = f"fuzz-{self._programs.mark}-"
        client = self._programs.client
        self._directories = self._logs()
        for job in [each.submission_id for each in client.list_jobs() if (each.submission_id or "").startswith(ours)]:
            with contextlib.suppress(RuntimeError):
                client.delete_job(job)

    def _logs(self) -> list[str]:
        """Return where the logs of jobs are, on this host."""
        if self._programs.engine == "ray":
            return []
        from rabbitry import current
        from rabbitry_broker.store.submissions import Submissions

        return [each.directory for each in Submissions(current.client().store).all().values() if each.directory]

    def left(self) -> dict[str, Any]:
        """Return what is left now."""
        left: dict[str, Any] = dict(self._look())
        # What a driver has started is its own to end, unless its job was stopped.
        if found := processes(self._reports, lambda kind: kind != "child"):
            left["processes"] = found
        if found := [each for each in self._directories if Path(each).exists()]:
            left["logs"] = found
        ours = f"fuzz-{self._programs.mark}-"
        if found := [
            each.submission_id for each in self._programs.client.list_jobs() if ours in str(each.submission_id)
        ]:
            left["jobs"] = found
        return left


@contextlib.contextmanager
def faults(names: str) -> Iterator[Any]:
    """Kill processes now and then, if that is asked for."""
    if not FAULTS:
        yield None
        return
    from tests.fuzz.faults import Faults

    agents = [int(each) for each in os.environ.get("FUZZ_AGENTS", "").split(",") if each]
    with Faults(random.Random(f"{FAULTS}-{names}"), agents, LATEST_FAULT) as strikes:
        yield strikes


def _ray_on_free_ports() -> None:
    """Have Ray's agent, which takes jobs, listen on a free port: it ends if another cluster's has its usual one."""
    from ray._private.parameter import RayParams

    begin = RayParams.__init__

    def anywhere(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **{"dashboard_agent_listen_port": 0, **options})

    RayParams.__init__ = anywhere


def _wait_for_the_service(client: Any) -> None:
    """Wait until jobs are taken: with Ray the agent of the node has to be there first."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            client.submit_job(entrypoint="true")
            return
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def main(engine: str, path: str) -> None:
    """Run the programs of a file."""
    os.environ.setdefault("RABBITRY_DASHBOARD_TOKEN", secrets.token_hex(8))
    if engine == "ray":
        import ray
        from ray.job_submission import JobSubmissionClient

        _ray_on_free_ports()
    else:
        import rabbitry as ray
        from rabbitry.job_submission import JobSubmissionClient
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where: dict[str, Any] = {"address": engine}
    if engine in ("embedded", "ray"):
        where = {"address": "local", "num_cpus": 4, "resources": {"x": 2}}
    context = ray.init(**where, include_dashboard=True, dashboard_port=port, log_to_driver=False, namespace=NAMESPACE)
    client = JobSubmissionClient(f"http://{context.dashboard_url}")
    if engine == "ray":
        _wait_for_the_service(client)
    wanted = json.loads(Path(path).read_text())
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-jobs-") as directory:
        programs = Programs(ray, engine, client, Path(directory))
        look: Callable[..., dict[str, Any]] = dict
        if engine != "ray":
            from tests.fuzz import leftovers

            client.list_jobs()  # the service joins the cluster
            look = leftovers.Look(alone=True)
        with faults(" ".join(each["name"] for each in wanted)) as strikes, ThreadPoolExecutor(len(wanted)) as threads:
            reports = list(threads.map(programs.run, wanted))
        worked, left = Afterwards(programs, reports, look)()
        for report in reports:
            children = processes([report], lambda kind: kind == "child")
            struck = [] if strikes is None else strikes.struck
            whole = {**report, "worked": worked, "left": left, "children": children, "struck": struck}
            print(json.dumps(whole), flush=True)
            for each in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(each.split()[1]), signal.SIGKILL)
    ray.shutdown()
    faulthandler.cancel_dump_traceback_later()
    left_threads = [
        each.name for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon
    ]
    if left_threads and engine != "ray":
        print(json.dumps({"threads": left_threads}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
