"""Refs as arguments: the task waits for them, and fails with them."""

import tempfile
from pathlib import Path

import ray
from _report import attempt, get, names, show, start, wait_for


@ray.remote
def one():
    return 1


@ray.remote
def add(*numbers, more=0):
    return sum(numbers) + more


@ray.remote
def kinds(*values, **named):
    return [type(value).__name__ for value in (*values, *named.values())]


@ray.remote
def after(path):
    wait_for(Path(path))
    return 10


@ray.remote(max_retries=0)
def fail():
    raise ValueError("first")


@ray.remote(max_retries=0)
def ignore(value, other=None):
    return "ran"


@ray.remote(num_returns=2)
def pair():
    return 1, 2


start()
ref = one.remote()
show("positional", get(add.remote(ref, 1)))
show("by keyword", get(add.remote(1, more=ref)))
show("the same twice", get(add.remote(ref, ref, more=ref)))
show("of put", get(add.remote(ray.put(5))))
show("nested ones stay refs", get(kinds.remote(ref, [ref], {"a": ref}, (ref,), key=ref)))
left, right = pair.remote()
show("several results of one task", get(add.remote(left, right)))

chain = one.remote()
for _ in range(50):
    chain = add.remote(chain, 1)
show("a chain", get(chain))

top = one.remote()
sides = [add.remote(top, i) for i in range(3)]
show("a diamond", get(add.remote(*sides)))

with tempfile.TemporaryDirectory() as directory:
    path = Path(directory, "go")
    slow = after.remote(str(path))
    total = add.remote(slow, one.remote())
    show("not before its arguments", [len(part) for part in ray.wait([total], timeout=0.1)])
    path.touch()
    show("then", get(total))

bad = fail.remote()
attempt("a failed argument", lambda: get(ignore.remote(bad)))
attempt("two steps on", lambda: get(ignore.remote(ignore.remote(bad))))
attempt("a failed argument by keyword", lambda: get(ignore.remote(1, other=bad)))
try:
    get(ignore.remote(ignore.remote(bad)))
except Exception as error:
    show("its text has the first cause", ["first" in str(error), "ValueError" in str(error), names(error)])
attempt("a failed one inside a list is a ref", lambda: get(ignore.remote([bad])))
show("many arguments", get(add.remote(*[one.remote() for _ in range(100)])))
