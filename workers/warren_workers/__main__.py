"""`python -m warren_workers`: what `warren` starts as subprocesses, and the command line otherwise."""

from __future__ import annotations

import sys


def main() -> int:
    """Dispatch: `embedded` and `server` with a descriptor are subprocesses of `warren`, else the command line."""
    if len(sys.argv) == 3 and sys.argv[1] == "embedded":
        from warren_workers.embedded import main as supervise

        return supervise(int(sys.argv[2]))
    if len(sys.argv) == 3 and sys.argv[1] == "server":
        from warren_workers.server import main as serve

        return serve(int(sys.argv[2]))
    from warren_workers.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
