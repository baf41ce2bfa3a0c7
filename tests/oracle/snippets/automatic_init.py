"""The first `.remote()`, `put` or `get` starts a session by itself."""

import warnings

import ray
from _report import TIMEOUT, show

warnings.simplefilter("ignore")


@ray.remote
def one():
    return 1


show("before", ray.is_initialized())
ref = one.remote()
show("after the first call", ray.is_initialized())
show("its result", ray.get(ref, timeout=TIMEOUT))
ray.shutdown()
show("after shutdown", ray.is_initialized())
show("put", ray.get(ray.put(5), timeout=TIMEOUT))
ray.shutdown()
