"""The error of a task: as it is captured where the task ran, kept in the store, and raised where its result is read.

    executor:  capture_task_error(exc, ...)         -> bytes   the exception, its traceback as text, where it happened
    anyone:    store_input_failure(bytes, name)     -> bytes   the same failure, as the result of a task that needed it
    anyone:    store_error(exc)                     -> bytes   an exception that is raised as it is (WorkerCrashedError)
    reader:    load_task_error(bytes)               -> the exception to raise

Capturing never fails and loading never fails: an exception that cannot be pickled, or whose class is unknown to the
reader, still arrives with its text. The exception travels as opaque bytes inside the record, so that whoever passes a
failure on (an agent, a node without the user's modules) neither needs its class nor runs its code.

What is raised at the reader is an instance both of `TaskError` and of the class of the original exception.

The classes here are public as members of `rabbitry.exceptions`.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import sys
import types
from typing import Any, ClassVar, Final, cast

import msgspec

from rabbitry import late_paths, program
from rabbitry.exception_state import class_of, dump_exception, fields_of, native_args, rebuild, reduce_exception

_PUBLIC_MODULE: Final = "rabbitry.exceptions"
RAYS_MODULE: Final = "ray.exceptions"
"""Where the classes say they are once `rabbitry.exceptions.use_rays_names` was called."""
_RECORD_VERSION: Final = 1
_MAX_TEXT_CHARACTERS: Final = 256 * 1024
# A failure at the head of a long chain is passed down it; each link adds a name, so only both ends are kept.
_MAX_DEPENDANTS: Final = 16
_TRACEBACK_HEADER: Final = "Traceback (most recent call last):"
_GROUP_HEADER: Final = f"  + Exception Group {_TRACEBACK_HEADER}"
_INPUT_FAILED: Final = "  At least one of the input arguments for this task could not be computed:"
_OWN_PACKAGES: Final = ("rabbitry", "rabbitry_broker", "rabbitry_workers")
# Frames of Ray Data itself: its execution stands between the task and the user's function, a dozen frames deep.
_DATA_INTERNALS: Final = "ray/data/_internal/"

log = logging.getLogger("rabbitry")


def forget_names() -> None:
    """Classes of errors are made anew when they are needed: TaskError has got another name."""
    _dual_class.cache_clear()


def _make_error(name: str, *parts: Any) -> BaseException:
    """Put together an exception that was pickled where it was called by Ray's name, which need not be known here."""
    from rabbitry import exceptions

    return cast("BaseException", rebuild(getattr(exceptions, name), *parts))


class RabbitryError(Exception):
    """Base of every exception that rabbitry itself raises (Ray's name: `RayError`)."""

    __module__ = _PUBLIC_MODULE

    def __reduce__(self) -> Any:
        make, (cls, *parts) = reduce_exception(self)
        return (_make_error, (cls.__name__, *parts)) if cls.__module__ == RAYS_MODULE else (make, (cls, *parts))

    def to_bytes(self) -> bytes:
        """Return this error as the store keeps it."""
        return store_error(self)

    @staticmethod
    def from_bytes(data: bytes) -> BaseException:
        """Return the error that `to_bytes` or a task's failure left in the store, ready to be raised."""
        return load_task_error(data)


class UserCodeException(RabbitryError):
    """Wraps what user code raised, for libraries built on tasks; `retry_exceptions` looks at its `__cause__`."""

    __module__ = _PUBLIC_MODULE


class UnserializableException(RabbitryError):
    """An exception could not be rebuilt in this process; its text and traceback are kept.

    Usually its class lives in a module that this process cannot import: install the module here, or catch the
    exception inside the task.

    Attributes:
        original_stack_trace: text and traceback of the exception, as they were where it was raised.
        reason: why it could not be rebuilt, "" if not known.
    """

    __module__ = _PUBLIC_MODULE

    def __init__(self, original_stack_trace: str, reason: str = "") -> None:
        super().__init__(original_stack_trace)
        self.original_stack_trace = original_stack_trace
        self.reason = reason

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"The exception cannot be rebuilt in this process{why}. It read:\n{self.original_stack_trace}"


class TaskError(RabbitryError):
    """A task or actor method raised an exception (Ray's name: `RayTaskError`).

    What `get` raises is an instance of this class and of the class of `cause`, so both `except TaskError` and
    `except ValueError` catch a `ValueError` raised in a task. Attributes of the cause can be read from it directly.

    Attributes:
        function_name: the function that raised, "" if a task's input failed without one (its worker crashed).
        traceback_str: its traceback, as text.
        cause: the exception it raised.
        proctitle: what the process called itself, `rabbitry::name`.
        pid: the process that ran it.
        ip: the address of its host, "" if not known.
        node_id: hex id of its node, "" if not known.
        actor_repr: `repr` of the actor, None for a task.
        actor_id: hex id of the actor, None for a task.
        dependants: tasks that did not run because of this failure, the one whose result was read first.
        note: what became of the cause on its way, or what helps against it; "" if there is nothing to say.
    """

    __module__ = _PUBLIC_MODULE
    _is_raised: ClassVar[bool] = False  # an instance of the class of its cause, too: see `_RAISED`
    _task_error: TaskError  # what that one was made from

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
        node_id: str | None = None,
        dependants: tuple[str, ...] = (),
        note: str = "",
    ) -> None:
        super().__init__(function_name, traceback_str, cause, proctitle, pid, ip)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle or _process_title(function_name)
        self.pid = os.getpid() if pid is None else pid
        self.ip = ip or ""
        self.node_id = node_id or ""
        self.actor_repr = actor_repr
        self.actor_id = actor_id
        self.dependants = dependants
        self.note = note

    def as_instanceof_cause(self) -> TaskError:
        """Return this error as an instance of the class of its cause too.

        If that class cannot be subclassed, a warning is logged and the error itself is returned: catch `TaskError`
        and look at its `cause`.
        """
        if self._is_raised or issubclass(TaskError, type(self.cause)):
            return self
        try:
            return self.make_dual_exception_instance()
        # Subclassing runs code of the user's class (its metaclass, __init_subclass__), which may raise anything.
        except Exception as error:  # noqa: BLE001 - see above
            log.warning(
                "No TaskError can be made that is a %s too (%s), so TaskError alone is raised: "
                "catch that and look at its `cause`.",
                _class_name(self.cause),
                error,
            )
            return self

    def make_dual_exception_instance(self) -> TaskError:
        """Return an instance of a class that derives from TaskError and from the class of the cause.

        Raises:
            TypeError: the class of the cause cannot be subclassed.
        """
        cause = self.cause
        # What the user's class means by `pid` is what the user's `except` clause expects to read.
        ours = {name: value for name, value in self.__dict__.items() if not hasattr(cause, name)}
        attributes = {**cause.__dict__, **ours, "cause": cause, "_task_error": self}
        return rebuild(_dual_class(class_of(cause)), native_args(cause), attributes, fields_of(cause))

    def _record(self) -> _ErrorRecord:
        cause, note = _dump_cause(self.cause, self.traceback_str)
        return _ErrorRecord(
            _RECORD_VERSION,
            True,
            cause,
            self.traceback_str,
            self.function_name,
            self.proctitle,
            self.pid,
            self.ip,
            self.node_id,
            self.actor_repr,
            self.actor_id,
            self.dependants,
            note or self.note,
        )

    def __reduce__(self) -> Any:
        return _load_plain, (self._record().encode(),)

    def __str__(self) -> str:
        where = [f"pid={self.pid}"]
        if self.ip:
            where.append(f"ip={self.ip}")
        if self.node_id and not (self.ip and program.name() == "ray"):
            where.append(f"node={self.node_id[:8]}")
        if self.actor_repr:
            where += [f"actor_id={self.actor_id}", f"repr={self.actor_repr}"]
        header = f"{self.proctitle}() ({', '.join(where)})"
        lines: list[str] = []
        of_input = ""
        for name in self.dependants:
            lines += [f"{of_input}{_process_title(name)}()", _INPUT_FAILED]
            of_input = f"{TaskError.__module__}.{TaskError.__name__}: "
        header = of_input + header
        text = self.traceback_str.rstrip().split("\n")
        if isinstance(self.cause, UserCodeException):
            text = _without_frames_of(_DATA_INTERNALS, text)
        if not self.function_name:
            # A task's input failed by itself (its worker crashed, its actor died): there is no task to speak of. A node
            # wrote that down, which does not know by which name the program calls the class.
            if _TRACEBACK_HEADER not in text:
                text = f"{_class_name(self.cause)}: {self.cause}".split("\n")
            return "\n".join([*lines, *text])
        if _TRACEBACK_HEADER not in text and _GROUP_HEADER not in text:
            lines.append(header)
        for line in text:
            if line == _TRACEBACK_HEADER:
                lines.append(header)
            elif line == _GROUP_HEADER:
                lines += [header, line]
            else:
                lines.append(line)
        if self.note:
            lines.append(f"({self.note})")
        return "\n".join(lines)


def _raised_str(self: Any) -> str:
    return str(self._task_error)


def _raised_reduce(self: Any) -> Any:
    return _load_raised, (self._task_error._record().encode(),)


def _raised_getattr(self: Any, name: str) -> Any:
    # Reached for what the cause computes (its __getattr__) and the dual instance does not have.
    if name in ("cause", "_task_error"):
        raise AttributeError(name)
    return getattr(self.cause, name)


# What the classes made by `_dual_class` have in common. It is no base of theirs: programs look at the bases of errors.
_RAISED: Final[dict[str, Any]] = {
    "_is_raised": True,
    "__str__": _raised_str,
    "__reduce__": _raised_reduce,
    "__getattr__": _raised_getattr,
}


@functools.lru_cache(maxsize=512)
def _dual_class(cause_class: type[Any]) -> type[TaskError]:
    name = f"{TaskError.__name__}({cause_class.__name__})"

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(_RAISED)
        namespace["__module__"] = TaskError.__module__
        namespace["__qualname__"] = name
        namespace["__doc__"] = f"A task raised {cause_class.__qualname__}."

    return cast("type[TaskError]", types.new_class(name, (TaskError, cause_class), {}, body))


class _ErrorRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A failure as the store keeps it. `cause` is a pickled exception that only readers open."""

    version: int
    is_task: bool
    cause: bytes
    text: str
    function_name: str = ""
    proctitle: str = ""
    pid: int = 0
    ip: str = ""
    node_id: str = ""
    actor_repr: str | None = None
    actor_id: str | None = None
    dependants: tuple[str, ...] = ()
    note: str = ""

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


_decoder: Final = msgspec.msgpack.Decoder(_ErrorRecord)


def capture_task_error(
    exc: BaseException,
    function_name: str,
    pid: int,
    node: str,
    *,
    ip: str = "",
    proctitle: str = "",
    actor_repr: str | None = None,
    actor_id: str | None = None,
) -> bytes:
    """Return the failure of a task as the store keeps it. Call it while `exc` still has its traceback; it never raises.

    Args:
        exc: what the task raised. If it is the failure of another task that this one read, its cause is kept and
            the other task's traceback stands inside this one's.
        function_name: what the task is called, as in `module.name` or `Class.method`.
        pid: the process that ran it.
        node: hex id of the node that ran it.
        ip: the host's address, if known.
        proctitle: what the process calls itself; default `rabbitry::` and the last part of `function_name`.
        actor_repr: `repr` of the actor, for a method.
        actor_id: hex id of the actor, for a method.
    """
    text = _traceback_text(exc)
    inner = exc.cause if isinstance(exc, TaskError) else exc
    cause, note = _dump_cause(inner, text)
    note = note or _remedy(inner)
    return _ErrorRecord(
        _RECORD_VERSION,
        True,
        cause,
        text,
        _encodable(function_name),
        _encodable(proctitle or _process_title(function_name, method=actor_id is not None)),
        pid,
        ip,
        node,
        None if actor_repr is None else _encodable(actor_repr),
        actor_id,
        (),
        _encodable(note),
    ).encode()


def store_error(exc: BaseException) -> bytes:
    """Return `exc` as the store keeps it, to be raised at the reader as it is. It never raises.

    For what befell a task from outside (`WorkerCrashedError`, `TaskCancelledError`, `ActorDiedError`).
    """
    if isinstance(exc, TaskError):
        return (exc._task_error if exc._is_raised else exc)._record().encode()
    text = _traceback_text(exc)
    cause, note = _dump_cause(exc, text)
    return _ErrorRecord(_RECORD_VERSION, False, cause, text, note=_encodable(note)).encode()


def store_input_failure(data: bytes, function_name: str) -> bytes:
    """Return the failure in `data` as the failure of a task that needed its result: same cause, one name more.

    Args:
        data: a failure as the store keeps it.
        function_name: the task that cannot run now.
    """
    record = _decode(data)
    dependants = (_encodable(function_name), *record.dependants)
    if len(dependants) > _MAX_DEPENDANTS:
        half = _MAX_DEPENDANTS // 2
        dependants = dependants[:half] + dependants[-half:]
    return msgspec.structs.replace(record, is_task=True, dependants=dependants).encode()


def stored_text(data: bytes) -> tuple[bool, str]:
    """Return what can be said of a failure that the store kept without running any code of its classes.

    Args:
        data: a failure as the store keeps it.

    Returns:
        (whether the task itself raised it, its traceback as text, whose last lines name its class).
    """
    record = _decode(data)
    return record.is_task, record.text


def traceback_text(error: BaseException) -> str:
    """Return an exception with its traceback, without rabbitry's own frames. It never raises."""
    return _traceback_text(error)


def load_task_error(data: bytes) -> BaseException:
    """Return the exception to raise for a failure that the store kept. It never raises.

    A task's failure comes as an instance of `TaskError` and of the class of its cause; if that class is unknown here,
    of `TaskError` and `UnserializableException`.
    """
    error = _load_plain(data)
    return error.as_instanceof_cause() if isinstance(error, TaskError) else error


def _load_raised(data: bytes) -> BaseException:
    return load_task_error(data)


def _load_plain(data: bytes) -> BaseException:
    """Return the failure in `data` without making it an instance of its cause's class."""
    record = _decode(data)
    cause: BaseException
    note = record.note
    try:
        if not record.cause:
            return UnserializableException(record.text)
        cause = pickle.loads(record.cause)
        if not isinstance(cause, BaseException):
            raise TypeError(f"{type(cause).__qualname__} is not an exception")
    # Loading runs code of the user's classes, and any import may be missing here.
    except Exception as error:  # noqa: BLE001 - see above
        reason = _one_line(error)
        cause = UnserializableException(record.text, reason)
        note = f"the exception itself could not be rebuilt in this process: {reason}"
    if type(cause) is ModuleNotFoundError:
        note = late_paths.hint(cause.name) or note
    if not record.is_task:
        return cause
    return TaskError(
        record.function_name,
        record.text,
        cause,
        record.proctitle,
        record.pid,
        record.ip,
        record.actor_repr,
        record.actor_id,
        record.node_id,
        record.dependants,
        note,
    )


def _decode(data: bytes) -> _ErrorRecord:
    try:
        record = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        return _unreadable(f"it is malformed: {error}")
    if record.version != _RECORD_VERSION:
        return _unreadable(f"its version is {record.version}, this rabbitry reads {_RECORD_VERSION}")
    return record


def _unreadable(why: str) -> _ErrorRecord:
    return _ErrorRecord(_RECORD_VERSION, False, b"", f"(a stored error that cannot be read: {why})")


def _dump_cause(cause: BaseException, text: str) -> tuple[bytes, str]:
    """Return the pickled cause and a note; what cannot be pickled is replaced by a RabbitryError with its text."""
    try:
        return dump_exception(cause), ""
    # Pickling runs code of the user's classes, which may raise anything.
    except Exception as error:  # noqa: BLE001 - see above
        reason = _one_line(error)
        replacement = RabbitryError(f"{_class_name(cause)} could not be pickled ({reason}). It read:\n{text}")
        return dump_exception(replacement), f"the exception itself could not be pickled: {reason}"


def _remedy(error: BaseException) -> str:
    """Return what helps against an import that failed on the node; "" for any other error."""
    # Only as the interpreter words it: where rabbitry itself misses a module, the error says what to do already.
    if type(error) is not ModuleNotFoundError or str(error) != f"No module named {error.name!r}":
        return ""
    package = str(error.name).partition(".")[0]
    return (
        f'the node that ran this has no {package}: send it along, if it is yours, by init(runtime_env={{"working_dir": '
        f'"auto"}}) or "py_modules"; have it installed for the job by init(runtime_env={{"pip": [{package!r}]}}); or '
        "install it on the nodes (the image of docker-compose.yml installs what RABBITRY_EXTRA_REQUIREMENTS in .env "
        "names). What lies in a directory of sys.path that nodes have, too, is found if that was added before init()"
    )


def _traceback_text(error: BaseException) -> str:
    # traceback pulls in linecache and tokenize, which a process without a failure never needs.
    import traceback

    try:
        report = traceback.TracebackException.from_exception(error, compact=True)
        _hide_frames(report)
        text = _encodable("".join(report.format()))
    # Reading an exception runs its class's code; a failure that cannot be shown must still arrive.
    except Exception as problem:  # noqa: BLE001 - see above
        text = f"{_TRACEBACK_HEADER}\n{_class_name(error)}: (no text: {_one_line(problem)})"
    if len(text) > _MAX_TEXT_CHARACTERS:
        half = _MAX_TEXT_CHARACTERS // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text


def _hide_frames(report: Any) -> None:
    """Drop rabbitry's own frames from `report` and all that hangs on it."""
    pending = [report]
    hidden: tuple[str, ...] = ()
    while pending:
        part = pending.pop()
        if part.stack:  # what was never raised, such as a cancellation, has none; there may be thousands
            hidden = hidden or _own_directories()
            part.stack[:] = [frame for frame in part.stack if not frame.filename.startswith(hidden)]
        pending += [each for each in (part.__cause__, part.__context__) if each is not None]
        pending += getattr(part, "exceptions", None) or ()


def _own_directories() -> tuple[str, ...]:
    """Directories of rabbitry's packages as loaded here; whole paths, as a user's project may be called so too."""
    directories = {os.path.dirname(os.path.abspath(__file__))}
    for name in _OWN_PACKAGES:
        directories.update(getattr(sys.modules.get(name), "__path__", ()))
    return tuple(directory + os.sep for directory in directories)


def _without_frames_of(part: str, text: list[str]) -> list[str]:
    """Return the lines of a traceback without the frames of files in whose path this part stands."""
    kept: list[str] = []
    hidden = False
    for line in text:
        if line.startswith('  File "'):
            hidden = part in line.replace(os.sep, "/")
        elif not line.startswith("  "):
            hidden = False
        if not hidden:
            kept.append(line)
    return kept


def _process_title(function_name: str, *, method: bool = False) -> str:
    parts = function_name.rsplit(".", 2)
    # `Class.method` keeps both parts, `module.function` the last alone.
    if len(parts) > 1 and (method or parts[-2][:1].isupper()):
        return f"{program.name()}::{parts[-2]}.{parts[-1]}"
    return f"{program.name()}::{parts[-1]}"


def _class_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]


def _encodable(text: str) -> str:
    """Return `text` without lone surrogates (undecodable file names have them), which MessagePack cannot carry."""
    return text.encode("utf-8", "backslashreplace").decode()
