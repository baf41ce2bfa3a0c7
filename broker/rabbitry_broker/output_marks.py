r"""Marks in what an executor prints, and in the files that keep it: what follows was printed by that task.

    in the pipe:  \0\x1drabbitry <task id, or zeros for none> <name>\n
    in a file:    :rabbitry: <time> task=<id> actor=<id> name=<name as JSON>\n

Who prints writes the first, its node reads it and writes the second. A line of user code that begins like the latter
gets a backslash before it. They are no secret: who forges one puts his own output under another task's name.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Final

from rabbitry_broker.ids import TASK_BYTES

IN_PIPE: Final = b"\0\x1drabbitry "
IN_FILE: Final = b":rabbitry: "
NOBODY: Final = b"\0" * TASK_BYTES
NAME_BYTES: Final = 200

_AFTER: Final = re.compile(rb"([0-9a-f]{%d}) ([^\n]*)\n" % (2 * TASK_BYTES))
_FIELDS: Final = re.compile(rb"^:rabbitry: (\S+) task=([0-9a-f]*) actor=([0-9a-f]*) name=(.*)$")


def for_pipe(task_id: bytes | None, name: str) -> str:
    """Return the mark of a task, None for nobody in particular, as an executor writes it."""
    shown = name.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore").replace("\n", " ")
    return f"\0\x1drabbitry {(task_id or NOBODY).hex()} {shown}\n"


def split(data: bytes) -> tuple[bytes, bytes, str, bytes] | None:
    """Cut data at its first mark of an executor.

    Returns:
        (what is before it, task id or b"", name, what is behind it); None if there is no whole mark.
    """
    at = data.find(IN_PIPE)
    while at >= 0:
        found = _AFTER.match(data, at + len(IN_PIPE))
        if found is not None:
            task_id = bytes.fromhex(found[1].decode())
            name = found[2].decode("utf-8", "replace")
            return data[:at], b"" if task_id == NOBODY else task_id, name, data[found.end() :]
        at = data.find(IN_PIPE, at + 1)
    return None


def begins_mark(rest: bytes | bytearray) -> bool:
    """Return True if a text without a newline may be, or end with, the beginning of a mark."""
    at = rest.rfind(b"\0")
    if at < 0:
        return False
    tail = bytes(rest[at:])
    return IN_PIPE.startswith(tail) or (
        tail.startswith(IN_PIPE) and len(tail) <= len(IN_PIPE) + 2 * TASK_BYTES + 1 + NAME_BYTES
    )


def for_file(task_id: bytes, actor_id: bytes, name: str, seconds: float) -> bytes:
    """Return the line that says in a file who printed what follows.

    Args:
        task_id: b"" if it is not known.
        actor_id: b"" if it was none.
        name: of the task.
        seconds: since the epoch.
    """
    at = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return b":rabbitry: %s task=%s actor=%s name=%s\n" % (
        at.encode(),
        task_id.hex().encode(),
        actor_id.hex().encode(),
        json.dumps(name).encode(),
    )


def read_file_mark(line: bytes) -> tuple[str, str, str] | None:
    r"""Return (task id, actor id, name), the ids in hexadecimal, if a line is such a mark, else None.

    >>> read_file_mark(for_file(b"\1" * 24, b"", "f", 0.0).rstrip())[2]
    'f'
    >>> read_file_mark(b"good morning")
    """
    found = _FIELDS.match(line)
    if found is None:
        return None
    try:
        name = json.loads(found[4])
    except ValueError:
        return None
    return found[2].decode(), found[3].decode(), str(name)


def escape(line: bytes) -> bytes:
    """Return a line of user code such that it is no mark of a file."""
    return b"\\" + line if line.startswith(IN_FILE) else line


def unescape(line: bytes) -> bytes:
    """Undo `escape`."""
    return line[1:] if line.startswith(b"\\" + IN_FILE) else line
