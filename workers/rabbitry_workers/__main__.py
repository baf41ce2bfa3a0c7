"""`python -m rabbitry_workers`: what `rabbitry` starts as subprocesses, and the command line otherwise."""

from __future__ import annotations

import sys


def main() -> int:
    """Dispatch to the subprocesses of `rabbitry` (`embedded`, `server`, `session-dashboard`), else the command line."""
    if len(sys.argv) == 3 and sys.argv[1] == "embedded":
        from rabbitry_workers.embedded import main as supervise

        return supervise(int(sys.argv[2]))
    if len(sys.argv) == 3 and sys.argv[1] == "server":
        from rabbitry_workers.server import main as serve

        return serve(int(sys.argv[2]))
    if len(sys.argv) == 3 and sys.argv[1] == "session-dashboard":
        from rabbitry_workers.http.serve import main as serve_dashboard

        return serve_dashboard(sys.argv[2])
    from rabbitry_workers.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
