"""Refs in asyncio and concurrent.futures."""

import asyncio
import concurrent.futures

import ray
from _report import TIMEOUT, attempt, show, start


@ray.remote
def give(x):
    return x


@ray.remote(max_retries=0)
def fail():
    raise ValueError("later")


async def awaited():
    show("await", await give.remote(1))
    show("gather", await asyncio.gather(*[give.remote(i) for i in range(5)]))
    done, pending = await asyncio.wait([asyncio.ensure_future(wrapped(i)) for i in range(3)])
    show("wait", [sorted(task.result() for task in done), len(pending)])
    show("wait_for", await asyncio.wait_for(wrapped(7), TIMEOUT))
    try:
        await fail.remote()
    except ValueError as error:
        show("an error", type(error.cause).__name__)
    results = await asyncio.gather(fail.remote(), give.remote(1), return_exceptions=True)
    show("an error among others", [isinstance(results[0], ValueError), results[1]])
    ref = give.remote(3)
    show("twice", [await ref, await ref])
    future = give.remote(8).as_future()
    show("as_future", [isinstance(future, asyncio.Future), await future])
    show("as_completed", sorted([await each for each in asyncio.as_completed([wrapped(i) for i in range(3)])]))


async def wrapped(x):
    return await give.remote(x)


start()
asyncio.run(awaited())
asyncio.run(awaited())

future = give.remote(5).future()
show("future", [isinstance(future, concurrent.futures.Future), future.result(TIMEOUT), future.done()])
attempt("its error", lambda: fail.remote().future().result(TIMEOUT))
future = fail.remote().future()
show("its exception", isinstance(future.exception(TIMEOUT), ValueError))
called = concurrent.futures.Future()
give.remote(6).future().add_done_callback(lambda each: called.set_result(each.result()))
show("callback", called.result(TIMEOUT))
futures = [give.remote(i).future() for i in range(4)]
show("wait", len(concurrent.futures.wait(futures, timeout=TIMEOUT).done))
attempt("await outside of a loop", lambda: give.remote(1).__await__().send(None))
