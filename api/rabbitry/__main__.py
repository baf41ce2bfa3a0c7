"""`python -m rabbitry`: the command line, where the script `rabbitry` is not on PATH."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    # By its name: imports go down only, and the command line is above.
    runpy.run_module("rabbitry_workers", run_name="__main__", alter_sys=True)
