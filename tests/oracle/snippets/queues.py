"""`ray.util.queue`: blocking, time-outs, limits, batches, async, in tasks and actors, shutdown."""

import asyncio
import pickle
import queue as standard
import threading

import ray
from _report import TIMEOUT, attempt, get, show, start
from ray.util.queue import Empty, Full, Queue


@ray.remote(num_cpus=0)
def put_all(queue, items):
    for item in items:
        queue.put(item)
    return len(items)


@ray.remote(num_cpus=0)
def get_some(queue, count):
    return [queue.get(timeout=TIMEOUT) for _ in range(count)]


@ray.remote(num_cpus=0)
class Holder:
    def __init__(self, queue):
        self.queue = queue

    def put(self, item):
        self.queue.put(item)

    def get(self):
        return self.queue.get()


class Odd(Exception):
    pass


def outcome(action):
    """What an action returned, or whether its error is an Empty or a Full."""
    try:
        return {"returned": action()}
    except Exception as error:
        return [isinstance(error, Empty), isinstance(error, Full)]


start()
show("Empty and Full", [issubclass(Empty, standard.Empty), issubclass(Full, standard.Full)])
queue = Queue()
show("new", [queue.size(), queue.qsize(), len(queue), queue.empty(), queue.full(), queue.maxsize])
show("put", queue.put(1))
show("put_nowait", queue.put_nowait("two"))
show("put None", queue.put(None, block=False))
show("three", [queue.size(), queue.qsize(), len(queue), queue.empty(), queue.full()])
show("in order", [queue.get(), queue.get_nowait(), queue.get(block=False)])
show("get_nowait of nothing", outcome(queue.get_nowait))
show("get without blocking of nothing", outcome(lambda: queue.get(block=False)))
show("get without blocking but with a time-out", outcome(lambda: queue.get(block=False, timeout=5)))
show("get in time", outcome(lambda: queue.get(timeout=0.05)))
show("get in no time", outcome(lambda: queue.get(timeout=0)))
attempt("get in negative time", lambda: queue.get(timeout=-1))
attempt("put in negative time", lambda: queue.put(1, timeout=-1))
attempt("get without blocking in negative time", lambda: queue.put(1, block=False, timeout=-1))
show("that one was put", queue.get())

queue.put(2)
show(
    "get of something in no time",
    outcome(lambda: queue.get(timeout=0)),
    differs="with a time-out of 0, Ray's gives up before it looks; Python's own queue does not",
)
show(
    "it is still there",
    outcome(lambda: queue.get(block=False)),
    differs="it was got above",
)

small = Queue(maxsize=2)
show("maxsize", small.maxsize)
small.put(1)
show("one of two", [small.full(), small.empty()])
small.put(2)
show("two of two", [small.full(), small.size()])
show("put_nowait into a full one", outcome(lambda: small.put_nowait(3)))
show("put without blocking", outcome(lambda: small.put(3, block=False)))
show("put in time", outcome(lambda: small.put(3, timeout=0.05)))
show("put in no time", outcome(lambda: small.put(3, timeout=0)))
show("none of these went in", [small.get(), small.get(), small.empty()])

batch = Queue(maxsize=4)
show("put_nowait_batch", batch.put_nowait_batch([1, 2, 3]))
show("too many", outcome(lambda: batch.put_nowait_batch([4, 5])))
show("all or none", batch.size())
attempt("no iterable", lambda: batch.put_nowait_batch(5))
attempt("an empty batch", lambda: batch.put_nowait_batch([]))
show("get_nowait_batch", batch.get_nowait_batch(3))
batch.put(4)
show("more than there is", outcome(lambda: batch.get_nowait_batch(2)))
show("they stay", batch.size())
show("a batch of none", batch.get_nowait_batch(0))
attempt("a batch of -1", lambda: batch.get_nowait_batch(-1))
attempt("a batch of 1.5", lambda: batch.get_nowait_batch(1.5))
attempt("a batch of text", lambda: batch.get_nowait_batch("1"))
show("a string is an iterable", [batch.get_nowait_batch(1), batch.put_nowait_batch("ab"), batch.get_nowait_batch(2)])

show(
    "a batch from a generator",
    outcome(lambda: batch.put_nowait_batch(i for i in [4])),
    differs="Ray sends the iterable to the actor as it is; here it is gone through first, as the name says",
)
endless = Queue(maxsize=-1)
endless.put_nowait_batch(range(10))
show("a negative maxsize", [endless.size(), endless.full(), endless.maxsize])

producer = put_all.remote(queue, list(range(20)))
show("from a task", [get(get_some.remote(queue, 20)), get(producer), queue.empty()])
consumer = get_some.remote(queue, 2)
queue.put("a")
queue.put("b")
show("a getter that waits", get(consumer))
producer = put_all.remote(small, [1, 2, 3, 4])
show("a putter that waits", [[small.get(timeout=TIMEOUT) for _ in range(4)], get(producer)])
holder = Holder.remote(queue)
get(holder.put.remote("by an actor"))
show("in an actor", queue.get())
waits = holder.get.remote()
queue.put("to an actor")
show("to an actor", get(waits))
copy = pickle.loads(pickle.dumps(queue))
copy.put("by a copy")
show("pickled", [queue.get(), copy.maxsize])
queue.put(queue)
inside = queue.get()
inside.put("in itself")
show("a queue inside itself", queue.get())
ref = ray.put("behind a ref")
queue.put(ref)
show("a ref", isinstance(queue.get(), ray.ObjectRef))
queue.put([ref])
show("a ref in a list", get(queue.get()[0]))
attempt("what cannot be pickled", lambda: queue.put(threading.Lock()))
queue.put(Odd)
show("a class of the program", queue.get() is Odd)
got = []
thread = threading.Thread(target=lambda: got.append(queue.get()))
thread.start()
queue.put("to a thread")
thread.join(TIMEOUT)
show("threads", got)


async def asynchronous():
    """The async variants."""
    show("put_async", await queue.put_async(1))
    show("get_async", await queue.get_async())
    for label, action in (
        ("get_async of nothing", lambda: queue.get_async(block=False)),
        ("get_async in time", lambda: queue.get_async(timeout=0.05)),
        ("put_async into a full one", lambda: small.put_async(1, block=False)),
        ("put_async in time", lambda: small.put_async(1, timeout=0.05)),
        ("get_async in negative time", lambda: queue.get_async(timeout=-1)),
        ("put_async in negative time", lambda: queue.put_async(1, timeout=-1)),
    ):
        try:
            show(label, {"returned": await action()})
        except Exception as error:
            kinds = (Empty, Full, ValueError)
            show(label, [isinstance(error, kind) for kind in kinds])
    waits = asyncio.ensure_future(queue.get_async())
    await queue.put_async("later")
    show("get_async that waits", await asyncio.wait_for(waits, TIMEOUT))


small.put_nowait_batch([1, 2])
asyncio.run(asynchronous())

named = Queue(actor_options={"name": "the queue", "num_cpus": 0, "resources": {}})
named.put(5)
actor = ray.get_actor("the queue")
show("actor_options", get(actor.qsize.remote()))
show("actor", named.actor == actor)
attempt("actor_options that are none", lambda: Queue(actor_options={"no_such": 1}))

show("shutdown", named.shutdown())
attempt("after shutdown", lambda: named.put(1))
show("its actor attribute", named.actor)
attempt("shutdown twice", lambda: named.shutdown())
attempt("its name is free", lambda: ray.get_actor("the queue"))
doomed = Queue()
other = pickle.loads(pickle.dumps(doomed))
show("forced", doomed.shutdown(force=True))
attempt("a copy after that", lambda: other.size())
busy = Queue()
other = pickle.loads(pickle.dumps(busy))
waits = get_some.remote(other, 1)
show("with a getter that waits", busy.shutdown(grace_period_s=1))
attempt("the getter", lambda: get(waits))
