"""`get`: one ref, lists, timeouts, and what is not a ref."""

import tempfile
from pathlib import Path

import ray
from _report import TIMEOUT, attempt, get, show, start, wait_for


@ray.remote
def give(x):
    return x


@ray.remote
def after(path):
    wait_for(Path(path))
    return "done"


@ray.remote
def stream():
    yield 1


start()
one, two = give.remote(1), give.remote(2)
show("one", get(one))
show("list in its order", get([two, one, two]))
show("empty list", ray.get([]))
show("again", get(one))
show("timeout None", ray.get(one, timeout=None))

with tempfile.TemporaryDirectory() as directory:
    path = Path(directory, "go")
    slow = after.remote(str(path))
    attempt("timeout", lambda: ray.get(slow, timeout=0.05))
    attempt("timeout 0", lambda: ray.get(slow, timeout=0))
    attempt("timeout in a list", lambda: ray.get([one, slow], timeout=0.05))
    path.touch()
    show("after the timeout", ray.get(slow, timeout=TIMEOUT))
    attempt("timeout 0 when it is there", lambda: ray.get(slow, timeout=0))

attempt("tuple", lambda: ray.get((one, two)))
attempt("set", lambda: ray.get({one}))
attempt("dict", lambda: ray.get({"a": one}))
attempt("None", lambda: ray.get(None))
attempt("number", lambda: ray.get(1))
attempt("text", lambda: ray.get(one.hex()))
attempt("list of lists", lambda: ray.get([[one]]))
attempt("list with a number", lambda: ray.get([one, 1]))
attempt("function", lambda: ray.get(give))
attempt("timeout not by keyword", lambda: ray.get(one, 1))
generator = stream.remote()
show("a generator comes back as it is", ray.get(generator) is generator)
attempt("timeout NaN", lambda: ray.get(one, timeout=float("nan")))
attempt("timeout NaN in a list", lambda: ray.get([one], timeout=float("nan")))
attempt("timeout -1", lambda: ray.get(give.remote(3), timeout=-1))
attempt("timeout infinite", lambda: ray.get(one, timeout=float("inf")), differs="rabbitry waits for ever")
attempt("timeout text", lambda: ray.get(one, timeout="x"), differs="text is no number: a TypeError")
attempt("duplicates", lambda: ray.get([one, one]))
attempt("actor named ''", lambda: ray.get_actor(""))
attempt("actor named None", lambda: ray.get_actor(None))
attempt("actor named 3", lambda: ray.get_actor(3))
attempt("actor that is not there", lambda: ray.get_actor("nobody"))
attempt("namespace ''", lambda: ray.get_actor("nobody", namespace=""))
attempt("namespace 3", lambda: ray.get_actor("nobody", namespace=3))
attempt("kill nothing", lambda: ray.kill(None))
attempt("kill a class", lambda: ray.kill(give))
attempt("cancel nothing", lambda: ray.cancel(None))
