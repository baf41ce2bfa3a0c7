"""Where `import ray` finds what: with a folder that stands for an installed Ray."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from rabbitry.ray_alias import table
from rabbitry.ray_alias.finder import our_module

FILES = {
    "_raylet.so": "",
    "_version.py": 'version = "2.60.0"\ncommit = "abc"\n',
    "__init__.py": "raise SystemExit('the real Ray was loaded')\n",
    "util/debug.py": "Suspect = 'of the wheel'\n",
    "util/queue.py": "raise SystemExit('ours has that')\n",
    "data/__init__.py": "import ray\nfrom ray.util.queue import Queue\nHERE = ray.__version__\n",
    "data/block.py": "SIZE = 1\n",
    "_private/worker.py": "raise SystemExit('an adapter stands for that')\n",
    "_private/constants.py": "A = 1\n",
    "_private/node.py": "",
    "core/generated/pb.py": "B = 2\n",
}


def python(folder: Path, code: str, **changed: str) -> list[str]:
    """Run a program under the alias, beside a Ray made of files; return the lines that it printed."""
    for name, content in {**FILES, **changed}.items():
        path = folder / "ray" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    program = f"import sys\nsys.path[:0] = {[*filter(None, sys.path)]!r}\nsys.path.append({str(folder)!r})\n"
    program += f"from rabbitry.as_ray import install\ninstall()\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_file_of_ray_is_that_of_the_wheel(tmp_path: Path) -> None:
    assert python(tmp_path, "import ray\nprint(ray.__file__)") == [str(tmp_path / "ray" / "__init__.py")]


def test_a_function_stays_when_the_module_of_its_name_is_imported(tmp_path: Path) -> None:
    code = """
import ray
from ray.util.placement_group import PlacementGroup
import ray.util.placement_group, sys
print(type(ray.util.placement_group).__name__, sys.modules["ray.util.placement_group"].PlacementGroup is PlacementGroup)
"""
    assert python(tmp_path, code) == ["function True"]


def test_libraries_come_from_the_wheel_and_the_core_from_us(tmp_path: Path) -> None:
    code = """
import ray, ray.data, rabbitry
from ray._private import constants
from ray.core.generated import pb
from ray.util.debug import Suspect
print(ray.__version__, ray.__commit__, ray.data.HERE, ray.data.block.SIZE, constants.A, pb.B)
print(ray.data.Queue is rabbitry.util.queue.Queue, Suspect, rabbitry.data is ray.data)
import ray._private.worker
print(type(ray._private.worker.global_worker).__module__, ray.worker is ray._private.worker)
import cloudpickle, pickle
print(pickle.loads(cloudpickle.dumps(lambda: ray))() is ray)
"""
    assert python(tmp_path, code) == [
        "2.60.0 abc 2.60.0 1 1 2",
        "True of the wheel True",
        "rabbitry.ray_alias.adapters.worker True",
        "True",
    ]


def test_what_is_nowhere_says_why(tmp_path: Path) -> None:
    code = """
for name in ("ray.nothing", "ray._private.node"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error)
"""
    assert python(tmp_path, code) == [
        "No module named 'ray.nothing': neither rabbitry nor the installed Ray 2.60.0 has it",
        "ray._private.node speaks to Ray's own servers, which rabbitry does not run",
    ]


def test_a_ray_that_is_too_old_is_not_used(tmp_path: Path) -> None:
    code = """
try:
    import ray.data
except ModuleNotFoundError as error:
    print(error)
"""
    said = python(tmp_path, code, **{"_version.py": 'version = "2.9.1"\n'})
    assert said == ["ray.data is Ray's, and the installed Ray 2.9.1 is older than 2.48: pip install 'rabbitry[ray]'"]


def test_what_is_replaced_on_ray_is_replaced_everywhere(tmp_path: Path) -> None:
    code = """
import ray, rabbitry
before = ray.get
ray.get = print
print(rabbitry.get is print)
ray.get = before
print(rabbitry.get is before, ray.SCRIPT_MODE, ray.WORKER_MODE, str(ray.Language.PYTHON))
"""
    assert python(tmp_path, code) == ["True", "True 0 1 PYTHON"]


@pytest.mark.parametrize("name", sorted(table.ADAPTERS))
def test_every_adapter_can_be_imported(name: str) -> None:
    ours = our_module(name)
    assert ours is not None
    assert importlib.import_module(ours).__doc__


@pytest.mark.parametrize("name", table.OURS)
def test_what_the_table_calls_ours_is_a_module_of_ours(name: str) -> None:
    importlib.import_module(f"rabbitry.{name}")
