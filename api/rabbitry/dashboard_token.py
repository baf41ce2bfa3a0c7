"""The token that the HTTP service asks for: made once for a user, kept in a file that nobody else reads.

`RABBITRY_DASHBOARD_TOKEN` takes its place where there is no such file: in containers, on other machines.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from rabbitry import environment

FILE_NAME: Final = "dashboard-token"
TOKEN_BYTES: Final = 32
SHORTEST: Final = 16  # characters: what somebody made up himself must not be guessed
LONGEST: Final = 512


class TokenError(ValueError):
    """There is no token, it is too weak, or others can read it. The message says what to do."""


def token_file() -> Path:
    """Return where the user's token is kept, whether it exists or not.

    Raises:
        TokenError: the user has no home.
    """
    base = environment.text(environment.CONFIG_HOME)
    try:
        home = Path(base) if base else Path.home() / ".config"
    except RuntimeError as error:
        raise TokenError(f"no place for the token: {error}. Set {environment.DASHBOARD_TOKEN}") from None
    return home / "rabbitry" / FILE_NAME


def known_token() -> str | None:
    """Return the token that the environment or the user's file says; None if there is none.

    Raises:
        TokenError: it is too weak, or others can read it.
    """
    given = environment.text(environment.DASHBOARD_TOKEN)
    if given:
        return _checked(given, environment.DASHBOARD_TOKEN)
    path = token_file()
    try:
        with open(path, encoding="ascii") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise TokenError(f"{path} can be read or written by others: chmod 600 it, or delete it for a new token")
            return _checked(file.read(LONGEST + 2).strip(), str(path))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"{path} cannot be read ({error}): mend it, or set {environment.DASHBOARD_TOKEN}") from None


def token() -> str:
    """Return the token, and make one first if there is none.

    Raises:
        TokenError: it is too weak, others can read it, or no file can be made.
    """
    known = known_token()
    if known is not None:
        return known
    path = token_file()
    fresh = path.with_name(f".{FILE_NAME}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
        try:
            # A link, not a rename: of two that make one at the same time, the first stands.
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink()
    except OSError as error:
        raise TokenError(f"no token can be kept in {path} ({error}): set {environment.DASHBOARD_TOKEN}") from None
    made = known_token()
    if made is None:
        raise TokenError(f"{path} was there and is gone: try again, or set {environment.DASHBOARD_TOKEN}")
    return made


def _checked(text: str, where: str) -> str:
    if not SHORTEST <= len(text) <= LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        raise TokenError(f"the token in {where} must be {SHORTEST} to {LONGEST} printable ASCII characters, no blanks")
    return text
