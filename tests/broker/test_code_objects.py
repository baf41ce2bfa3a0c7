"""Code that travels by value keeps its file, whatever cloudpickle writes there."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rabbitry.exception_state import dump_exception
from rabbitry_broker.code_objects import reduce_code
from rabbitry_broker.functions import export
from rabbitry_broker.serialization import pack, unpack


def local_function() -> Callable[[], Any]:
    def inner() -> int:
        return 42

    return inner


def over_the_wire(value: Any) -> Any:
    packed = pack(value)
    return unpack(packed.data, packed.buffers)


def test_a_function_keeps_its_file_and_its_source() -> None:
    received = over_the_wire(local_function())
    assert received.__code__.co_filename == __file__
    assert inspect.getsource(received).strip() == "def inner() -> int:\n        return 42"


def test_code_within_code_keeps_its_file() -> None:
    def outer() -> Callable[[], str]:
        return lambda: "inside"

    assert over_the_wire(outer)().__code__.co_filename == __file__


def test_methods_of_a_local_class_keep_their_file() -> None:
    class Local:
        def method(self) -> None: ...

        @property
        def value(self) -> int:
            return 1

    received = over_the_wire(Local)
    assert received.method.__code__.co_filename == __file__
    assert received.value.fget.__code__.co_filename == __file__


def test_an_exported_function_keeps_its_file() -> None:
    assert pickle.loads(export(local_function())[1]).__code__.co_filename == __file__


def test_the_class_of_an_exception_keeps_its_file() -> None:
    class LocalError(Exception):
        def method(self) -> None: ...

    received = pickle.loads(dump_exception(LocalError("x")))
    assert received.method.__code__.co_filename == __file__


def test_the_rest_of_a_code_object_is_what_it_was() -> None:
    code = local_function().__code__
    make, arguments = reduce_code(code)[:2]
    assert make(*arguments) == code


def test_files_of_one_name_give_the_same_hash_whether_they_share_the_string_or_not() -> None:
    source = "def f():\n    def g(): return 1\n    return g\n"
    codes = [compile(source, "".join(list("some_file.py")), "exec") for _ in range(2)]
    functions = []
    for code in codes:
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(code, scope)
        functions.append(scope["f"])
    assert export(functions[0])[0] == export(functions[1])[0]


@pytest.mark.parametrize("where", ["__main__", "module"])
def test_a_program_that_sends_functions_of_its_own(tmp_path: Path, where: str) -> None:
    lines = ["def fail(x):", "    return 1 / x  # the line that fails"]
    send = [
        "from rabbitry_broker.serialization import pack",
        "import sys",
        "sys.stdout.buffer.write(pack(fail).data)",
    ]
    if where == "module":
        (tmp_path / "helpmod.py").write_text("\n".join(lines) + "\n")
        send[0:0] = [
            "import cloudpickle, helpmod",
            "from helpmod import fail",
            "cloudpickle.register_pickle_by_value(helpmod)",
        ]
        lines = []
    script = tmp_path / "script.py"
    script.write_text("\n".join([*lines, *send]) + "\n")
    done = subprocess.run([sys.executable, script], capture_output=True, check=True, timeout=30)
    received = unpack(done.stdout)
    defined_in = tmp_path / ("helpmod.py" if where == "module" else "script.py")
    assert Path(received.__code__.co_filename) == defined_in
    assert "the line that fails" in inspect.getsource(received)
