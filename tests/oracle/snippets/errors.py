"""Errors of tasks: what `get` raises, and what can be read from it."""

import threading

import ray
from _report import attempt, get, names, show, start


class Plain(Exception):
    pass


class WithArguments(Exception):
    def __init__(self, left, right):
        super().__init__(f"{left} and {right}")
        self.left, self.right = left, right


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("cannot travel")
        self.lock = threading.Lock()


class Beyond(BaseException):
    pass


@ray.remote(max_retries=0)
def fail(kind):
    if kind == "value":
        raise ValueError("boom", 7)
    if kind == "plain":
        raise Plain
    if kind == "arguments":
        raise WithArguments(1, right=2)
    if kind == "attributes":
        error = Plain("noted")
        error.number = 5
        raise error
    if kind == "unpicklable":
        raise Unpicklable
    if kind == "beyond":
        raise Beyond("far")
    if kind == "cause":
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error
    if kind == "exit":
        raise SystemExit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "stop":
        raise StopIteration("early")
    if kind == "os":
        open("/nowhere/at/all")  # noqa: SIM115
    if kind == "unicode":
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte")
    if kind == "nested":
        return get(fail.remote("value"))
    if kind == "timeout":
        raise TimeoutError("late")
    if kind == "group":
        raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])  # noqa: F821
    return None


@ray.remote
def returns_an_error():
    return ValueError("as a value")


@ray.remote
def unpicklable_result():
    return threading.Lock()


def caught(kind):
    try:
        get(fail.remote(kind))
    except BaseException as error:
        return error
    return None


start()
for kind in [
    "value",
    "plain",
    "arguments",
    "cause",
    "stop",
    "os",
    "unicode",
    "nested",
    "timeout",
    "unpicklable",
    "beyond",
    "exit",
    "interrupt",
]:
    why = "Ray cannot bring an error back that takes other arguments" if kind == "arguments" else ""
    show(kind, names(caught(kind)), differs=why)

error = caught("value")
show("the user's error inside", [type(error.cause).__name__, list(error.cause.args)])
show("its text", ["ValueError" in str(error), "boom" in str(error), "in fail" in str(error), __file__ in str(error)])
attempt("of which function", lambda: error.function_name, differs="Ray has it on errors that could not be made dual")
attempt("of which process", lambda: error.pid > 0, differs="Ray has it on errors that could not be made dual")
error = caught("attributes")
show("attributes fall through to the cause", error.number)
show("a missing attribute", hasattr(error, "nothing"))
error = caught("cause")
show("the chain is in the text", ["inner" in str(error), "outer" in str(error)])
show("as_instanceof_cause", names(error.as_instanceof_cause()))
error = caught("nested")
show("through two tasks", [type(error.cause).__name__, str(error).count("in fail") >= 1, "boom" in str(error)])
error = caught("os")
show("errno survives", error.errno, differs="Ray loses it")
show("same ref, same error", names(caught("value")) == names(caught("value")))

ref = fail.remote("plain")
attempt("get", lambda: get(ref))
attempt("get again", lambda: get(ref))
attempt("an error in a list", lambda: get([fail.remote(None), fail.remote("value"), fail.remote(None)]))
show("an error as a value", repr(get(returns_an_error.remote())))
attempt("a result that cannot be pickled", lambda: get(unpicklable_result.remote()))
attempt("an argument that cannot be pickled", lambda: fail.remote(threading.Lock()))
