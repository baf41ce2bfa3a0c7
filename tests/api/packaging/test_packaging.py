"""From directories to packages: what goes in, the same bytes for the same files, and what is too much."""

from __future__ import annotations

import io
import logging
import os
import random
import sys
import types
import zipfile
from pathlib import Path
from typing import IO, Any

import pytest

from rabbitry.exceptions import RuntimeEnvSetupError
from rabbitry.packaging import ignoring, preparing, uv_run
from rabbitry.packaging.ignoring import files_of
from rabbitry.packaging.preparing import prepare


def write(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names_of(directory: Path, *excludes: str) -> list[str]:
    return [each.name for each in files_of(str(directory), excludes)]


class Uploads:
    """Keeps what is uploaded."""

    def __init__(self, *there: str) -> None:
        self.there: dict[str, bytes] = dict.fromkeys(there, b"")
        self.error: Exception | None = None

    def has(self, uri: str) -> bool:
        return uri in self.there

    def put(self, uri: str, content: IO[bytes], size: int) -> None:
        if self.error is not None:
            raise self.error
        self.there[uri] = content.read()
        assert len(self.there[uri]) == size

    def names(self, uri: str) -> list[str]:
        return zipfile.ZipFile(io.BytesIO(self.there[uri])).namelist()


def test_patterns_are_those_of_git(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.py",
        "a.bin",
        "kept.bin",
        "build/x",
        "src/build/y",
        "src/b.py",
        "src/b.log",
        "src/deep/c.log",
        "d e",
    )
    (tmp_path / ".gitignore").write_text("*.bin\n!kept.bin\n/build/\n")
    (tmp_path / "src" / ".gitignore").write_text("*.log\n")
    (tmp_path / "src" / "deep" / ".gitignore").write_text("!c.log\n")
    ignores = [".gitignore", "src/.gitignore", "src/deep/.gitignore"]
    kept = {"a.py", "kept.bin", "src/build/y", "src/b.py", "src/deep/c.log", "d e", *ignores}
    assert set(names_of(tmp_path)) == kept
    assert set(names_of(tmp_path, "src/b.*", "d e", ".gitignore")) == {
        "a.py", "kept.bin", "src/build/y", "src/deep/c.log"
    }  # fmt: skip
    assert names_of(tmp_path) == sorted(names_of(tmp_path), key=lambda name: name.split("/"))


def test_gitignore_files_can_be_left_out_of_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.py", "b.py")
    (tmp_path / ".gitignore").write_text("a.py\n")
    (tmp_path / ".rayignore").write_text("b.py\n")
    assert names_of(tmp_path) == [".gitignore", ".rayignore"]
    monkeypatch.setenv(ignoring.NO_GITIGNORE_VARIABLE, "1")
    assert names_of(tmp_path) == [".gitignore", ".rayignore", "a.py"]


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    write(tmp_path, "project/a.py", "elsewhere/b.py")
    (tmp_path / "project" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "project" / "round").symlink_to(tmp_path / "project")
    (tmp_path / "project" / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "project" / "empty").mkdir()
    os.mkfifo(tmp_path / "project" / "pipe")
    assert names_of(tmp_path / "project") == ["a.py", "empty", "linked/b.py"]


def test_what_is_left_out_by_default_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ".git" in ignoring.default_excludes() and "__pycache__" in ignoring.default_excludes()
    monkeypatch.setenv(ignoring.EXCLUDES_VARIABLE, "")
    assert ignoring.default_excludes() == []
    monkeypatch.setenv(ignoring.EXCLUDES_VARIABLE, "data, tmp")
    assert ignoring.default_excludes() == ["data", "tmp"]


def test_the_same_files_make_the_same_package(tmp_path: Path) -> None:
    uploads = Uploads()
    uris = set()
    for copy in ("one", "two"):
        names = [f"d{number % 3}/f{number}" for number in range(20)]
        random.Random(copy).shuffle(names)
        write(tmp_path / copy, *names)
        os.utime(tmp_path / copy / names[0], (1, 10**9))
        uris.add(prepare({"working_dir": str(tmp_path / copy)}, uploads)["working_dir"])
    assert len(uris) == 1
    (tmp_path / "one" / "d0" / "f0").chmod(0o755)
    assert prepare({"working_dir": str(tmp_path / "one")}, uploads)["working_dir"] not in uris


def test_what_the_store_has_is_not_uploaded_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path, "a.py")
    uploads = Uploads()
    uri = prepare({"working_dir": str(tmp_path)}, uploads)["working_dir"]
    assert "1 files" in caplog.text
    uploads.error = AssertionError("uploaded again")
    assert prepare({"working_dir": str(tmp_path)}, uploads) == {"working_dir": uri}


def test_modules_keep_their_names(tmp_path: Path) -> None:
    write(
        tmp_path, "package/__init__.py", "package/__pycache__/x.pyc", "alone.py", "some-1.0-py3-none-any.whl", "c.tgz"
    )
    uploads = Uploads("gcs://_ray_pkg_1.zip")
    given = [tmp_path / name for name in ("package", "alone.py", "some-1.0-py3-none-any.whl", "c.tgz")]
    uris = prepare({"py_modules": [*map(str, given), "gcs://_ray_pkg_1.zip", "s3://b/a.zip"]}, uploads)["py_modules"]
    assert uploads.names(uris[0]) == ["package/__init__.py"]
    assert uploads.names(uris[1]) == ["alone.py"]
    assert uris[2].endswith("/some-1.0-py3-none-any.whl"), "installers read what is in a wheel from its name"
    assert uris[3].endswith(".tgz")
    assert uris[4:] == ["gcs://_ray_pkg_1.zip", "s3://b/a.zip"]


def test_what_cannot_be_sent_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "large/a", "small", "archive.zip")
    (tmp_path / "large" / "a").write_bytes(os.urandom(3000))
    monkeypatch.setenv(preparing.LIMIT_VARIABLE, "2000")
    uploads = Uploads()
    with pytest.raises(RuntimeEnvSetupError, match=r"large \(0\.0 MiB\).*'excludes'"):
        prepare({"working_dir": str(tmp_path)}, uploads)
    prepare({"working_dir": str(tmp_path), "excludes": ["large"]}, uploads)
    (tmp_path / "archive.zip").write_bytes(b"x" * 3000)
    with pytest.raises(RuntimeEnvSetupError, match=preparing.LIMIT_VARIABLE):
        prepare({"working_dir": str(tmp_path / "archive.zip")}, uploads)
    with pytest.raises(RuntimeEnvSetupError, match="not in the store"):
        prepare({"working_dir": "gcs://_ray_pkg_gone.zip"}, uploads)
    uploads.error = OSError("no way")
    with pytest.raises(RuntimeEnvSetupError, match="cannot be uploaded: no way"):
        prepare({"working_dir": str(tmp_path), "excludes": ["large", "archive.zip", "x"]}, uploads)
    monkeypatch.setenv(preparing.LIMIT_VARIABLE, "much")
    with pytest.raises(ValueError, match="not a number"):
        prepare({"working_dir": str(tmp_path)}, uploads)


def test_auto_names_what_it_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    write(tmp_path, "driver.py", "beside.py")
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "driver.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    uploads = Uploads()
    uri = prepare({"working_dir": "auto"}, uploads)["working_dir"]
    assert uploads.names(uri) == ["beside.py", "driver.py"]
    assert f"{tmp_path} goes to the nodes: 2 files" in caplog.text
    main.__file__ = None
    monkeypatch.chdir("/")
    with pytest.raises(RuntimeEnvSetupError, match="with all that is in it"):
        prepare({"working_dir": "auto"}, uploads)


# -- uv run ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that lets `uv run` have started this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def started(*words: str) -> None:
        monkeypatch.setattr(uv_run, "command_line", lambda: ["uv", "run", *words] if words else None)

    return started


def test_a_driver_of_uv_run_brings_its_environment(
    run_by: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_by()
    assert uv_run.with_uv_run({"env_vars": {"A": "1"}}) == {"env_vars": {"A": "1"}}
    run_by("--with", "torch", "--directory", "x", "-p", "3.12", "driver.py", "--with", "mine")
    env = uv_run.with_uv_run({"env_vars": {"A": "1"}})
    assert env["py_executable"] == "uv run --with torch -p 3.12 python"
    assert env["working_dir"] == str(tmp_path) and env["env_vars"] == {"A": "1"}
    run_by("-m", "package")
    version = ".".join(map(str, sys.version_info[:3]))
    assert uv_run.with_uv_run({})["py_executable"] == f"uv run --python {version} python"
    assert uv_run.with_uv_run({"env_vars": {"UV_PYTHON": "3.10"}})["py_executable"] == "uv run --python 3.10 python"
    with pytest.raises(RuntimeError, match="runtime_env has 'pip'"):
        uv_run.with_uv_run({"pip": {}})
    monkeypatch.setenv(uv_run.SWITCH, "0")
    assert uv_run.with_uv_run({"pip": {}}) == {"pip": {}}


def test_what_uv_run_reads_must_be_in_the_working_directory(run_by: Any, tmp_path: Path) -> None:
    write(tmp_path, "pyproject.toml", "inner/driver.py", "requirements.txt")
    run_by("driver.py")
    uv_run.with_uv_run({})
    with pytest.raises(RuntimeError, match=r"pyproject.toml, which is not in the working directory"):
        uv_run.with_uv_run({"working_dir": str(tmp_path / "inner")})
    run_by("--no-project", "driver.py")
    uv_run.with_uv_run({"working_dir": str(tmp_path / "inner")})
    run_by("--no-project", "--with-requirements", "requirements.txt", "driver.py")
    with pytest.raises(RuntimeError, match=r"requirements.txt, which is not"):
        uv_run.with_uv_run({"working_dir": str(tmp_path / "inner")})


def test_this_process_descends_from_no_uv_run() -> None:
    assert uv_run.command_line() is None or uv_run.command_line()[1] == "run"  # type: ignore[index]
