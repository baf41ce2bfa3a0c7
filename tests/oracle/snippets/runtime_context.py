"""`get_runtime_context`: who am I, in a driver and in a task."""

import os

import ray
from _report import attempt, get, show, start


@ray.remote
def inside():
    context = ray.get_runtime_context()
    return {
        "job": context.get_job_id(),
        "node": context.get_node_id(),
        "worker": context.get_worker_id(),
        "task": context.get_task_id(),
        "name": context.get_task_name(),
        "function": context.get_task_function_name(),
        "actor": context.get_actor_id(),
        "actor name": context.get_actor_name(),
        "resources": dict(context.get_assigned_resources()),
        "namespace": context.namespace,
        "gpus": ray.get_gpu_ids(),
        "accelerators": context.get_accelerator_ids()["GPU"],
        "group": context.get_placement_group_id(),
        "reconstructed": attempt_quietly(lambda: context.was_current_actor_reconstructed),
        "initialized": ray.is_initialized(),
        "pid": os.getpid(),
    }


def attempt_quietly(action):
    try:
        return action()
    except Exception as error:
        return type(error).__name__


start(namespace="oracle")
context = ray.get_runtime_context()
ref = inside.remote()
told = get(ref)
show("lengths", [len(told[key]) for key in ("job", "node", "worker", "task")])
show("job and node as the driver's", [told["job"] == context.get_job_id(), told["node"] == context.get_node_id()])
show("worker is another", [told["worker"] != context.get_worker_id(), told["pid"] != os.getpid()])
show("task id as the ref's", told["task"] == ref.task_id().hex())
show("name", told["name"])
show("name of the function", told["function"])
keys = ("actor", "actor name", "resources", "namespace", "gpus", "accelerators", "group", "initialized")
show("the rest", [told[key] for key in keys])
show("two tasks", get(inside.remote())["task"] != told["task"])
show("driver: task id and name", [context.get_task_id(), context.get_task_name()])
show("driver: actor id and name", [context.get_actor_id(), context.get_actor_name()])
show("driver: namespace", context.namespace)
attempt("driver: assigned resources", lambda: dict(context.get_assigned_resources()))
attempt("driver: current actor", lambda: context.current_actor)
attempt("driver: is_canceled", lambda: context.is_canceled())
show("driver: gpus", ray.get_gpu_ids())
show("older names", [type(context.job_id).__name__, type(context.node_id).__name__, sorted(context.get())])
attempt("driver: task_id", lambda: context.task_id)
attempt("driver: actor_id", lambda: context.actor_id)
show("labels", [list(context.get_node_labels()), type(context.get_session_name()).__name__])
show("group", [context.should_capture_child_tasks_in_placement_group, context.current_placement_group_id.is_nil()])
