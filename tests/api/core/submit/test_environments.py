"""The environments of a client's tasks: what stands in headers, what is kept for them, and what is let go of."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import pytest

from rabbitry.core.submit import environments as module
from rabbitry.core.submit.environments import Environments
from rabbitry.exceptions import RuntimeEnvSetupError
from rabbitry_broker.runtime_environments import LIBRARIES, Libraries, Record, digest_of
from rabbitry_broker.store.functions import Kind
from tests.api.core.fakes import Surroundings

PACKAGE = "gcs://_ray_pkg_1.zip"


@pytest.fixture
def around() -> Surroundings:
    made = Surroundings()
    made.kept.there[PACKAGE] = [b"p" * 16, b"q" * 16]
    return made


def record_of(around: Surroundings, code: bytes) -> Record:
    digest = digest_of(code)
    assert digest is not None
    data, kind, _ = around.kept.put_there[digest]
    assert kind is Kind.ENVIRONMENT
    return Record.unpack(data)


def test_variables_travel_themselves_and_all_else_by_its_hash(around: Surroundings) -> None:
    environments = around.environments()
    assert environments.code(None) == b""
    around.job.env = {"env_vars": {"A": "job"}}
    assert json.loads(environments.code({"env_vars": {"B": "1"}})) == {"A": "job", "B": "1"}
    assert around.kept.put_there == {} and around.registered == 0
    code = environments.code({"working_dir": PACKAGE})
    assert record_of(around, code) == Record({"env_vars": {"A": "job"}, "working_dir": PACKAGE}, (b"p" * 16, b"q" * 16))
    assert around.registered and len(environments) == 2
    assert environments.holds(code) == code[1:] + b"p" * 16 + b"q" * 16 and environments.holds(b"other") == b""


def test_a_record_is_stored_once_for_what_is_detached_once_more(around: Surroundings) -> None:
    environments = around.environments()
    first = environments.code({"py_modules": [PACKAGE]})
    around.kept.put_there.clear()
    assert environments.code({"py_modules": [PACKAGE]}) == first and not around.kept.put_there
    assert environments.code({"py_modules": [PACKAGE]}, detached=True) == first
    assert around.kept.put_there[first[1:]][2] and (PACKAGE, True) in around.kept.held


def test_a_package_that_is_gone_is_told(around: Surroundings) -> None:
    with pytest.raises(RuntimeEnvSetupError, match="not in the store"):
        around.environments().code({"working_dir": "gcs://_ray_pkg_gone.zip"})


def test_a_hook_is_kept_like_a_function(around: Surroundings) -> None:
    code = around.environments().code({"worker_process_setup_hook": lambda: None})
    record = record_of(around, code)
    hook = record.env["worker_process_setup_hook"]
    assert "lambda" in hook["name"] and record.holds == (bytes.fromhex(hook["function"]),)
    with pytest.raises(TypeError):
        around.environments().code({"worker_process_setup_hook": Unpicklable()})


class Unpicklable:
    def __call__(self) -> None:
        pass

    def __reduce__(self) -> Any:
        raise TypeError("no")


def test_children_are_in_their_parent_s_environment(around: Surroundings) -> None:
    environments = around.environments()
    record = Record({"pip": {"packages": ["a"]}}, (b"h" * 16,))
    code = b"\x01" + b"c" * 16
    environments.inherit(code, record)
    assert around.job.env == record.env and environments.holds(code) == b"c" * 16 + b"h" * 16
    assert record_of(around, environments.code({"env_vars": {"A": "1"}})).env == {**record.env, "env_vars": {"A": "1"}}


class OfModin:
    __module__ = "modin.core.of_the_tests"


def test_executors_of_a_library_are_told_what_to_import_and_others_are_not(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modin.pandas", ModuleType("modin.pandas"))
    environments = around.environments()
    code = environments.code({"env_vars": {"A": "1"}}, of=OfModin, threads=2)
    env = record_of(around, code).env
    assert env["env_vars"] == {"A": "1"} and "modin.pandas" in Libraries.of(env).modules
    assert Libraries.of(env).threads == 2
    assert environments.code(None, of=json.loads) == b""
    child = around.environments()
    child.inherit(code, Record(env))
    assert around.job.env == {"env_vars": {"A": "1"}}, "programs do not see it"
    assert child.code(None, of=OfModin, threads=2) == code, "and children of the library are at home in it"
    assert json.loads(child.code(None)) == {"A": "1"}


def test_a_hook_runs_before_libraries_are_imported(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modin.pandas", ModuleType("modin.pandas"))
    code = around.environments().code({"worker_process_setup_hook": "os.getpid"}, of=OfModin)
    assert record_of(around, code).env == {"worker_process_setup_hook": "os.getpid"}


def test_users_do_not_say_what_libraries_are(around: Surroundings) -> None:
    assert around.environments().code({LIBRARIES: "nonsense"}) == b""


def test_what_was_not_used_for_long_is_let_go_of(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_MOST", 2)
    environments = around.environments()
    codes = [environments.code({"preload": ["json"], "env_vars": {"A": str(number)}}) for number in range(3)]
    again = environments.code({"preload": ["json"], "env_vars": {"A": "0"}})
    assert again == codes[0] and around.kept.released == []
    environments.run_once()
    assert around.kept.released == [codes[1][1:]], "the first one is in use again"


def test_who_was_taken_for_dead_holds_it_all_again(around: Surroundings, caplog: pytest.LogCaptureFixture) -> None:
    environments: Environments = around.environments()
    code = environments.code({"working_dir": PACKAGE})
    around.kept.put_there.clear()
    environments.again()
    assert code[1:] in around.kept.put_there
    around.kept.missing = [b"p" * 16]
    environments.again()
    assert "call init() again" in caplog.text


@pytest.mark.parametrize("given", ["ab", [1, 2], [["a"], "2"], [[1], 2], {}, [["a"]]])
def test_libraries_that_make_no_sense_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="_libraries"):
        Libraries.of({LIBRARIES: given})


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b"[1, []]", b"[{}, [1]]", b"[{}, ['zz']]"])
def test_a_record_that_is_none_is_refused(data: bytes) -> None:
    from rabbitry_broker.messages import MalformedMessage

    with pytest.raises(MalformedMessage):
        Record.unpack(data)
