"""What mypy and pyright say about programs: `right.py` has nothing wrong, `wrong.py` an error in each line with `# E`.

pyright runs as basedpyright, whose wheels bring the node it needs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
NAMES = ("right.py", "wrong.py")


def expected() -> set[tuple[str, int]]:
    return {
        (name, number)
        for name in NAMES
        for number, line in enumerate((PROGRAMS / name).read_text().splitlines(), 1)
        if line.endswith("# E")
    }


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, *NAMES], cwd=PROGRAMS, capture_output=True, text=True, timeout=55
    )
    assert done.returncode == 1, done.stdout + done.stderr  # there are errors in wrong.py
    return done.stdout


def differences(found: set[tuple[str, int]], output: str) -> str:
    return f"missed: {sorted(expected() - found)}\nnot expected: {sorted(found - expected())}\n{output}"


@pytest.mark.timeout(120)
def test_mypy(tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = tmp_path_factory.getbasetemp() / "mypy"
    output = run("mypy", "--strict", "--config-file=", f"--cache-dir={cache}", "--no-error-summary")
    found = {(name, int(line)) for name, line in re.findall(r"^(\w+\.py):(\d+): error", output, re.MULTILINE)}
    assert found == expected(), differences(found, output)


@pytest.mark.timeout(120)
def test_pyright(tmp_path: Path) -> None:
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(
        json.dumps({"typeCheckingMode": "strict", "include": [str(PROGRAMS)], "reportUnusedCoroutine": False})
    )
    options = ["--outputjson", "--level", "error", "--pythonpath", sys.executable, "--project", str(settings)]
    output = subprocess.run(
        [sys.executable, "-m", "basedpyright", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=55,
    ).stdout
    found = {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in json.loads(output)["generalDiagnostics"]
        if each["severity"] == "error"
    }
    assert found == expected(), differences(found, output)
