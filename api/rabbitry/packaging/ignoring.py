"""Which files of a directory go into its package: not those of `excludes`, and of .gitignore and .rayignore files.

Patterns are those of git. Of nested files of patterns the deepest that says something counts, as in git.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pathspec import GitIgnoreSpec

from rabbitry import environment

DEFAULT_EXCLUDES: Final = (".git", ".venv", "venv", "__pycache__")
EXCLUDES_VARIABLE: Final = "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"
"""Patterns, separated by commas, instead of the default ones; Ray's name."""
NO_GITIGNORE_VARIABLE: Final = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"
"""1: what .gitignore files say does not count; Ray's name."""


class Found(NamedTuple):
    """A file, or a directory with nothing in it, that goes into the package.

    Attributes:
        path: where it is.
        name: what it is called in the package, with slashes.
        status: of `os.stat`.
    """

    path: str
    name: str
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return stat.S_ISDIR(self.status.st_mode)


def default_excludes() -> list[str]:
    """Return the patterns that hold for every working directory."""
    given = environment.maybe(EXCLUDES_VARIABLE)
    names = DEFAULT_EXCLUDES if given is None else given.split(",")
    return [name.strip() for name in names if name.strip()]


def files_of(directory: str, excludes: Iterable[str] = ()) -> Iterator[Found]:
    """Yield what of a directory goes into its package, sorted by name.

    Links are followed, as long as they lead to no directory above. What is neither file nor directory is left out.

    Args:
        directory: an existing one.
        excludes: patterns of git, relative to it.

    Raises:
        OSError: a directory cannot be read.
    """
    names = [".rayignore"] if environment.is_on(NO_GITIGNORE_VARIABLE) else [".gitignore", ".rayignore"]
    root = os.path.realpath(directory)
    yield from _walk(root, "", GitIgnoreSpec.from_lines(excludes), (), names, frozenset((root,)))


def _walk(
    directory: str,
    prefix: str,
    excluded: Any,
    specs: Sequence[tuple[int, Any]],
    names: list[str],
    above: frozenset[str],
) -> Iterator[Found]:
    for name in names:
        try:
            with open(os.path.join(directory, name), encoding="utf-8", errors="surrogateescape") as lines:
                specs = ((len(prefix), GitIgnoreSpec.from_lines(lines)), *specs)  # the deepest first
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = prefix + entry.name
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue  # a link to nothing, or gone in between
        is_directory = stat.S_ISDIR(status.st_mode)
        matched = name + "/" if is_directory else name
        if excluded.match_file(matched) or _is_ignored(specs, matched):
            continue
        if is_directory:
            real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            if real in above:
                continue
            empty = True
            for each in _walk(entry.path, name + "/", excluded, specs, names, above | {real}):
                empty = False
                yield each
            if empty and not any(os.scandir(entry.path)):
                yield Found(entry.path, name, status)
        elif stat.S_ISREG(status.st_mode):
            yield Found(entry.path, name, status)


def _is_ignored(specs: Sequence[tuple[int, Any]], name: str) -> bool:
    for start, spec in specs:
        said = spec.check_file(name[start:]).include
        if said is not None:
            return bool(said)
    return False
