"""Write a `.env` with random secrets for docker-compose.yml, unless there is one. Used by `make up`."""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / ".env.example"
SECRET_BYTES = 24


def env_text(example: str, settings: dict[str, str] | None = None) -> str:
    """Return the text of a `.env`: the example with random secrets, URLs that have them, and other settings.

    Args:
        example: text of `.env.example`.
        settings: values to write instead of the example's.
    """
    values = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, flags=re.MULTILINE))
    # Images of a node and drivers must have the same minor version of Python.
    if not values["PYTHON_IMAGE"].startswith(f"python:3.{sys.version_info.minor}."):
        values["PYTHON_IMAGE"] = f"python:3.{sys.version_info.minor}-slim-bookworm"
    values.update({name: secrets.token_hex(SECRET_BYTES) for name, value in values.items() if value == "..."})
    values.update(settings or {})
    for name, value in values.items():
        value = re.sub(r"<([A-Z_]+)>", lambda match: values[match[1]], value)
        if name == "RABBITRY_BROKER_URL":
            value = value.replace(":5672/", f":{values['RABBITMQ_PORT']}/")
        elif name == "RABBITRY_STORE_URL":
            value = value.replace(":6379/", f":{values['REDIS_PORT']}/")
        values[name] = value
    return re.sub(r"^([A-Z_]+)=.*$", lambda match: f"{match[1]}={values[match[1]]}", example, flags=re.MULTILINE)


def write_env(path: Path, settings: dict[str, str] | None = None) -> None:
    """Write a `.env` that only its owner can read.

    Raises:
        FileExistsError: there is one.
    """
    text = env_text(EXAMPLE.read_text(encoding="utf-8"), settings)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600), encoding="utf-8") as file:
        file.write(text)


def main() -> int:
    """Make `.env` at the project's top if it is missing."""
    path = ROOT / ".env"
    try:
        write_env(path)
    except FileExistsError:
        return 0
    print(f"wrote {path.name} with random passwords and a random secret; drivers on this host read it too")
    return 0


if __name__ == "__main__":
    sys.exit(main())
