"""`ray.dag`: bound tasks and actors, inputs, several outputs, compiled graphs, and what is refused."""

import ray
from _report import attempt, get, show, start
from ray.dag import InputNode, MultiOutputNode
from ray.exceptions import RayCgraphCapacityExceeded, RayChannelError


@ray.remote
def add(a, b=0):
    return a + b


@ray.remote
class Counter:
    def __init__(self, count):
        self.count = count

    def add(self, amount=1):
        self.count += amount
        return self.count

    @ray.method(num_returns=2)
    def two(self, value):
        return value, value + 1

    def fail(self, value):
        raise ValueError("no")


def caught(kind, action):
    """True if the action raises an error of the kind."""
    try:
        action()
    except kind:
        return True
    return False


start(num_cpus=4)
with InputNode() as x:
    graph = add.bind(add.bind(x, 1), x)
show("nested calls", [get(graph.execute(3)), get(graph.execute(4))])
show("options", get(add.options(num_cpus=1).bind(1, b=2).execute()))
show("in containers", get(get(add.bind([add.bind(1, 1)], [2]).execute())[0]))
with InputNode() as x:
    parts = add.bind(x[0], x.b)
show("positions and names", get(parts.execute(1, b=5)))
with InputNode() as x:
    parts = add.bind(x[0], x["b"])
attempt("a part that is not there", lambda: parts.execute([1]))
show("items", get(add.bind(x["a"], x["b"]).execute({"a": 1, "b": 3})))
counter = Counter.bind(10)
first = counter.add.bind(1)
second = counter.add.bind(first)
show("a class's actor is new each time", [get(second.execute()), get(second.execute()), get(first.execute())])
living = Counter.remote(0)
bound = living.add.bind(5)
show("a living actor is not", [get(bound.execute()), get(bound.execute())])
both = living.two.bind(5)
show("two results", [len(both), get(MultiOutputNode(list(both)).execute())])
attempt("remote() of a node", lambda: graph.remote())
attempt("bind() of a node", lambda: graph.bind())
attempt("an input without a with", lambda: add.bind(InputNode()).execute(2))
with InputNode() as y:
    pass
attempt("two inputs", lambda: add.bind(x, y).execute(2))
attempt("an input of a constructor", lambda: Counter.bind(x))
attempt("no list of outputs", lambda: MultiOutputNode(3))

other = Counter.remote(100)
with InputNode() as x:
    graph = MultiOutputNode([other.add.bind(living.add.bind(x)), living.add.bind(x)])
compiled = graph.experimental_compile()
refs = compiled.execute(1)
show("compiled", get(refs))
attempt("got twice", lambda: get(refs))
kept = []
full = caught(RayCgraphCapacityExceeded, lambda: [kept.append(compiled.execute(1)) for _ in range(11)])
show("too many executions", [full, len(kept)])
show("the last of them", get(kept[-1]))
show("one before", get(kept[0]))
attempt("wait", lambda: ray.wait([kept[1][0]]))
attempt("compiled twice", lambda: graph.experimental_compile())
attempt("too many arguments", lambda: compiled.execute(1, 2))
compiled.teardown()
show("after teardown", caught(RayChannelError, lambda: compiled.execute(1)))
with InputNode() as x:
    failing = other.add.bind(living.fail.bind(x)).experimental_compile()
attempt("an error", lambda: get(failing.execute(1)))
attempt("an error again", lambda: get(failing.execute(1)))
failing.teardown()
with InputNode() as x:
    tasks = add.bind(x)
attempt("of tasks", tasks.experimental_compile)
attempt("without an input", living.add.bind(1).experimental_compile)
with InputNode() as x:
    of_class = Counter.bind(1).add.bind(x)
attempt("of a class", of_class.experimental_compile)
with InputNode() as x:
    nested = living.add.bind([x])
attempt("nested", nested.experimental_compile)
with InputNode() as x:
    unused = living.add.bind(x)
    used = other.add.bind(x)
attempt("with a call that nobody takes", used.experimental_compile)
with InputNode() as x:
    named = living.add.bind(amount=x)
attempt("by name", named.experimental_compile)
with InputNode() as x:
    one, two = living.two.bind(x[0])
    graph = MultiOutputNode([two, other.add.bind(one)])
compiled = graph.experimental_compile()
show("of several results", get(compiled.execute(7))[0])
compiled.teardown()
ray.shutdown()
