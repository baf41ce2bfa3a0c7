"""Refs inside of values: they travel, stay alive and stay usable."""

import gc

import ray
from _report import attempt, get, show, start


@ray.remote
def one():
    return 1


@ray.remote
def inner_of(values):
    return ray.get(values[0])


@ray.remote
def make():
    return one.remote()


@ray.remote
def make_many():
    return {"refs": [one.remote() for _ in range(3)], "put": ray.put("by the task")}


@ray.remote
def pass_on(values):
    return values


@ray.remote
def fail():
    raise ValueError("inside")


class Holder:
    def __init__(self, ref):
        self.ref = ref


start()
ref = one.remote()
show("in a list", get(inner_of.remote([ref])))
show("in a list that was put", get(inner_of.remote(ray.put([ref]))))
show("a task that returns a ref", [type(get(make.remote())).__name__, get(get(make.remote()))])
made = get(make_many.remote())
show("several made by a task", [get(made["refs"]), get(made["put"])])
show("there and back is the same ref", get(pass_on.remote([ref]))[0] == ref)
show("in an object", get(get(ray.put(Holder(ref))).ref))
show("ref to a ref to a ref", get(get(get(ray.put([ray.put([ref])]))[0])[0]))

held = ray.put([ray.put("only held by the list")])
gc.collect()
show("held by another object alone", get(get(held)[0]))
inner = get(held)[0]
del held
gc.collect()
show("taken out, and the list gone", get(inner))

made = pass_on.remote([ray.put("kept by a result")])
gc.collect()
show("held by a result alone", get(get(made)[0]))


@ray.remote
def captured():
    return ray.get(ref) + 1


show("captured by a function", get(captured.remote()))
attempt("a failed one inside", lambda: get(inner_of.remote([fail.remote()])))
show("as keys", get(get(pass_on.remote({ref: "value"})).popitem()[0]))
show("a set of refs", len(get(pass_on.remote({ref, ref, ray.put(1)}))))
