"""What a job's driver does: `python entrypoint.py JOB`, where JOB is JSON, see `programs`.

It imports nothing of this checkout. Every process that it has something run in is noted in a file, by what it is:
`kind pid`, one line a beginning. What it prints for its log to be judged by begins with `SAID`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

SAID = "fuzz: "
LINES = 2000
FOR_EVER = 600.0


def note(kind: str, pid: int | None = None) -> None:
    """Write down that something has begun."""
    with open(os.environ["FUZZ_JOB_NOTES"], "ab", buffering=0) as file:
        file.write(f"{kind} {pid or os.getpid()}\n".encode())


def say(text: str) -> None:
    """Print a line for the log."""
    print(f"{SAID}{text}", flush=True)


def work(ray: Any, kinds: list[str]) -> None:
    """Do what the driver was told."""

    @ray.remote(num_cpus=0.01)
    def square(number: int) -> int:
        return number * number

    @ray.remote(num_cpus=0.01, max_retries=0)
    def once(number: int) -> int:
        note(f"once-{number}")
        return number

    @ray.remote(num_cpus=0.01, max_retries=0)
    def sleeper() -> None:
        note("sleeper")
        time.sleep(FOR_EVER)

    @ray.remote
    class Counter:
        def __init__(self) -> None:
            note("actor")
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

        def sleep(self) -> None:
            time.sleep(FOR_EVER)

    if "detached" in kinds:
        name, space = os.environ["FUZZ_JOB_ACTOR"], os.environ["FUZZ_JOB_NAMESPACE"]
        detached = Counter.options(name=name, namespace=space, lifetime="detached").remote()
        say(f"detached {ray.get(detached.add.remote())}")
    if "tasks" in kinds:
        say(f"tasks {sum(ray.get([square.remote(number) for number in range(20)]))}")
    if "once" in kinds:
        say(f"once {sum(ray.get([once.remote(number) for number in range(5)]))}")
    if "actor" in kinds:
        actor = Counter.remote()
        say(f"actor {ray.get([actor.add.remote() for _ in range(3)])[-1]}")
    if "unfinished" in kinds:
        other = Counter.remote()
        space = globals()
        space["kept"] = [sleeper.remote(), other, other.sleep.remote()]
    if "output" in kinds:
        for number in range(LINES):
            print(f"{SAID}line {number:6}{'.' * 40}")
    if "child" in kinds:
        note("child", subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOR_EVER})"]).pid)


def main(job: dict[str, Any]) -> None:
    """Be the driver of a job."""
    note("driver")
    if job["end"] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if job["dir"]:
        import beside  # type: ignore[import-not-found]  # in its working directory

        say(f"dir {beside.VALUE}")
    if job["work"]:
        if os.environ["FUZZ_JOB_ENGINE"] == "ray":
            import ray
        else:
            import rabbitry as ray
        ray.init(log_to_driver=False)
        work(ray, job["work"])
        if job["end"] == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("begun")
    note("begun")
    end = job["end"]
    if end in ("waits", "stubborn"):
        while True:
            time.sleep(FOR_EVER)
    if end == "exit":
        sys.exit(job["code"])
    if end == "raise":
        raise ValueError("boom")
    if end == "os_exit":
        os._exit(job["code"])
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def lines_of(job: dict[str, Any]) -> list[str]:
    """Return the lines that a job says, if nobody stops it."""
    if job["end"] == "shell":
        return [f"{SAID}begun"]
    if job["end"] == "missing":
        return []
    said = ["dir 42"] if job["dir"] else []
    said += ["detached 1"] if "detached" in job["work"] else []
    said += ["tasks 2470"] if "tasks" in job["work"] else []
    said += ["once 10"] if "once" in job["work"] else []
    said += ["actor 3"] if "actor" in job["work"] else []
    said += [f"line {number:6}{'.' * 40}" for number in range(LINES)] if "output" in job["work"] else []
    return [f"{SAID}{each}" for each in [*said, "begun"]]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
