"""Environments that are container images: their template runs in a container, and the agent speaks with it as with any.

    agent --socket--> this process --podman run / docker run--> container: launch.py
                          '------- the socket itself, by a socket in a directory that both see -----^

The container shares the host's network, process ids and shared memory, so that executors in it are executors like any
others; its files are its own. What rabbitry needs is mounted read-only from the node behind what the image has: the
image needs a Python of the node's minor version, and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rabbitry_broker.run_directory import RunDirectory
from rabbitry_workers.environments import launch
from rabbitry_workers.environments.cache import SetupError
from rabbitry_workers.environments.installing import Runner

ENGINES: Final = ("podman", "docker")
_LOOK_SECONDS: Final = 0.2


def find_engine() -> str:
    """Return the path of podman, or of docker.

    Raises:
        SetupError: there is none.
    """
    for each in ENGINES:
        found = shutil.which(each)
        if found:
            return found
    raise SetupError("the node has no podman and no docker, one of which a container image needs: install one there.")


def provide(image: str, runner: Runner) -> None:
    """Have an image on this machine.

    Raises:
        SetupError: it cannot be pulled.
    """
    engine = find_engine()
    if not runner.run([engine, "image", "inspect", "--format", "{{.Id}}", image]) and not runner.run(
        [engine, "pull", image]
    ):
        raise SetupError(f"the image {image} cannot be pulled")


def command(image: str, options: Sequence[str], variables: Sequence[str], mounts: Sequence[str]) -> list[str]:
    """Return the command that starts a template in a container; what is mounted must be there.

    Args:
        image: its name.
        options: for the engine, from the user.
        variables: names of those that the container gets.
        mounts: directories and files that it sees at the same place.
    """
    told = {"image": image, "options": list(options), "variables": list(variables), "mounts": list(mounts)}
    return [sys.executable, "-m", "rabbitry_workers.environments.images", json.dumps(told)]


def arguments(engine: str, told: dict[str, Any], directory: str) -> list[str]:
    """Return what the engine is called with."""
    mounts = [each for each in dict.fromkeys(told["mounts"]) if os.path.exists(each)]
    words = [engine, "run", "--rm", "--network=host", "--pid=host", "--ipc=host"]
    if Path(engine).name == "podman":
        words += ["--userns=keep-id", "--cgroup-manager=cgroupfs"][: 1 if os.getuid() == 0 else 2]
        if os.getuid() == 0:
            words.pop()  # keep-id is for those who are not root
    else:
        words += ["--user", f"{os.getuid()}:{os.getgid()}"]
    for each in mounts:
        words += ["-v", f"{each}:{each}:ro" if each.startswith(("/usr", "/lib")) else f"{each}:{each}"]
    words += ["-v", f"{directory}:{directory}"]
    for name in told["variables"]:
        words += ["-e", name]
    words += [*told["options"], "--entrypoint", "python3", told["image"], str(Path(launch.__file__).absolute())]
    return words


def main(told: dict[str, Any]) -> int:
    """Start the container, hand descriptor 0 to the template in it, and wait for its end."""
    engine = find_engine()
    directory = RunDirectory.create()
    try:
        child = _start(engine, told, str(directory.path))
    finally:
        directory.remove()
    if child.poll() is None:
        os.close(0)  # its end is the agent's to see
    return child.wait()


def _start(engine: str, told: dict[str, Any], directory: str) -> subprocess.Popen[bytes]:
    """Return the engine's process once the template has the socket, or there will be no template."""
    path = os.path.join(directory, "template")
    facts = json.loads(os.environ[launch.VARIABLE])
    environment = {**os.environ, launch.VARIABLE: json.dumps({**facts, "socket": path})}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(1)
        listening.settimeout(_LOOK_SECONDS)
        child = subprocess.Popen(arguments(engine, told, directory), stdin=subprocess.DEVNULL, env=environment)
        while child.poll() is None:
            try:
                link, _ = listening.accept()
            except TimeoutError:
                continue
            with link:
                socket.send_fds(link, [b"0"], [0])
            break
    return child


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
