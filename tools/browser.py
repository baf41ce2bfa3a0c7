"""Make sure that a Chromium is there, then run a command: `python tools/browser.py pytest ...`.

As root on Debian or Ubuntu it is installed by apt-get; RABBITRY_CHROMIUM names one that is somewhere else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

VARIABLE = "RABBITRY_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")
APT_TIMEOUT = 900  # seconds
ADVICE = f"""\
The pages are tested in a Chromium, and this machine has none. Any one of these helps:
  Debian, Ubuntu   sudo apt-get install chromium
  macOS            brew install --cask chromium
  another place    {VARIABLE}=/path/to/chromium
"""


def main(command: Sequence[str]) -> int:
    """Run a command with a browser at hand; return its exit code, or 1 if there is none."""
    found = find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing chromium by apt-get", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update"], ["install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
            subprocess.run(
                ["apt-get", "-qq", *step],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=APT_TIMEOUT,
                check=False,
            )
        found = find()
    if found is None:
        print(ADVICE, file=sys.stderr)
        return 1
    return subprocess.call(command, env={**os.environ, VARIABLE: found})


def find() -> str | None:
    """Return the path of a browser."""
    return os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
