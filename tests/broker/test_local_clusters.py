"""Which cluster "auto" means: variables first, else the newest session that somebody still has its lock on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitry_broker import cluster_file
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError
from rabbitry_broker.local_clusters import address_in_environment, newest, resolve_auto
from rabbitry_broker.run_directory import RunDirectory, is_memory, places

SECRET = b"0123456789abcdef"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sessions go and are looked for first; short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        monkeypatch.setattr("rabbitry_broker.local_clusters.places", lambda: places()[:1])
        yield Path(directory)


def start(number: int) -> tuple[RunDirectory, str]:
    """Return the directory of a session, and its address."""
    directory = RunDirectory.create()
    file = cluster_file.ClusterFile(Endpoint("unix:///nowhere", None, (SECRET,)), "s", spill_url="/spill")
    address = cluster_file.write(directory.path, file)
    os.utime(directory.path / cluster_file.FILE_NAME, (number, number))
    return directory, address


def test_the_newest_that_runs_is_found(place: Path) -> None:
    old, old_address = start(1)
    young, young_address = start(2)
    dead, _ = start(3)
    dead.leave()  # as the kernel does when its process is killed
    assert newest() == young_address
    assert resolve_auto({}, env_file="/nowhere") == young_address
    young.remove()
    assert newest() == old_address
    assert cluster_file.read(old_address).spill_url == "/spill"
    old.remove()
    assert newest() is None


def test_finding_takes_nobody_its_lock(place: Path) -> None:
    directory, address = start(1)
    for _ in range(3):
        assert newest() == address
    RunDirectory.join(directory.path).leave()
    directory.remove()


def test_without_any_the_error_says_what_to_do(place: Path) -> None:
    with pytest.raises(ConnectError, match=r"no session of this user.*RABBITRY_BROKER_URL"):
        resolve_auto({}, env_file="/nowhere")
    with pytest.raises(ConnectError, match="its session has ended"):
        cluster_file.read("unix:///tmp/rabbitry-that-never-was")


def test_what_variables_name_comes_first(place: Path, tmp_path: Path) -> None:
    directory, address = start(1)
    assert resolve_auto({"RABBITRY_BROKER_URL": "amqp://mq"}, env_file="/nowhere") == "auto"
    env_file = tmp_path / ".env"
    env_file.write_text("RABBITRY_STORE_URL=redis://cache\n")
    assert resolve_auto({}, env_file=str(env_file)) == "auto"
    env_file.write_text("SOMETHING_ELSE=1\n")
    assert resolve_auto({}, env_file=str(env_file)) == address
    assert resolve_auto({"RABBITRY_ADDRESS": "unix:///other"}, env_file="/nowhere") == "unix:///other"
    directory.remove()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RAY_ADDRESS": "auto"}, "auto"),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, None),
        ({"RAY_ADDRESS": "unix:///run/x"}, "unix:///run/x"),
        ({"RABBITRY_ADDRESS": "local", "RAY_ADDRESS": "auto"}, "local"),
        ({"RABBITRY_ADDRESS": "tpyo"}, "tpyo"),
    ],
)
def test_the_address_in_the_environment(environment: dict[str, str], expected: str | None) -> None:
    assert address_in_environment(environment) == expected


def test_what_is_memory_and_what_a_disk(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("overlay / overlay rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/sda /run/disk ext4 rw 0 0\n")
    found = [is_memory(path, str(mounts)) for path in ("/run/user/1", "/run/disk/x", "/runner", "/", "/none")]
    assert found == [True, False, False, False, False]
    assert not is_memory("/run", str(tmp_path / "nowhere"))
