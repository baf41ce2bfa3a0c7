"""Do all cases on Ray and write what came of them: `python -m tests.oracle.record [file]`.

Run it at the top of the tree, with the Python of an environment that has Ray. Without a file it writes to standard
output.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

from tests.oracle.cases import CASES, outcome
from tests.oracle.on_ray import OnRay


def main() -> None:
    """Write the outcomes as JSON."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    side = OnRay()
    try:
        outcomes = {case.id: outcome(case, side) for case in CASES.values()}
    finally:
        side.close()
    # A line each, so that a change shows as one.
    lines = [f"{json.dumps(name)}: {json.dumps(each, sort_keys=True)}" for name, each in sorted(outcomes.items())]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
