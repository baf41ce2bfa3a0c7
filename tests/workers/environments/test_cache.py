"""The cache of environments: made once, complete or not there, in use or going; and what archives may write."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import signal
import stat
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rabbitry_workers.environments import cache as caches
from rabbitry_workers.environments.cache import Cache, SetupError, directory_from_environment, remove_tree
from rabbitry_workers.environments.unpacking import strip, unpack
from tests.servers import wait_until

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", limit=10_000, keep=1000.0)


def fill(text: str = "built") -> Any:
    def make(path: Path, lock: int) -> None:
        (path / "file").write_text(text)

    return make


def let_go(*entries: Any) -> None:
    for each in entries:
        os.close(each.lock)


def test_an_entry_is_made_once(cache: Cache) -> None:
    assert cache.find("a") is None
    first = cache.get("a", fill("first"))
    second = cache.get("a", fill("second"))
    found = cache.find("a")
    assert found is not None and (second.path / "file").read_text() == "first"
    let_go(first, second, found)


def test_of_many_processes_one_makes_it(cache: Cache, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def make(path: Path, lock: int) -> None:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.2)
        (path / "file").write_text("built")

    def work() -> None:
        entry = Cache(cache.directory).get("a", make)
        assert (entry.path / "file").read_text() == "built"

    workers = [FORK.Process(target=work) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(20)
        assert each.exitcode == 0
    assert log.read_text() == "made\n"


def test_a_build_that_was_killed_half_way_is_not_taken_for_done(cache: Cache) -> None:
    def hang(path: Path, lock: int) -> None:
        (path / "half").write_text("half")
        time.sleep(60)

    worker = FORK.Process(target=lambda: cache.get("a", hang))
    worker.start()
    wait_until(lambda: (cache.path("a") / "half").exists(), "the build has begun")
    assert cache.find("a") is None and not cache.remove("a")
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join(10)
    assert cache.find("a") is None
    entry = cache.get("a", fill())
    assert os.listdir(entry.path) == ["file"]
    let_go(entry)


def test_a_build_that_fails_leaves_nothing(cache: Cache) -> None:
    def fail(path: Path, lock: int) -> None:
        (path / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get("a", fail)
    assert not cache.path("a").exists() and cache.find("a") is None
    let_go(cache.get("a", fill()))


def test_a_full_disk_says_so(cache: Cache) -> None:
    def fail(path: Path, lock: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SetupError, match=r"the disk is full: .* GiB left .*RABBITRY_ENVIRONMENTS"):
        cache.get("a", fail)


def test_what_nobody_uses_goes_the_oldest_first(cache: Cache) -> None:
    used = cache.get("used", fill("x" * 6000))
    for age, name in ((300, "old"), (200, "newer")):
        let_go(cache.get(name, fill("x" * 4000)))
        marker = cache.directory / "entries" / f"{name}.json"
        os.utime(marker, (time.time() - age,) * 2)
    assert cache.sweep() == 4000
    assert cache.find("old") is None and not list((cache.directory / "entries").glob("old*"))
    newer = cache.find("newer")
    assert newer is not None
    let_go(used, newer)


def test_what_was_not_used_for_long_goes_and_what_is_in_use_stays(cache: Cache) -> None:
    entries = [cache.get(name, fill()) for name in ("a", f"{caches.OF_JOB}b", "c")]
    let_go(*entries[:2])
    for name, age in (("a", 2000), (f"{caches.OF_JOB}b", 700), ("c", 2000)):
        os.utime(cache.directory / "entries" / f"{name}.json", (time.time() - age,) * 2)
    (cache.directory / "entries" / "killed").mkdir()
    (cache.directory / "entries" / "killed.lock").touch()
    cache.sweep()
    left = {path.name.partition(".")[0] for path in (cache.directory / "entries").iterdir()}
    assert left == {"c"}
    let_go(entries[2])


def test_logs_are_bounded(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "LOGS_KEPT", 3)
    for number in range(6):
        path = cache.logs / f"{number}.log"
        path.touch()
        os.utime(path, (number, number))
    cache.sweep()
    assert sorted(path.name for path in cache.logs.iterdir()) == ["3.log", "4.log", "5.log"]


def test_a_directory_that_others_could_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SetupError, match="others could write there"):
        Cache(tmp_path / "open")
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot be kept in"):
        Cache(tmp_path / "file")
    monkeypatch.setenv(caches.DIRECTORY_VARIABLE, str(tmp_path / "mine"))
    assert directory_from_environment() == tmp_path / "mine"
    assert stat.S_IMODE(Cache.from_environment().directory.stat().st_mode) == 0o700
    monkeypatch.delenv(caches.DIRECTORY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert directory_from_environment() == tmp_path / "rabbitry" / "environments"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert directory_from_environment().name == f"rabbitry-environments-{os.getuid()}"
    monkeypatch.setenv(caches.LIMIT_VARIABLE, "much")
    with pytest.raises(ValueError, match=caches.LIMIT_VARIABLE):
        Cache.from_environment()


def test_what_may_not_be_written_is_removed_too(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    (tmp_path / "a" / "b").chmod(0o500)
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    remove_tree(tmp_path / "a")


# -- archives ----------------------------------------------------------------------------------------------------------


def a_zip(path: Path, members: dict[str, str | zipfile.ZipInfo]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(content if isinstance(content, zipfile.ZipInfo) else name, str(name))
    return path


def a_tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for each in members:
            each.size = 1 if each.isreg() else 0
            archive.addfile(each, io.BytesIO(b"x"))
    return path


@pytest.fixture
def to(tmp_path: Path) -> Path:
    directory = tmp_path / "inside"
    directory.mkdir()
    return directory


def test_files_and_directories_are_unpacked(tmp_path: Path, to: Path) -> None:
    runs = zipfile.ZipInfo("bin/run")
    runs.external_attr = (stat.S_IFREG | 0o755) << 16
    unpack(a_zip(tmp_path / "a.zip", {"a": "", "d/e/f": "", "bin/run": runs, "empty/": ""}), "a.zip", to, limit=1000)
    assert sorted(str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()) == ["a", "bin/run", "d/e/f"]
    assert (to / "empty").is_dir() and os.access(to / "bin" / "run", os.X_OK) and not os.access(to / "a", os.X_OK)


def test_one_directory_at_the_top_is_left_out_where_that_is_wanted(tmp_path: Path, to: Path) -> None:
    archive = a_tar(tmp_path / "a.tar.gz", tarfile.TarInfo("top/a"), tarfile.TarInfo("top/top"))
    unpack(archive, "a.tar.gz", to, limit=1000)
    strip(to)
    assert sorted(os.listdir(to)) == ["a", "top"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside", "a\\..\\..\\outside"])
def test_no_name_leads_outside(tmp_path: Path, to: Path, name: str) -> None:
    for archive in (a_zip(tmp_path / "a.zip", {name: ""}), a_tar(tmp_path / "a.tgz", tarfile.TarInfo(name))):
        with pytest.raises(SetupError, match="outside of its directory"):
            unpack(archive, archive.name, to, limit=1000)
    assert not (tmp_path / "outside").exists()


def test_no_link_leads_outside(tmp_path: Path, to: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(SetupError, match="link"):
        unpack(a_zip(tmp_path / "a.zip", {"link": link}), "a.zip", to, limit=1000)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        member = tarfile.TarInfo("member")
        member.type, member.linkname = kind, "/etc/passwd"
        with pytest.raises(SetupError, match="no file and no directory"):
            unpack(a_tar(tmp_path / "a.tgz", member), "a.tgz", to, limit=1000)
    assert os.listdir(to) == []


def test_what_is_too_large_or_broken_is_refused(tmp_path: Path, to: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"\0" * 10**6)
    with pytest.raises(SetupError, match="the limit of the cache"):
        unpack(tmp_path / "bomb.zip", "bomb.zip", to, limit=1000)
    (tmp_path / "broken.zip").write_bytes(b"nonsense")
    for name in ("broken.zip", "broken.tgz"):
        with pytest.raises(SetupError, match="cannot be unpacked"):
            unpack(tmp_path / "broken.zip", name, to, limit=1000)


def test_an_entry_goes_with_all_its_files(cache: Cache) -> None:
    let_go(cache.get("one", fill()))
    new = cache.path("one").with_name("one.new")
    new.write_text("{}")  # of one who was killed before it was renamed
    assert cache.remove("one")
    assert list(new.parent.iterdir()) == []
