"""Exceptions: the class tree, pickling, and the way of a task's failure from executor to reader."""

from __future__ import annotations

import builtins
import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from rabbitry import exceptions
from rabbitry.exceptions import (
    RABBITRY_EXCEPTION_TYPES,
    RAY_EXCEPTION_TYPES,
    ActorDeath,
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    RabbitryError,
    ReconstructionFailure,
    TaskCancelledError,
    TaskError,
    UnserializableException,
    UserCodeException,
    WorkerCrashedError,
    capture_task_error,
    load_task_error,
    store_error,
    store_input_failure,
)

NODE = "ab" * 28


class OtherArguments(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")
        self.left = left


class KeywordNew(Exception):
    def __new__(cls, *, key: int) -> KeywordNew:
        return super().__new__(cls)

    def __init__(self, *, key: int) -> None:
        self.key = key


class Slotted(Exception):
    __slots__ = ("level",)

    def __init__(self, *, level: int) -> None:
        self.level = level


class ArgsProperty(Exception):
    def __init__(self, value: int) -> None:
        self._value = value

    @property
    def args(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (self._value,)


class OwnPid(Exception):
    def __init__(self) -> None:
        self.pid = "the user's"


class Sealed(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("Sealed is final")


class BeyondException(BaseException):
    pass


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


class BrokenReduce(Exception):
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def failed(error: BaseException, name: str = "jobs.f", **options: Any) -> bytes:
    """Return the stored failure of a task that raised `error`."""
    try:
        raise error
    except BaseException as caught:
        return capture_task_error(caught, name, 4711, NODE, **options)


# -- what arrives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boom"),
        KeyError("k"),
        OtherArguments(1, 2),
        KeywordNew(key=4),
        Slotted(level=3),
        ArgsProperty(5),
        BeyondException("b"),
        FileNotFoundError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"abc", 0, 1, "bad"),
        ImportError("m", name="n", path="p"),
        SyntaxError("bad", ("f.py", 1, 2, "text")),
        StopIteration(5),
        SystemExit(3),
        KeyboardInterrupt(),
        GetTimeoutError("late"),
        ActorDiedError(),
        WorkerCrashedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_raised_failure_is_a_task_error_and_the_users_class_with_its_args(error: BaseException) -> None:
    raised = load_task_error(failed(error))

    assert isinstance(raised, TaskError)
    assert isinstance(raised, type(error))
    assert raised.args == error.args
    assert type(raised.cause) is type(error)
    assert type(raised).__name__ == f"TaskError({type(error).__name__})"
    with pytest.raises(type(error)):
        raise raised
    with pytest.raises(TaskError):
        raise raised


def test_attributes_and_native_fields_of_the_cause_arrive() -> None:
    raised = load_task_error(failed(FileNotFoundError(2, "No such file", "/x")))
    assert (raised.errno, raised.filename) == (2, "/x")  # type: ignore[attr-defined]
    assert load_task_error(failed(OtherArguments(1, 2))).left == 1  # type: ignore[attr-defined]
    assert load_task_error(failed(Slotted(level=3))).level == 3  # type: ignore[attr-defined]
    assert load_task_error(failed(KeywordNew(key=4))).key == 4  # type: ignore[attr-defined]


def test_where_it_happened_can_be_read() -> None:
    raised = load_task_error(failed(ValueError("boom"), "jobs.f", ip="10.0.0.1"))
    assert isinstance(raised, TaskError)
    assert raised.function_name == "jobs.f"
    assert raised.pid == 4711
    assert raised.ip == "10.0.0.1"
    assert raised.node_id == NODE
    assert raised.proctitle == "rabbitry::f"
    assert raised.traceback_str.startswith("Traceback (most recent call last):\n")
    assert raised.traceback_str.endswith("ValueError: boom\n")


def test_a_module_that_the_node_lacks_is_named_with_what_to_do() -> None:
    def missing(statement: str) -> ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError) as caught:
            exec(statement)
        return caught.value

    raised = load_task_error(failed(missing("import not_on_the_node.tools")))
    assert isinstance(raised, ModuleNotFoundError)
    assert raised.name == "not_on_the_node"
    text = str(raised)
    assert "No module named 'not_on_the_node'" in text
    assert f"node={NODE[:8]}" in text
    for cure in (
        "has no not_on_the_node",
        '"working_dir": "auto"',
        "\"pip\": ['not_on_the_node']",
        "install it on the nodes",
    ):
        assert cure in text
    assert "RABBITRY_EXTRA_REQUIREMENTS" in text
    # What says it all by itself, or was raised by hand, is left as it is.
    for other in (missing("raise ModuleNotFoundError('no plug-in for this')"), ValueError("boom")):
        assert "RABBITRY_EXTRA_REQUIREMENTS" not in str(load_task_error(failed(other)))


def test_an_attribute_of_the_users_class_wins_over_ours() -> None:
    assert load_task_error(failed(OwnPid())).pid == "the user's"  # type: ignore[attr-defined]


def test_the_text_is_the_remote_traceback_under_a_line_that_says_where() -> None:
    lines = str(load_task_error(failed(ValueError("boom"), "jobs.f", ip="10.0.0.1"))).split("\n")
    assert lines[0] == "rabbitry::f() (pid=4711, ip=10.0.0.1, node=abababab)"
    assert lines[1].startswith('  File "')
    assert lines[-1] == "ValueError: boom"


def test_the_text_of_an_actors_failure_names_the_actor() -> None:
    data = failed(ValueError("boom"), "Counter.add", actor_repr="<Counter>", actor_id="0a")
    assert str(load_task_error(data)).startswith(
        "rabbitry::Counter.add() (pid=4711, node=abababab, actor_id=0a, repr=<Counter>)\n"
    )


def test_own_frames_are_left_out_of_the_traceback() -> None:
    try:
        load_task_error(3)  # type: ignore[arg-type]
    except TypeError as caught:
        text = str(load_task_error(capture_task_error(caught, "f", 1, NODE)))
    assert "task_error.py" not in text
    assert __file__ in text


@pytest.mark.parametrize(("wrapping", "shown"), [(UserCodeException, False), (ValueError, True)])
def test_rays_own_frames_of_data_stand_only_in_errors_that_are_not_the_users(
    wrapping: type[Exception], shown: bool
) -> None:
    """They hold the frames of the user's function, in the error and in its cause, and stay in `traceback_str`."""

    def users() -> None:
        raise KeyError("the user's")

    library = """
        def again(call, times):
            if times:
                again(call, times - 1)
            call()

        def apply(call, wrapping):
            try:
                again(call, 5)
            except Exception as error:
                raise wrapping("a block failed\\n  for good") from error
    """
    names: dict[str, Any] = {}
    exec(compile(textwrap.dedent(library), "/packages/ray/data/_internal/planner/apply.py", "exec"), names)
    try:
        names["apply"](users, wrapping)
    except Exception as caught:
        error = load_task_error(capture_task_error(caught, "Map(f)", 1, NODE))
    assert isinstance(error, TaskError)
    assert "in users" in str(error)
    assert str(error).endswith("a block failed\n  for good")
    assert ("data/_internal" in str(error)) is ("Previous line repeated" in str(error)) is shown
    assert "data/_internal" in error.traceback_str


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
def test_exception_groups_arrive_as_groups() -> None:
    group_class: Any = vars(builtins)["ExceptionGroup"]
    raised = load_task_error(failed(group_class("several", [ValueError(1), OtherArguments(3, 4)])))
    assert isinstance(raised, group_class)
    assert [type(each) for each in raised.exceptions] == [ValueError, OtherArguments]
    assert str(raised).startswith("rabbitry::f() (pid=4711")


def test_a_plain_exception_is_raised_as_task_error_itself() -> None:
    raised = load_task_error(failed(Exception("plain")))
    assert type(raised) is TaskError
    assert type(raised.cause) is Exception


def test_a_class_that_cannot_be_subclassed_falls_back_to_task_error(caplog: pytest.LogCaptureFixture) -> None:
    raised = load_task_error(failed(Sealed("s")))
    assert type(raised) is TaskError
    assert isinstance(raised.cause, Sealed)
    assert "Sealed is final" in caplog.text
    with pytest.raises(TypeError):
        raised.make_dual_exception_instance()


def test_instances_of_one_cause_share_a_class() -> None:
    assert type(load_task_error(failed(ValueError(1)))) is type(load_task_error(failed(ValueError(2))))


# -- failures of failures --------------------------------------------------------------------------------------------


def test_a_failure_read_inside_a_task_keeps_its_cause_and_both_tracebacks() -> None:
    inner = load_task_error(failed(ValueError("boom"), "jobs.inner"))
    raised = load_task_error(failed(inner, "jobs.outer"))
    assert isinstance(raised, ValueError)
    assert isinstance(raised, TaskError)
    assert type(raised.cause) is ValueError
    text = str(raised)
    assert text.index("rabbitry::outer()") < text.index("rabbitry::inner()") < text.index("ValueError: boom")


def test_a_dependant_has_the_same_cause_and_says_that_an_input_failed() -> None:
    data = store_input_failure(store_input_failure(failed(OtherArguments(1, 2), "jobs.f"), "jobs.g"), "jobs.h")
    raised = load_task_error(data)
    assert isinstance(raised, OtherArguments)
    assert isinstance(raised, TaskError)
    assert raised.args == ("1 and 2",)
    assert raised.dependants == ("jobs.h", "jobs.g")
    text = str(raised)
    assert "At least one of the input arguments for this task could not be computed" in text
    assert text.index("rabbitry::h()") < text.index("rabbitry::g()") < text.index("rabbitry::f()")


def test_a_dependant_of_a_crashed_task_is_a_task_error_too() -> None:
    data = store_input_failure(store_error(WorkerCrashedError("exit code 1")), "jobs.g")
    raised = load_task_error(data)
    assert isinstance(raised, WorkerCrashedError)
    assert isinstance(raised, TaskError)
    assert "exit code 1" in str(raised)


def test_passing_a_failure_down_a_long_chain_does_not_grow_it_for_ever() -> None:
    data = failed(ValueError("boom"), "jobs.f")
    sizes = []
    for index in range(100):
        data = store_input_failure(data, f"jobs.g{index}")
        sizes.append(len(data))
    assert sizes[-1] < sizes[20] + 100
    raised = load_task_error(data)
    assert isinstance(raised, TaskError)
    assert raised.dependants[0] == "jobs.g99"
    assert raised.dependants[-1] == "jobs.g0"


def test_passing_a_failure_on_does_not_need_the_class_of_the_cause(tmp_path: Path) -> None:
    data = _failure_of_foreign_class(tmp_path)
    assert isinstance(load_task_error(store_input_failure(data, "g")), UnserializableException)


# -- failures that cannot travel whole -------------------------------------------------------------------------------


def test_a_cause_that_cannot_be_pickled_leaves_its_text() -> None:
    raised = load_task_error(failed(Locked()))
    assert type(raised) is TaskError
    assert type(raised.cause) is RabbitryError
    assert "Locked could not be pickled" in str(raised.cause)
    assert "_thread.lock" in str(raised.cause)
    assert "Locked: holds a lock" in str(raised)
    assert "could not be pickled" in str(raised)


def test_a_cause_whose_class_is_unknown_here_leaves_its_text(tmp_path: Path) -> None:
    raised = load_task_error(_failure_of_foreign_class(tmp_path))
    assert isinstance(raised, UnserializableException)
    assert isinstance(raised, TaskError)
    assert "ForeignError: from afar" in str(raised)
    assert "No module named 'foreign_module_of_test'" in str(raised)
    assert "ForeignError: from afar" in raised.original_stack_trace


def test_a_cause_that_cannot_be_rebuilt_leaves_its_text() -> None:
    raised = load_task_error(failed(BrokenReduce("b")))
    assert isinstance(raised, UnserializableException)
    assert isinstance(raised, TaskError)


def test_capturing_never_raises() -> None:
    raised = load_task_error(failed(Untellable()))
    assert isinstance(raised, Untellable)
    surrogate = load_task_error(failed(ValueError("lone \udc80 surrogate")))
    assert isinstance(surrogate, ValueError)


def test_a_huge_text_is_cut() -> None:
    assert len(str(load_task_error(failed(ValueError("x" * 10_000_000))))) < 1_000_000


def test_loading_rubbish_gives_an_error_that_says_so() -> None:
    for data in (b"", b"xx", store_error(WorkerCrashedError())[:-1]):
        assert isinstance(load_task_error(data), UnserializableException)


def test_classes_of_main_travel_by_value(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from rabbitry.exceptions import capture_task_error
        class MainError(Exception):
            def __init__(self, a, b):
                super().__init__(a + b)
                self.a = a
        try:
            raise MainError(1, 2)
        except MainError as error:
            sys.stdout.buffer.write(capture_task_error(error, "f", 1, "ab"))
        """
    )
    raised = load_task_error(_run(script, tmp_path))
    assert type(raised).__name__ == "TaskError(MainError)"
    assert raised.a == 1  # type: ignore[attr-defined]


def _failure_of_foreign_class(tmp_path: Path) -> bytes:
    (tmp_path / "foreign_module_of_test.py").write_text("class ForeignError(Exception): pass\n")
    script = textwrap.dedent(
        """
        import sys
        from foreign_module_of_test import ForeignError
        from rabbitry.exceptions import capture_task_error
        try:
            raise ForeignError("from afar")
        except ForeignError as error:
            sys.stdout.buffer.write(capture_task_error(error, "f", 1, "ab"))
        """
    )
    return _run(script, tmp_path)


def _run(script: str, directory: Path) -> bytes:
    path = os.pathsep.join([str(directory), *(entry for entry in sys.path if entry)])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=30,
        check=True,
    )
    return done.stdout


# -- pickling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copier", [pickle, cloudpickle, None], ids=["pickle", "cloudpickle", "deepcopy"])
@pytest.mark.parametrize("error", [ValueError("boom"), OtherArguments(1, 2), Exception("plain"), Locked()])
def test_a_raised_failure_can_be_pickled_again(error: Exception, copier: Any) -> None:
    raised = load_task_error(store_input_failure(failed(error), "jobs.g"))
    again = copy.deepcopy(raised) if copier is None else copier.loads(copier.dumps(raised))
    assert type(again) is type(raised)
    assert str(again) == str(raised)
    assert type(again.cause) is type(raised.cause)  # type: ignore[attr-defined]


SAMPLES: list[RabbitryError] = [
    TaskCancelledError(error_message="by the user"),
    TaskCancelledError("0a0b"),
    ActorUnavailableError("restarting", b"\x01" * 16),
    ActorUnavailableError("restarting", None),
    ActorDiedError(ActorDeath("Counter", "0a", reason="It was killed.", pid=3, name="c", never_started=True)),
    ActorDiedError(TaskError("Counter.__init__", "Traceback\nValueError: x", ValueError("x"), actor_id="0a")),
    ObjectLostError(object_ref_hex="0a", call_site="job.py:3"),
    ObjectReconstructionFailedError("0a", ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_PUT),
    ObjectReconstructionFailedError("0a", 12, "because"),
    ObjectReconstructionFailedError("0a"),
    exceptions.RabbitrySystemError("it broke", traceback_str="tb"),
    exceptions.RuntimeEnvSetupError("no such file"),
    exceptions.RpcError("unreachable", rpc_code=14),
    exceptions.ObjectStoreFullError("put of 3 GiB"),
    UnserializableException("text", "why"),
    exceptions.ActorAlreadyExistsError("the name c is taken"),
    exceptions.ActorHandleNotFoundError(error_message="old handle"),
]


def _plain_sample(cls: type[RabbitryError]) -> RabbitryError:
    if cls is TaskError:
        return TaskError("f", "Traceback", ValueError("x"))
    return cls() if cls is ActorDiedError else cls("0a")


@pytest.mark.parametrize(
    "error", [*SAMPLES, *map(_plain_sample, RABBITRY_EXCEPTION_TYPES)], ids=lambda error: type(error).__name__
)
def test_every_exception_survives_pickling_and_the_store(error: RabbitryError) -> None:
    assert str(error)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), load_task_error(store_error(error))):
        if type(error) is TaskError:
            assert isinstance(again, TaskError)
        else:
            assert type(again) is type(error)
            assert {k: repr(v) for k, v in vars(again).items()} == {k: repr(v) for k, v in vars(error).items()}
        assert str(again) == str(error)
    assert type(RabbitryError.from_bytes(error.to_bytes())).__mro__[-3:] == type(error).__mro__[-3:]


@pytest.mark.parametrize("cls", RABBITRY_EXCEPTION_TYPES, ids=lambda cls: cls.__name__)
def test_every_exception_can_be_the_cause_of_a_task_error(cls: type[RabbitryError]) -> None:
    raised = load_task_error(failed(_plain_sample(cls)))
    assert isinstance(raised, TaskError)
    assert isinstance(raised, cls)


def test_a_users_subclass_with_another_constructor_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(_Custom(code=7)))
    assert (again.code, str(again)) == (7, "code 7")


class _Custom(RabbitryError):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


# -- names -----------------------------------------------------------------------------------------------------------


def test_rays_names_are_the_same_classes() -> None:
    assert exceptions.RayError is RabbitryError
    assert exceptions.RayTaskError is TaskError
    assert exceptions.RayActorError is exceptions.ActorError
    assert exceptions.RaySystemError is exceptions.RabbitrySystemError
    assert exceptions.LocalRayletDiedError is exceptions.LocalNodeDiedError
    assert RAY_EXCEPTION_TYPES is RABBITRY_EXCEPTION_TYPES


def test_the_list_of_types_has_every_class_once() -> None:
    public = {
        value
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, RabbitryError) and not name.startswith("_")
    }
    assert set(RABBITRY_EXCEPTION_TYPES) == public
    assert len(RABBITRY_EXCEPTION_TYPES) == len(public) == 42
    assert all(hasattr(exceptions, name) for name in exceptions.__all__)
    assert {cls.__module__ for cls in RABBITRY_EXCEPTION_TYPES} == {"rabbitry.exceptions"}


def test_builtin_bases_are_rays() -> None:
    assert issubclass(GetTimeoutError, TimeoutError)
    assert issubclass(exceptions.ActorAlreadyExistsError, ValueError)
    assert issubclass(exceptions.ActorHandleNotFoundError, ValueError)
    assert issubclass(exceptions.ReferenceCountingAssertionError, AssertionError)
    assert issubclass(exceptions.RayChannelTimeoutError, TimeoutError)


def test_what_get_raises_derives_from_the_two_classes_and_no_third() -> None:
    raised = load_task_error(capture_task_error(KeyError("a"), "f", 1, "ip"))
    assert type(raised).__bases__ == (TaskError, KeyError)
    assert pickle.loads(pickle.dumps(raised)).args == ("a",)
