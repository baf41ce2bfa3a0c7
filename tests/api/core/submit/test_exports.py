"""What a client has in the store of functions, and when it lets go of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from rabbitry.core.flight import Flight
from rabbitry.core.submit.exports import Exports

Put = tuple[bytes, bool]


class Functions:
    """Those in the store."""

    def __init__(self) -> None:
        self.stored: list[Put] = []
        self.released: list[bytes] = []

    def put(self, digest: bytes, pickled: bytes, client: bytes, *, detached: bool = False) -> None:
        self.stored.append((digest, detached))

    def release(self, client: bytes, digests: list[bytes]) -> None:
        self.released += digests


class Client:
    """What exports need of a client."""

    def __init__(self) -> None:
        self.registered = False
        self.flight = Flight()
        self.functions = Functions()
        self.owned: dict[bytes, bytes] = {}

    def register(self) -> None:
        self.registered = True


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def exports(client: Client) -> Exports:
    return Exports(b"c" * 12, client.functions, client.flight, client.owned, client.register)  # type: ignore[arg-type]


def a_function() -> Callable[[], None]:
    def function() -> None:
        """Do nothing."""

    return function


def look(exports: Exports) -> None:
    gc.collect()
    exports.run_once()


def test_a_function_is_stored_once_and_once_more_for_detached_tasks(client: Client, exports: Exports):
    function = a_function()
    for detached in (False, False, True, True, False):
        exports.export(b"1", b"pickled", function, detached=detached)
    assert client.functions.stored == [(b"1", False), (b"1", True)]
    assert client.registered


def test_what_was_collected_is_let_go_of_when_nothing_is_in_flight(client: Client, exports: Exports):
    kept, dropped = a_function(), a_function()
    exports.export(b"1", b"pickled", kept)
    exports.export(b"2", b"pickled", dropped)
    look(exports)
    del dropped
    client.flight.count = 1
    look(exports)
    assert client.functions.released == []
    client.flight.count = 0
    look(exports)
    look(exports)
    assert client.functions.released == [b"2"]
    assert len(exports) == 1
    exports.export(b"2", b"pickled", kept)
    assert client.functions.stored[-1] == (b"2", False), "it is stored again"


def test_of_two_functions_with_one_pickle_the_second_keeps_it(client: Client, exports: Exports):
    first, second = a_function(), a_function()
    exports.export(b"1", b"pickled", first)
    exports.export(b"1", b"pickled", second)
    del first
    look(exports)
    assert client.functions.released == []
    del second
    look(exports)
    assert client.functions.released == [b"1"]


def test_a_class_stays_while_there_are_actors(client: Client, exports: Exports):
    actor_class: Any = type("Actor", (), {})
    exports.export(b"1", b"pickled", actor_class)
    client.owned[b"ref"] = b"actor"
    del actor_class
    look(exports)
    assert client.functions.released == []
    client.owned.clear()
    look(exports)
    assert client.functions.released == [b"1"]


def test_who_was_taken_for_dead_stores_again_what_is_in_use(client: Client, exports: Exports):
    kept, dropped = a_function(), a_function()
    exports.export(b"1", b"pickled", kept, detached=True)
    exports.export(b"2", b"pickled", dropped)
    del dropped
    gc.collect()
    client.functions.stored.clear()
    exports.again()
    assert client.functions.stored == [(b"1", True)]
    assert len(exports) == 1


class Used:
    """Something that a function uses; `on_pickling` is called when it is pickled."""

    on_pickling: ClassVar[Callable[[], None]] = print

    def __reduce__(self) -> Any:
        Used.on_pickling()
        return (Used, ())


def a_function_that_uses(used: Any) -> Callable[[], Any]:
    def function() -> Any:
        return used

    return function


def on_pickling(monkeypatch: pytest.MonkeyPatch, callback: Callable[[], None]) -> None:
    monkeypatch.setattr(Used, "on_pickling", staticmethod(callback))


def test_pickling_again_holds_up_no_other_thread(
    client: Client, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[bool] = []

    def another_thread_exports() -> None:
        other = threading.Thread(target=exports.export, args=(b"2", b"pickled", print))
        other.start()
        other.join(20)
        finished.append(not other.is_alive())

    on_pickling(monkeypatch, another_thread_exports)
    function = a_function_that_uses(Used())
    exports.export(b"1", b"pickled", function)
    exports.again()
    assert finished == [True]
    assert [digest for digest, _ in client.functions.stored] == [b"1", b"2", b"1"]


def test_a_function_that_cannot_be_pickled_again_keeps_no_other_from_it(
    client: Client, exports: Exports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise RuntimeError("not now")

    on_pickling(monkeypatch, refuse)
    broken, kept = a_function_that_uses(Used()), a_function()
    exports.export(b"1", b"pickled", broken)
    exports.export(b"2", b"pickled", kept)
    client.functions.stored.clear()
    exports.again()
    assert client.functions.stored == [(b"2", False)] and "not now" in caplog.text


def test_what_was_let_go_of_while_it_was_pickled_is_not_stored(
    client: Client, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_pickling(monkeypatch, lambda: exports._exported.clear())
    function = a_function_that_uses(Used())
    exports.export(b"1", b"pickled", function)
    client.functions.stored.clear()
    exports.again()
    assert client.functions.stored == []
