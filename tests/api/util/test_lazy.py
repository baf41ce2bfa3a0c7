"""`rabbitry.util` itself imports none of its libraries, and none of what they need."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rabbitry.util


def imported_by(statement: str) -> set[str]:
    code = f"import sys\nsys.path[:0] = {[entry for entry in sys.path if entry]!r}\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stdout.split())


def test_the_package_is_lazy() -> None:
    found = imported_by("import rabbitry.util")
    # But for the one that is a function's name too, which has to be there first, and the one that sessions need.
    expected = {"rabbitry.util.node_address", "rabbitry.util.placement_group"}
    assert {name for name in found if name.startswith("rabbitry.util.")} == expected
    assert not found & {"multiprocessing.pool", "joblib", "numpy"}


@pytest.mark.parametrize("name", rabbitry.util.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(rabbitry.util, name).__module__.startswith("rabbitry")
