"""Files of what executors print: bounded, rotated, and gone when nobody needs them."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from rabbitry_broker.run_directory import RunDirectory
from rabbitry_workers.node.services import log_files
from rabbitry_workers.node.services.log_files import LogFiles, of_ended_nodes, streams_of, sweep


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RABBITRY_LOG_DIR", str(tmp_path / "logs"))
    return tmp_path / "logs"


def names(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()} - {"lock"}


def test_nothing_is_made_before_something_is_printed(root: Path) -> None:
    files = LogFiles(b"node", passing=False)
    files.close()
    assert not root.exists()


@pytest.mark.parametrize("crashed", [False, True])
def test_a_passing_node_leaves_its_files_only_after_a_crash(root: Path, crashed: bool) -> None:
    files = LogFiles(b"node", passing=True)
    file = files("worker-1-2-3.out")
    assert file is not None
    file.write(b"\1" * 24, b"", "f", b"text\n")
    assert oct(file.path.stat().st_mode)[-3:] == "600"
    assert oct(files.path.stat().st_mode)[-3:] == "700"
    files.keep = crashed
    assert of_ended_nodes() == []  # it is in use
    file.close()
    files.close()
    assert of_ended_nodes() == ([files.path] if crashed else [])
    assert root.exists() is crashed


def test_a_file_is_rotated_and_begins_with_its_mark_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "FILE_BYTES", 1000)
    files = LogFiles(b"node", passing=False)
    file = files("worker-1-2-3.out")
    assert file is not None
    for at in range(100):
        file.write(b"\1" * 24, b"", "f", b"%099d\n" % at)
    assert names(files.path) == {"worker-1-2-3.out", "worker-1-2-3.out.1"}
    for name in names(files.path):
        text = (files.path / name).read_bytes()
        assert len(text) < 1500
        assert text.startswith(b":rabbitry: ")
        assert text.count(b":rabbitry: ") == 1
    assert b"%099d\n" % 99 in (files.path / "worker-1-2-3.out").read_bytes()
    file.close()
    file.close()
    files.close()


def test_all_files_together_stay_within_the_limit_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITRY_LOG_BYTES", "100000")
    files = LogFiles(b"node", passing=False)
    first = files("worker-0-0-0.out")
    assert first is not None
    first.write(b"", b"", "", b"x\n")
    os.utime(first.path, (1, 1))
    for at in range(40):
        file = files(f"worker-{at}-1-1.out")
        assert file is not None
        file.write(b"", b"", "", b"x" * 10000 + b"\n")
        os.utime(file.path, (at + 10, at + 10))
        file.close()
    files.wait()
    total = sum(each.stat().st_size for each in files.path.iterdir())
    assert total <= 120000
    assert "worker-39-1-1.out" in names(files.path)
    assert "worker-0-0-0.out" not in names(files.path)
    first.write(b"", b"", "", b"it goes on\n")  # in a new file: the old one is gone
    assert b"it goes on" in first.path.read_bytes()
    first.close()
    files.close()


def test_a_place_that_cannot_be_written_is_told_once(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.write_text("in the way")
    files = LogFiles(b"node", passing=False)
    assert files("a.out") is None
    assert files("b.out") is None
    assert len([each for each in caplog.records if "not kept" in each.message]) == 1
    files.close()


def test_when_a_full_disk_has_room_again_files_are_kept_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "AGAIN_SECONDS", 0.0)
    files = LogFiles(b"node", passing=False)
    file = files("a.out")
    assert file is not None
    opened = os.open

    def full(path: object, *arguments: int) -> int:
        if str(path).endswith(".out"):
            raise OSError(errno.ENOSPC, "no space left on device")
        return opened(path, *arguments)  # type: ignore[arg-type]

    file.path.unlink()
    files.trims += 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        assert files("b.out") is None
        file.write(b"", b"", "", b"lost\n")
        file.write(b"", b"", "", b"lost too\n")
    second = files("b.out")
    assert second is not None
    for each in (file, second):
        each.write(b"", b"", "", b"kept\n")
        assert b"kept" in each.path.read_bytes()
        each.close()
    files.close()


def test_no_files_are_kept_if_nothing_is_allowed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITRY_LOG_BYTES", "0")
    assert LogFiles(b"node", passing=False)("a.out") is None
    assert not root.exists()
    monkeypatch.setenv("RABBITRY_LOG_BYTES", "many")
    with pytest.raises(ValueError, match="RABBITRY_LOG_BYTES='many'"):
        LogFiles(b"node", passing=False)


def test_of_ended_nodes_the_newest_stay_for_a_week(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "ENDED_KEPT", 3)
    root.mkdir()
    now = time.time()
    for at in range(6):
        directory = RunDirectory.join(root / f"node-{at:02}")
        if at:
            directory.leave()
        age = 1000.0 * (6 - at)
        os.utime(directory.path, (now - age, now - age))
        if at == 0:
            used = directory
    (root / "node-new").mkdir()  # somebody makes it just now
    (root / "other").mkdir()
    sweep(root)
    assert names(root) == {"node-00", "node-03", "node-04", "node-05", "node-new", "other"}
    os.utime(root / "node-05", (now - 8 * 86400, now - 8 * 86400))
    sweep(root)
    assert "node-05" not in names(root)
    used.leave()


def test_files_are_sorted_by_what_they_are() -> None:
    found = streams_of(iter(["worker-1.out", "worker-1.out.1", "worker-1.err", "lock", "job-driver-x.log"]))
    assert found == {"worker_out": ["worker-1.out"], "worker_err": ["worker-1.err"], "other": ["job-driver-x.log"]}
