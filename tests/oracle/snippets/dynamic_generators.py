"""`num_returns="dynamic"`: one ref to a generator of refs."""

import pickle

import ray
from _report import attempt, get, show, start

start()


@ray.remote(num_returns="dynamic", max_retries=0)
def count(n, fail=False):
    yield from range(n)
    if fail:
        raise ValueError("late")


@ray.remote
def total(values):
    return sum(ray.get(list(values)))


ref = count.remote(3)
show("one ref", type(ref).__name__)
generator = get(ref)
show("to a generator", type(generator).__name__)
show("len", len(generator))
show("values", [get(each) for each in generator])
show("a second time", [get(each) for each in get(ref)])
show("none", len(get(count.remote(0))))
show("as an argument", get(total.remote(ref)))
attempt("pickled", lambda: len(list(pickle.loads(pickle.dumps(get(count.remote(2)))))))
attempt("failed", lambda: len(get(count.remote(2, fail=True))))
attempt("failed at once", lambda: len(get(count.remote(0, fail=True))))
attempt("the last of a failed one", lambda: get(list(get(count.remote(2, fail=True)))[2]))
attempt("of a plain function", lambda: ray.remote(num_returns="dynamic")(lambda: 1))
