"""Which of Ray's own libraries run with which Ray: their names looked up, and a small job each, embedded.

    python -m compat.versions [VERSION ...]

Prints a table for the manual. Environments are made in .compat/, one a version.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from compat.environments import RAYS_OWN, ROOT, Environments
from compat.run import PROGRAMS, run_on
from compat.signals import leave_by_exception

VERSIONS = ("2.48.0", "2.50.1", "2.52.1", "2.54.1", "2.56.1", "2.58.1", "2.60.0")
JOBS = ("tune", "data", "train", "serve", "rllib")
TIMEOUT = 600.0


def missing_names(python: Path) -> list[str]:
    """Return the lines that `compat.names` prints in an environment."""
    done = subprocess.run(
        [python, "-m", "compat.names"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    missing = [line for line in done.stdout.splitlines() if line.startswith("MISSING")]
    return missing or ([] if done.returncode == 0 else [done.stderr.strip().splitlines()[-1]])


def main() -> int:
    """Run the jobs, print the table; return 1 if one failed or a name is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS, help="every second minor version by default")
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--uv", default=shutil.which("uv") or "uv", help="the uv that makes the environments")
    parser.add_argument("--python", default=sys.executable, help="the Python that they are made of")
    options = parser.parse_args()
    leave_by_exception()
    jobs = options.jobs.split(",")
    print(f"| Ray | names | {' | '.join(jobs)} |\n|---|---|{'---|' * len(jobs)}", flush=True)
    wrong = 0
    for version in options.versions:
        python = Environments(version, options.uv, options.python).made("ray", RAYS_OWN)
        names = missing_names(python)
        cells = [f"{len(names)} missing" if names else "all"]
        errors = names
        for job in jobs:
            outcome = run_on("embedded", python, PROGRAMS[job], TIMEOUT)
            cells.append("failed" if outcome.error else "runs")
            errors += [outcome.error] if outcome.error else []
        wrong += bool(errors)
        print(f"| {version} | {' | '.join(cells)} |", flush=True)
        print("\n".join(errors), file=sys.stderr, end="\n" if errors else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
