"""What a ref is: an id with a value somewhere."""

import copy
import pickle

import ray
from _report import attempt, get, show, start


@ray.remote
def one():
    return 1


start()
ref, other = one.remote(), one.remote()
get([ref, other])
show("size", [len(ref.binary()), len(ref.hex()), ref.size(), len(bytes(ref)) if hasattr(ref, "__bytes__") else 0])
show("text", [repr(ref) == f"ObjectRef({ref.hex()})", str(ref) == repr(ref)])
show("equality", [ref == ref, ref == other, ref != other, ref == ref.hex(), ref == 1])
show("hash", [hash(ref) == hash(ref), len({ref, ref, other}), {ref: 1}[ref]])
show("nil", [ref.is_nil(), ray.ObjectRef.nil().is_nil(), set(ray.ObjectRef.nil().binary()) == {255}])
show("from_random", [len(ray.ObjectRef.from_random().hex()), ray.ObjectRef.from_random().is_nil()])
show("task id", [ref.task_id().hex() == ref.hex()[:48], type(ref.task_id()).__name__])
show("job id", [ref.job_id().hex() == ray.get_runtime_context().get_job_id(), type(ref.job_id()).__name__])
show("put and task have different ids", ray.put(1) != ray.put(1))
show("ObjectID is the old name", ray.ObjectID is ray.ObjectRef)
show("isinstance", [isinstance(ref, ray.ObjectRef), isinstance(ray.put(1), ray.ObjectRef)])
show("generic", repr(ray.ObjectRef[int]) != "")
attempt("no order", lambda: ref < other)
attempt("no iteration", lambda: list(ref))
attempt("no truth of its own", lambda: bool(ref))
attempt("bad hex", lambda: ray.ObjectRef.from_hex("00"), differs="Ray has it for other ids only")
attempt("bad bytes", lambda: ray.ObjectRef(b"short"))
attempt("bad type", lambda: ray.ObjectRef("text"))
attempt("copy", lambda: copy.copy(ref) == ref)
attempt("deepcopy", lambda: copy.deepcopy([ref])[0] == ref)
attempt("pickle", lambda: get(pickle.loads(pickle.dumps(ref))))
