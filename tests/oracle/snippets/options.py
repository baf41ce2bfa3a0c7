"""Options of tasks: written at the decorator, changed by `.options`."""

import os

import ray
from _report import attempt, get, show, start


@ray.remote
def resources():
    return dict(ray.get_runtime_context().get_assigned_resources())


@ray.remote
def name():
    return ray.get_runtime_context().get_task_name()


@ray.remote
def variable(key):
    return os.environ.get(key)


@ray.remote(num_returns=2)
def pair():
    return 1, 2


start(resources={"license": 2, "disk": 1})
show("default", get(resources.remote()))
show("num_cpus", get(resources.options(num_cpus=2).remote()))
show("a fraction", get(resources.options(num_cpus=0.25).remote()))
show("none", get(resources.options(num_cpus=0).remote()))
show("custom", get(resources.options(resources={"license": 1, "disk": 0.5}).remote()))
show("the original is as it was", get(resources.remote()))
show("options of options", hasattr(resources.options(num_cpus=1), "options"), differs="Ray's cannot be changed again")
show("name by default", get(name.remote()))
show("name given", get(name.options(name="given").remote()))
show("num_returns changed", [get(pair.options(num_returns=1).remote()), len(pair.remote())])
show("env_vars", get(variable.options(runtime_env={"env_vars": {"ORACLE": "yes"}}).remote("ORACLE")))
show("env_vars are of that task alone", get(variable.remote("ORACLE")))

attempt("max_calls in options", lambda: name.options(max_calls=1))
attempt("unknown", lambda: name.options(cpus=1).remote())
attempt("num_cpus negative", lambda: name.options(num_cpus=-1).remote())
attempt("num_cpus text", lambda: name.options(num_cpus="1").remote())
attempt("num_returns negative", lambda: name.options(num_returns=-1).remote())
attempt("num_returns text", lambda: name.options(num_returns="many").remote())
attempt("max_retries below -1", lambda: name.options(max_retries=-2).remote())
attempt("CPU among resources", lambda: name.options(resources={"CPU": 1}).remote())
attempt("resources not a dict", lambda: name.options(resources=["license"]).remote())
attempt("retry_exceptions not classes", lambda: name.options(retry_exceptions=[1]).remote())
attempt("scheduling_strategy", lambda: name.options(scheduling_strategy="NOWHERE").remote())
attempt("SPREAD", lambda: get(name.options(scheduling_strategy="SPREAD", name="s").remote()))
attempt("name not text", lambda: name.options(name=5).remote())
attempt("an option of actors", lambda: name.options(max_restarts=1).remote())
attempt("env_vars not text", lambda: name.options(runtime_env={"env_vars": {"A": 1}}).remote())
attempt("an unknown runtime_env is taken", lambda: get(name.options(runtime_env={}).remote()))
