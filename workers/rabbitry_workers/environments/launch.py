"""The first file that an interpreter of an environment runs: it finds rabbitry, and becomes a template.

Nothing of rabbitry can be imported before that. It is started as a script, behind whatever command the environment
names: `LAYER/bin/python launch.py`, `uv run --with torch python launch.py`. Descriptor 0 is the socket to the agent.
"""

from __future__ import annotations

import json
import os
import re
import sys

VARIABLE = "RABBITRY_TEMPLATE"
WRONG_PYTHON = 3


def main() -> None:
    """Add the node's path behind this interpreter's own, and serve as a template.

    What rabbitry itself needs is the node's all the same, whatever versions of it the environment has: all processes of
    a cluster have to read each other's messages.
    """
    facts = json.loads(os.environ.pop(VARIABLE))
    if "socket" in facts:
        _take_descriptor(facts["socket"])
    if list(sys.version_info[:2]) != facts["python"]:
        print(
            f"the environment has Python {sys.version_info[0]}.{sys.version_info[1]} ({sys.executable}), and its "
            f"cluster has {facts['python'][0]}.{facts['python'][1]}: all of a cluster must have the same",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(WRONG_PYTHON)
    own = sys.path[1:]  # the first is the directory of this file
    sys.path[:] = [*facts["path"], *own]
    from rabbitry_workers.executor import template

    template.preload()
    sys.path[:] = list(dict.fromkeys([*own, *facts["path"]]))
    modules = [each for each in facts["path"] if not re.search(r"/(site|dist)-packages/?$", each)]
    os.environ["PYTHONPATH"] = os.pathsep.join(modules)  # for children of tasks, as it is on the node
    template.main_of_environment()


def _take_descriptor(path: str) -> None:
    """In a container: who has started it hands the socket over at this place."""
    import socket

    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        _, descriptors, _, _ = socket.recv_fds(link, 1, 1)
    os.dup2(descriptors[0], 0)
    os.close(descriptors[0])


if __name__ == "__main__":
    main()
