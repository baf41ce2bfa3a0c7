"""Functions are pickled once, found by their hash, and come back able to run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rabbitry_broker.functions import ERROR_VARIABLE, HASH_BYTES, FunctionCache, export
from rabbitry_broker.pickling import note_ref
from rabbitry_broker.serialization import pack

LOCK = threading.Lock()


class Remote:
    """Wraps a function as the decorator does: it pickles as itself and the function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remote, (self.function,)


def there_and_back(function: Callable[..., Any] | type) -> Any:
    digest, pickled = export(function)
    return FunctionCache({digest: pickled}.__getitem__).get(digest)


def test_a_function_is_loaded_once() -> None:
    base = 5
    digest, pickled = export(lambda x: x + base)
    loads: list[bytes] = []

    def load(wanted: bytes) -> bytes:
        loads.append(wanted)
        return pickled

    cache = FunctionCache(load)
    assert cache.get(digest)(1) == 6
    assert cache.get(digest) is cache.get(digest)
    assert loads == [digest]


def test_the_hash_follows_the_content() -> None:
    def adder(base: int) -> Callable[[int], int]:
        return lambda x: x + base

    function = adder(1)
    assert export(function) == export(function)
    assert len(export(function)[0]) == HASH_BYTES
    assert export(adder(1))[0] != export(adder(2))[0]


def test_the_same_program_gives_the_same_hash_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import math
            from rabbitry_broker.functions import export
            TABLE = {"a": [1, 2], "b": math.pi}
            def helper(x): return TABLE["a"][x] + math.floor(TABLE["b"])
            def work(x, *, names=("p", "q"), scale=2.0):
                total = sum(helper(x) for _ in names)
                return total * scale
            print(export(work)[0].hex())
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    printed = {
        subprocess.run(
            [sys.executable, str(script)],
            env={**environment, "PYTHONHASHSEED": seed},
            capture_output=True,
            timeout=30,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1


def test_a_function_may_use_itself_through_its_wrapper() -> None:
    scope: dict[str, Any] = {"__name__": "__main__", "Remote": Remote}
    exec("@Remote\ndef factorial(n, end=1):\n    return end if n < 2 else n * factorial(n - 1)", scope)
    assert there_and_back(scope["factorial"].function)(5) == 120


def test_functions_may_use_each_other_through_their_wrappers() -> None:
    scope: dict[str, Any] = {"__name__": "__main__", "Remote": Remote}
    exec(
        "@Remote\ndef even(n):\n    return n == 0 or odd(n - 1)\n"
        "@Remote\ndef odd(n):\n    return n != 0 and even(n - 1)\n",
        scope,
    )
    even = there_and_back(scope["even"].function)
    assert (even(10), even(7)) == (True, False)


def test_classes_come_back_with_their_bases_and_attributes() -> None:
    class Base:
        count = 3

        def __init__(self, n: int) -> None:
            self.n = n

    class Derived(Base):
        def __init__(self, n: int) -> None:
            super().__init__(n * self.count)

        @classmethod
        def make(cls) -> Derived:
            return cls(2)

    cls = there_and_back(Derived)
    assert cls.make().n == 6
    assert cls.__name__ == "Derived"


def test_captured_refs_see_that_nobody_follows_them() -> None:
    noted: list[bool] = []

    class Ref:
        def __reduce__(self) -> tuple[Any, ...]:
            noted.append(note_ref(b"ref"))
            return Ref, ()

    class Exports:
        def __reduce__(self) -> tuple[Any, ...]:
            export(lambda: ref)
            return str, ()

    ref = Ref()
    export(lambda: ref)
    assert noted == [False]
    assert pack([Exports()]).refs == ()
    assert noted == [False, False]


def test_what_cannot_be_sent_is_named() -> None:
    def work() -> Any:
        return LOCK

    work.__module__ = "__main__"
    with pytest.raises(TypeError, match=r"work\.<global LOCK>: cannot pickle '_thread.lock' object"):
        export(work)


def test_a_large_function_is_warned_about() -> None:
    table = bytes(11_000_000)

    def work() -> int:
        return len(table)

    with pytest.warns(UserWarning, match=r"function .*work is 10 MiB.* put\(\)"):
        export(work)


def test_a_larger_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ERROR_VARIABLE, "2000000")
    table = bytes(2_100_000)

    class Actor:
        def size(self) -> int:
            return len(table)

    with pytest.raises(ValueError, match=r"class .*Actor is 2 MiB.*FUNCTION_SIZE_ERROR_THRESHOLD=2000000.*put\(\)"):
        export(Actor)
    monkeypatch.setenv(ERROR_VARIABLE, "3000000")
    export(Actor)


def test_a_threshold_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ERROR_VARIABLE, "95MB")
    with pytest.raises(ValueError, match=r"FUNCTION_SIZE_ERROR_THRESHOLD.*'95MB'"):
        export(len)


def test_a_missing_module_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "only_on_the_driver"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tools.py").write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_on_the_driver.tools as module  # type: ignore[import-not-found]

    digest, pickled = export(lambda: module.f())
    monkeypatch.undo()
    for name in ("only_on_the_driver", "only_on_the_driver.tools"):
        del sys.modules[name]
    with pytest.raises(ModuleNotFoundError) as caught:
        FunctionCache({digest: pickled}.__getitem__).get(digest)
    assert caught.value.name == "only_on_the_driver"
    message = str(caught.value)
    assert "'only_on_the_driver'" in message
    for cure in ('"working_dir": "auto"', "\"pip\": ['only_on_the_driver']", "install it on the nodes"):
        assert cure in message
    assert "RABBITRY_EXTRA_REQUIREMENTS" in message
