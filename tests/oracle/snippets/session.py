"""`init` and `shutdown`: once, twice, again, and wrong."""

import ray
from _report import attempt, get, show

QUIET = {"include_dashboard": False, "log_to_driver": False, "logging_level": "CRITICAL"}


@ray.remote
def one():
    return 1


show("before", ray.is_initialized())
ray.shutdown()
show("shutdown before init", ray.is_initialized())
attempt("resources before", lambda: ray.cluster_resources())
attempt("nodes before", lambda: ray.nodes())
attempt("unknown keyword", lambda: ray.init(cpus=1))
attempt("local_mode", lambda: ray.init(local_mode=True))

context = ray.init(num_cpus=1, **QUIET)
show("after", ray.is_initialized())
show("the context", [hasattr(context, name) for name in ("address_info", "dashboard_url", "disconnect", "ray_version")])
show("the context as a mapping", ["address" in context, "bogus" in context, context.get("bogus", 5), len(context)])
show("its keys", sorted(context))
attempt("a key that is not there", lambda: context["bogus"])
attempt("twice", lambda: ray.init(num_cpus=1, **QUIET))
show("twice, ignored", type(ray.init(ignore_reinit_error=True, **QUIET)) is type(context))
show("CPUs", ray.cluster_resources()["CPU"])
show("a task", get(one.remote()))
old = one.remote()
get(old)
ray.shutdown()
show("after shutdown", ray.is_initialized())
ray.shutdown()

with ray.init(num_cpus=3, resources={"license": 2}, **QUIET) as context:
    show("with", ray.is_initialized())
    show("other resources", [ray.cluster_resources()["CPU"], ray.cluster_resources()["license"]])
    show("the same function in a new session", get(one.remote()))
    alive = [node["Alive"] for node in ray.nodes()]
    show("nodes", [alive, ray.nodes()[0]["Resources"]["CPU"], len(ray.nodes()[0]["NodeID"])])
show("after with", ray.is_initialized())
attempt("put into namespace ''", lambda: ray.init(namespace="", **QUIET))
attempt("namespace not text", lambda: ray.init(namespace=5, **QUIET))
ray.shutdown()
