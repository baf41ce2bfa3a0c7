"""Modules that every process loads must not pull in the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import warren.options

HEAVY = {"asyncio", "cloudpickle", "numpy", "pika", "pydantic", "redis"}


@pytest.mark.parametrize("module", ["exceptions", "options", "signature", "ids", "scheduling", "labels", "runtime_env"])
def test_a_module_is_light(module: str) -> None:
    package = str(Path(warren.options.__file__).parent)
    # The package itself is replaced by an empty one: what it imports has a limit of its own.
    script = textwrap.dedent(
        f"""
        import sys, types
        sys.path[:0] = {[entry for entry in sys.path if entry]!r}
        sys.modules["warren"] = package = types.ModuleType("warren")
        package.__path__ = [{package!r}]
        import warren.{module}
        print(sorted({HEAVY!r} & set(sys.modules)))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=True, text=True)
    assert done.stdout.strip() == "[]"
