"""What the cluster has, and what is left of it while tasks run."""

import tempfile
import time
from pathlib import Path

import ray
from _report import TIMEOUT, get, show, start, wait_for


@ray.remote
def hold(started, stop):
    Path(started).touch()
    wait_for(Path(stop))


def until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


start(num_cpus=4, num_gpus=2, resources={"license": 2})
total = ray.cluster_resources()
show("total", {key: total[key] for key in ("CPU", "GPU", "license")})
show("memory is known", total["memory"] > 0)
show("and that for objects", total.get("object_store_memory", 0) > 0)
show("all is free", until(lambda: ray.available_resources().get("CPU") == 4))
with tempfile.TemporaryDirectory() as directory:
    here = Path(directory)
    options = {"num_cpus": 1.5, "num_gpus": 1, "resources": {"license": 2}}
    held = hold.options(**options).remote(str(here / "started"), str(here / "stop"))
    wait_for(here / "started")
    show("less while it runs", until(lambda: ray.available_resources().get("CPU") == 2.5))
    show("used up is left out", until(lambda: "license" not in ray.available_resources()))
    show("GPU", ray.available_resources()["GPU"])
    show("the total is as it was", ray.cluster_resources()["CPU"])
    (here / "stop").touch()
    get(held)
show("given back", until(lambda: ray.available_resources().get("CPU") == 4))
node = ray.nodes()[0]
wanted = ("NodeID", "Alive", "NodeManagerAddress", "NodeManagerHostname", "NodeName", "Resources", "Labels")
show("a node", [key in node for key in wanted])
show("its resources", [node["Resources"][key] for key in ("CPU", "GPU", "license")])


@ray.remote(num_gpus=1)
def gpu():
    import os

    return [len(ray.get_gpu_ids()), os.environ["CUDA_VISIBLE_DEVICES"] in ("0", "1")]


@ray.remote
def no_gpu():
    return ray.get_gpu_ids()


show("a GPU of its own", get(gpu.remote()))
show("half of one", get(gpu.options(num_gpus=0.5).remote()))
show("two", get(gpu.options(num_gpus=2).remote())[0])
show("none", get(no_gpu.remote()))
