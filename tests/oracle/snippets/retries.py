"""Tasks that fail and are run again, by error and by death of their process."""

import os
import tempfile
from pathlib import Path

import ray
from _report import attempt, get, show, start

directory = tempfile.TemporaryDirectory()


def count(name):
    """Note one more try; return which it is."""
    path = Path(directory.name, name)
    with path.open("a") as file:
        file.write("x")
    return path.stat().st_size


def tries(name):
    path = Path(directory.name, name)
    return path.stat().st_size if path.exists() else 0


class Transient(Exception):
    pass


class MoreTransient(Transient):
    pass


@ray.remote
def flaky(name, until, error=Transient):
    number = count(name)
    if number < until:
        raise error(f"try {number}")
    return number


@ray.remote
def crash(name, until):
    number = count(name)
    if number < until:
        os._exit(1)
    return number


start()
attempt("errors are not retried by default", lambda: get(flaky.remote("a", 2)))
show("tries a", tries("a"))
show("retry_exceptions", get(flaky.options(retry_exceptions=True).remote("b", 3)))
attempt("until max_retries", lambda: get(flaky.options(retry_exceptions=True, max_retries=1).remote("c", 5)))
show("tries c", tries("c"))
show("of a class", get(flaky.options(retry_exceptions=[Transient]).remote("d", 2)))
show("of a subclass", get(flaky.options(retry_exceptions=[Transient]).remote("e", 2, MoreTransient)))
attempt("of another class", lambda: get(flaky.options(retry_exceptions=[KeyError]).remote("f", 2)))
show("tries f", tries("f"))
attempt("max_retries 0", lambda: get(flaky.options(retry_exceptions=True, max_retries=0).remote("g", 2)))
show("tries g", tries("g"))
show("without a limit", get(flaky.options(retry_exceptions=True, max_retries=-1).remote("h", 6)))

show("a crash is retried", get(crash.remote("i", 3)))
attempt("until max_retries, by crashes", lambda: get(crash.options(max_retries=1).remote("j", 5)))
show("tries j", tries("j"))
attempt("a crash with max_retries 0", lambda: get(crash.options(max_retries=0).remote("k", 2)))
show("tries k", tries("k"))
show("others are not harmed", get(crash.remote("l", 1)))
directory.cleanup()
