"""Many idle actors: what each costs, and that they end with their handles. Embedded engine, in a program of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import node_environment

ACTORS = 80
PSS_LIMIT_MIB = 12

PROGRAM = """
import json, os, sys, time
import rabbitry

rabbitry.init(num_cpus=1, log_to_driver=False)

@rabbitry.remote
class Idle:
    def facts(self):
        pss = 0
        if sys.platform == "linux":
            with open("/proc/self/smaps_rollup") as file:
                pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        return os.getpid(), pss / 1024, list(sys.modules)

actors = [Idle.remote() for _ in range(int(sys.argv[1]))]
facts = rabbitry.get([actor.facts.remote() for actor in actors], timeout=40)
pids = {pid for pid, _, _ in facts}
del actors

def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

deadline = time.monotonic() + 20
while any(map(lives, pids)) and time.monotonic() < deadline:
    time.sleep(0.01)
print(json.dumps([len(pids), sum(map(lives, pids)), sum(pss for _, pss, _ in facts) / len(facts), facts[0][2]]))
"""

PRELOADED = "from rabbitry_workers.executor import template; template.preload(); import sys; print(*sys.modules)"


def few_files() -> None:
    """Set the limit of open files so low that the actors need more."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))


def test_many_actors_are_cheap_and_end_with_their_handles() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < 1024:
        pytest.skip(f"this machine allows {hard} open files")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ACTORS)],
        env=node_environment(),
        preexec_fn=few_files,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=50,
    )
    processes, left, mean_pss, modules = json.loads(done.stdout.splitlines()[-1])
    assert processes == ACTORS
    assert left == 0
    assert mean_pss <= PSS_LIMIT_MIB
    # What the template has imported is shared; what an actor imports by itself costs each of them 1 ms a module.
    loaded = subprocess.run(
        [sys.executable, "-c", PRELOADED],
        env=node_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=30,
    ).stdout.split()
    own = {
        name
        for name in modules
        if name.startswith(("rabbitry_workers.actors", "rabbitry_workers.executor", "rabbitry."))
    }
    assert own - set(loaded) == set()
