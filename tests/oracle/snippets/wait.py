"""`wait`: order, counts, timeouts, errors, and what it refuses."""

import tempfile
from pathlib import Path

import ray
from _report import TIMEOUT, attempt, get, show, start, wait_for


@ray.remote
def give(x):
    return x


@ray.remote
def fail():
    raise ValueError("no")


@ray.remote(num_cpus=0)
def after(path):
    wait_for(Path(path))
    return "done"


start()
refs = [give.remote(i) for i in range(4)]
get(refs)


def numbers(result):
    return [[refs.index(ref) for ref in part] for part in result]


show("default", numbers(ray.wait(refs)))
show("order as given", numbers(ray.wait(refs[::-1], num_returns=4)))
show("not more than asked", numbers(ray.wait(refs, num_returns=3)))
show("timeout 0, all ready", numbers(ray.wait(refs, num_returns=4, timeout=0)))
show("empty", [list(part) for part in ray.wait([])])
show("kind of result", [type(ray.wait(refs)).__name__, [type(part).__name__ for part in ray.wait(refs)]])
show("fetch_local", numbers(ray.wait(refs, num_returns=2, fetch_local=False)))

with tempfile.TemporaryDirectory() as directory:
    path = Path(directory, "go")
    slow = after.remote(str(path))
    refs.insert(0, slow)
    show("ready ones, though not first", numbers(ray.wait(refs, num_returns=4, timeout=TIMEOUT)))
    show("timeout with fewer than asked", numbers(ray.wait(refs, num_returns=5, timeout=0.2)))
    show("timeout 0, none ready", numbers(ray.wait([slow], timeout=0)))
    path.touch()
    show("without a timeout", numbers(ray.wait([slow])))

bad = fail.remote()
ready, rest = ray.wait([bad], timeout=TIMEOUT)
show("an error is ready", [ready == [bad], rest])

attempt("one ref", lambda: ray.wait(refs[0]))
attempt("tuple", lambda: numbers(ray.wait(tuple(refs))))
attempt("set", lambda: numbers(ray.wait(set(refs))))
attempt("number in it", lambda: ray.wait([1]))
attempt("None in it", lambda: ray.wait([refs[0], None]))
attempt("duplicates", lambda: ray.wait([refs[0], refs[0]]))
attempt("num_returns 0", lambda: ray.wait(refs, num_returns=0))
attempt("num_returns negative", lambda: ray.wait(refs, num_returns=-1))
attempt("num_returns too large", lambda: ray.wait(refs, num_returns=6))
attempt("negative timeout", lambda: ray.wait(refs, timeout=-1))
attempt("num_returns not by keyword", lambda: ray.wait(refs, 2))
attempt("empty with num_returns 0", lambda: [list(part) for part in ray.wait([], num_returns=0)])
attempt("empty with num_returns 2", lambda: [list(part) for part in ray.wait([], num_returns=2)])
attempt("timeout text", lambda: numbers(ray.wait(refs, timeout="1")))
attempt("timeout NaN", lambda: numbers(ray.wait(refs, timeout=float("nan"))))
attempt("timeout infinite", lambda: numbers(ray.wait(refs, timeout=float("inf"))), differs="rabbitry waits for ever")
attempt("num_returns None", lambda: numbers(ray.wait(refs, num_returns=None)))
attempt("num_returns text", lambda: numbers(ray.wait(refs, num_returns="1")))
attempt("num_returns as a float", lambda: [len(part) for part in ray.wait(refs, num_returns=2.0)])
