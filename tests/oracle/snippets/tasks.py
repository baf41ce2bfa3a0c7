"""Functions become tasks: arguments, defaults, return values, and calls that are wrong."""

import ray
from _report import attempt, get, show, start


@ray.remote
def echo(a, b=2, *rest, key=None, **others):
    return [a, b, list(rest), key, others]


@ray.remote
def nothing():
    pass


@ray.remote
def needs_two(a, b):
    return a + b


def plain(x):
    return x + 1


start()
show("positional", get(echo.remote(1)))
show("all kinds", get(echo.remote(1, 3, 4, 5, key="k", other=6)))
show("by keyword", get(echo.remote(b=1, a=0)))
show("None", get(nothing.remote()))
show("ray.remote(f)", get(ray.remote(plain).remote(1)))
show("ray.remote(**options)(f)", get(ray.remote(num_cpus=0.5)(plain).remote(1)))
show("the plain function is still there", nothing._function() is None and ray.remote(plain)._function is plain)
attempt("its name", lambda: echo.__name__, differs="Ray's remote functions have none")

attempt("called directly", lambda: echo(1))
attempt("too few arguments", lambda: needs_two.remote(1))
attempt("too many arguments", lambda: needs_two.remote(1, 2, 3))
attempt("unknown keyword", lambda: needs_two.remote(1, c=2))
attempt("twice the same", lambda: needs_two.remote(1, a=2))
attempt("remote()", lambda: ray.remote())
attempt("remote(number)", lambda: ray.remote(5))
attempt("remote(instance)", lambda: ray.remote("text"))
attempt("unknown option", lambda: ray.remote(cpus=1)(plain))
attempt("bad option value", lambda: ray.remote(num_cpus=-1)(plain))
attempt("bad option type", lambda: ray.remote(max_retries="3")(plain))
attempt("coroutine function", lambda: ray.remote(coroutine))


async def coroutine():
    return 1


attempt("coroutine function, now defined", lambda: ray.remote(coroutine))
